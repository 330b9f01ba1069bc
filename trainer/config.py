"""What one trial is: model, head phase, unfreeze phases; every field with its range."""

import copy
import difflib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Depth = int | Literal["all"]
NewDetector = Literal["retinanet", "fcos", "faster_rcnn", "ssd"]
"""Detectors with a new neck and head on any backbone."""
CocoDetector = Literal[
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]
"""Detectors that torchvision trained whole, on COCO, by the names of their builders."""
NAMED_WEIGHTS = ("imagenet", "coco", "none")
"""Values of `model.weights` that are no file."""
MOST_DETECTIONS = 2000
"""Boxes of a picture that may be found at most, a tenth of those that are then looked at."""
LR_RANGES = {"adamw": (1e-4, 1e-2), "sgd": (1e-3, 3e-2)}
"""Where each optimizer's learning rate is searched when a dimension says `{log: auto}`."""


class BadInput(ValueError):
    """Something the user can mend: carries every error found, one line each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Config(BaseModel):
    """Base of all configs: frozen, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


Number = BeforeValidator(_no_bool)
LearningRate = Annotated[float, Field(gt=0, le=10), Number]
WeightDecay = Annotated[float, Field(ge=0, le=1), Number]
BatchSize = Annotated[int, Field(ge=1, le=1024), Number]


class Model(Config):
    """Which detector on which pretrained backbone, and how large the pictures are."""

    detector: Literal[NewDetector, CocoDetector] = "retinanet"
    """A new head of torchvision's (RetinaNet, FCOS, Faster R-CNN, SSD) on `backbone`, or one of
    torchvision's COCO detectors by its builder's name, of which only the class layers are new."""
    backbone: str = "tf_efficientnet_lite0"
    """timm model name; it must give feature maps at strides 8, 16 and 32."""
    weights: str = "imagenet"
    """Pretrained weights: `imagenet` (by name, through timm), `coco` (of torchvision's detectors),
    `none`, a local .pth or .safetensors file of the model, or the folder of one of our exports."""
    image_size: Annotated[int, Field(ge=64, le=2048, multiple_of=32), Number] = 320
    """Side of the square canvas that each picture is letterboxed onto, in pixels."""
    detections: Annotated[int, Field(ge=1, le=MOST_DETECTIONS), Number] = 100
    """Boxes that are found on a picture at most, of all classes together; COCO measures 100 of a
    class. Trials are measured with as many."""


class HeadPhase(Config):
    """The first phase: new neck and head learn on the frozen backbone."""

    epochs: Annotated[int, Field(ge=0, le=1000), Number] = 4
    """Epochs before anything is unfrozen."""
    batch_size: BatchSize = 8
    """Pictures a step."""
    lr: LearningRate = 2e-3
    """Peak learning rate of neck and head."""
    weight_decay: WeightDecay = 1e-4
    """Weight decay; norms and biases have none."""


class UnfreezePhases(Config):
    """What follows the head phase: `depth` backbone stages train too."""

    epochs: Annotated[int, Field(ge=1, le=1000), Number] = 12
    """Epochs after the head phase; the budget that ASHA divides."""
    batch_size: BatchSize = 8
    """Pictures a step."""
    depth: Annotated[Depth, Field(union_mode="left_to_right"), Number] = 3
    """Backbone stages that train, counted from the head end: 0 to all."""
    schedule: Literal["gradual", "at_once"] = "gradual"
    """`gradual` opens the stages top first over `open_epochs`; `at_once` opens all together."""
    open_epochs: Annotated[int, Field(ge=1, le=1000), Number] = 3
    """Epochs over which `gradual` opens the stages."""
    lr: LearningRate = 1e-3
    """Peak learning rate of neck and head."""
    batch_norm: Literal["keep", "adapt"] = "keep"
    """BatchNorm statistics of open stages: `keep` the pretrained ones, which small batches would
    spoil, or `adapt` them to the batches, as a backbone without pretrained weights needs."""
    backbone_lr_ratio: Annotated[float, Field(gt=0, le=10), Number] = 0.1
    """Learning rate of the backbone's top stage, as a share of `lr`."""
    stage_lr_decay: Annotated[float, Field(gt=0, le=1), Number] = 1.0
    """Learning rate of each further stage down, as a share of that of the stage above."""
    drop_path: Annotated[float, Field(ge=0, lt=1), Number] = 0.0
    """Probability that the deepest block of an open stage is skipped in training; it rises from 0
    at the first block (stochastic depth), where the backbone has it."""
    weight_decay: WeightDecay = 1e-4
    """Weight decay; norms and biases have none."""


class Train(Config):
    """How a trial trains."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1), Number] = 0.9
    """Momentum of SGD."""
    augment: Literal["none", "flip", "light", "light_flip"] = "flip"
    """`flip` mirrors a picture left to right with probability one half; `light` changes its tone,
    size and place a little, boxes cut to less than 0.4 of themselves being no targets; `light_flip`
    does both."""
    warmup_epochs: Annotated[float, Field(ge=0, le=100), Number] = 0.5
    """Epochs of linear warm-up at the start of each phase, at most half of the phase."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6), Number] = 10.0
    """Gradients are clipped to this global norm."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes the fastest that the hardware has natively."""
    trunk_cache: Annotated[
        Annotated[int, Field(ge=0)] | Literal["auto", "off"],
        Field(union_mode="left_to_right"),
        Number,
    ] = "auto"
    """Up to which depth the outputs of the frozen stages are computed once, kept in files and used
    by all trials, as far as the disk has room; `auto` is measured when a search starts: as far as
    it makes a phase 1.2 times as fast."""
    seed: Annotated[int, Field(ge=0, lt=2**31), Number] = 0
    """Seed of initial weights, order, augmentation and dropout."""
    head: HeadPhase = HeadPhase()
    unfreeze: UnfreezePhases = UnfreezePhases()


class TrainConfig(Config):
    """One trial: the whole of what `fit` needs besides the data."""

    model: Model = Model()
    train: Train = Train()


class Data(Config):
    """Where the pictures and their annotations are."""

    train: Path
    """Annotations of the training pictures: a COCO json, a VOC image set (ImageSets/Main/*.txt) or
    folder of xml files, or YOLO's data.yaml (without one its classes.txt), whose train it is."""
    val: Path | None = None
    """The same of the validation pictures; without it a part of train is split off by content."""
    test: Path | None = None
    """The same of the test pictures, looked at once, for the winner."""
    images: Path | dict[Literal["train", "val", "test"], Path] | None = None
    """Folder of the pictures, or one a split; else where the format has them: beside the json, or
    in its `images/`. Not for YOLO, whose data.yaml says it."""
    allow: list[str] | None = None
    """Codes of `unfreeze check` that are no errors in this data set."""
    crowds: Literal["ignore", "objects"] = "ignore"
    """What boxes with COCO's `iscrowd` are: `ignore` takes them for neither objects nor mistakes;
    `objects` for objects like all others, where a tool exported masks so."""
    val_fraction: Annotated[float, Field(gt=0, lt=1), Number] = 0.2
    """Share of train that becomes val when none is given."""


NEUTRAL = {"train.unfreeze.schedule": "at_once", "train.unfreeze.stage_lr_decay": 1.0}
"""Values that ask for nothing, and so may be written where their field has no effect."""


def inert(train: Train) -> dict[str, str]:
    """Dotted fields (from `train.`) that change nothing in this configuration, and why."""
    found = {}
    unfreeze = train.unfreeze
    if train.optimizer != "sgd":
        found["train.momentum"] = "train.optimizer is adamw, which has no momentum"
    if unfreeze.depth == 0:
        why = "train.unfreeze.depth is 0"
        for name in ("backbone_lr_ratio", "stage_lr_decay", "batch_norm", "drop_path"):
            found[f"train.unfreeze.{name}"] = f"{why}: no backbone stage trains"
        found["train.unfreeze.schedule"] = f"{why}: nothing is opened"
        found["train.unfreeze.open_epochs"] = f"{why}: nothing is opened"
    elif unfreeze.depth == 1:
        why = "train.unfreeze.depth is 1: one stage opens at once"
        found["train.unfreeze.schedule"] = why
        found["train.unfreeze.open_epochs"] = why
        found["train.unfreeze.stage_lr_decay"] = "train.unfreeze.depth is 1: one stage trains"
    elif unfreeze.schedule == "at_once":
        found["train.unfreeze.open_epochs"] = "train.unfreeze.schedule is at_once"
    if train.head.epochs == 0:
        for name in ("batch_size", "lr", "weight_decay"):
            found[f"train.head.{name}"] = "train.head.epochs is 0: there is no head phase"
    return found


def opens_slowly(train: Train, searched: AbstractSet[str] = frozenset()) -> bool:
    """Whether a trial may open stage after stage; `searched` names the dotted fields that a space
    varies."""
    shallow = train.unfreeze.depth in (0, 1) and "train.unfreeze.depth" not in searched
    gradual = train.unfreeze.schedule == "gradual" or "train.unfreeze.schedule" in searched
    return gradual and not shallow


def fixed_errors(train: Train, searched: frozenset[str] = frozenset()) -> list[str]:
    """Errors between fields; `searched` names the dotted fields that a space varies."""
    errors = []
    unfreeze = train.unfreeze
    if opens_slowly(train, searched) and unfreeze.open_epochs > unfreeze.epochs:
        errors.append(
            f"train.unfreeze.open_epochs: {unfreeze.open_epochs} is more than "
            f"train.unfreeze.epochs ({unfreeze.epochs})"
        )
    if not {"train.unfreeze.depth", "train.unfreeze.schedule", "train.optimizer"} & searched:
        for path, why in inert(train).items():
            own = path.removeprefix("train.")
            asks = NEUTRAL.get(path) != get(train, own)
            if path not in searched and is_written(train, own) and asks:
                errors.append(f"{path}: has no effect, since {why}; leave it out")
    return errors


def is_written(config: Config, path: str) -> bool:
    """Whether the user wrote the field at this dotted path, rather than left it to its default."""
    name, _, rest = path.partition(".")
    if name not in config.model_fields_set:
        return False
    return is_written(getattr(config, name), rest) if rest else True


def leaves(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted names of all plain fields of a config and of the configs in it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Config):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def get(config: Config, path: str) -> Any:
    """The value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def override(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in a nested dict, making the dicts on the way."""
    *parents, last = path.split(".")
    for name in parents:
        inner = raw.get(name)
        if not isinstance(inner, dict):
            inner = raw[name] = {}
        raw = inner
    raw[last] = value


def parse(model: type[AnyConfig], raw: Any) -> AnyConfig:
    """Build a config; raises BadInput with every error, its dotted path, value and legal range."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(describe(model, error)) from None


def describe(model: type[Config], error: ValidationError) -> list[str]:
    """One line an error of pydantic's, in the words of the file that the user wrote."""
    lines: dict[str, str] = {}
    for item in error.errors():
        path = _path(item["loc"])
        dotted = ".".join(path) or "the file"
        lines.setdefault(dotted, f"{dotted}: {_reason(model, path, dict(item))}")
    # of a union, the branch that was meant is the one with errors further in
    return [
        line for path, line in lines.items() if not any(p.startswith(f"{path}.") for p in lines)
    ]


def parse_what_can_be(
    model: type[AnyConfig], raw: dict[str, Any]
) -> tuple[AnyConfig | None, list[str]]:
    """A config and every error of its fields; what is in error is left out of the config.

    None where nothing is left to check further. So errors between fields are found in one go with
    errors of fields.
    """
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        lines = describe(model, error)
        sound = copy.deepcopy(raw)
        for item in error.errors():
            _remove(sound, _path(item["loc"]))
    try:
        return model.model_validate(sound), lines
    except ValidationError:
        return None, lines


def _remove(raw: Any, path: list[str]) -> None:
    for name in path[:-1]:
        raw = raw.get(name) if isinstance(raw, dict) else None
    if isinstance(raw, dict) and path:
        raw.pop(path[-1], None)


def _path(location: tuple[int | str, ...]) -> list[str]:
    return [str(part) for part in location if not _is_branch(part)]


def _is_branch(part: int | str) -> bool:
    # pydantic names the tried branch of a union in the location; users never wrote it
    if not isinstance(part, str):
        return False
    classes = {config.__name__ for config in _configs(Config)}
    return part in {"int", "constrained-int", "path", "float", "str", *classes} or "[" in part


def _configs(base: type[Config]) -> Iterator[type[Config]]:
    for config in base.__subclasses__():
        yield config
        yield from _configs(config)


def _reason(model: type[Config], path: list[str], item: Mapping[str, Any]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + nearest(path[-1], _names_beside(model, path))
    if kind == "missing":
        return "is required"
    if path[-1:] == ["depth"]:
        return f"{_short(value)}: is no depth (legal: a whole number from 0 on, or all)"
    if path[-1:] == ["trunk_cache"]:
        return f"{_short(value)}: is no depth (legal: auto, off, or a whole number from 0 on)"
    if kind == "value_error":  # of a validator of ours, which says what is legal
        return f"{_short(value)}: {context['error']}"
    if kind == "literal_error":
        legal = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{value!r} is none of {context['expected']}" + did_you_mean(str(value), legal)
    return f"{_short(value)}: {item['msg'][:1].lower()}{item['msg'][1:]}" + _range(model, path)


def did_you_mean(name: str, legal: list[str]) -> str:
    """`; did you mean x?` where a legal name is near, else nothing."""
    near = difflib.get_close_matches(name, legal, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearest(name: str, legal: list[str]) -> str:
    """The same or, where none is near, the legal names."""
    if hint := did_you_mean(name, legal):
        return hint
    return f"; known here: {', '.join(legal)}" if legal else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _names_beside(model: type[Config], path: list[str]) -> list[str]:
    for name in path[:-1]:
        field = model.model_fields.get(name)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, Config)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _range(model: type[Config], path: list[str]) -> str:
    names = _names_beside(model, path)
    if not path or path[-1] not in names:
        return ""
    for name in path[:-1]:
        annotation = model.model_fields[name].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, Config))
    bounds = []
    for rule in model.model_fields[path[-1]].metadata:
        for mark, text in (("gt", "over"), ("ge", "at least"), ("lt", "under"), ("le", "at most")):
            if hasattr(rule, mark):
                bounds.append(f"{text} {getattr(rule, mark):g}")
    return f" (legal: {', '.join(bounds)})" if bounds else ""
