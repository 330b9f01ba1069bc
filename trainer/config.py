"""The config of a trial and of its data: every field with its meaning and legal range."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
"""Detectors that torchvision trained on COCO, by the names of their builders."""
NAMED_WEIGHTS = ("imagenet", "coco", "none")
"""Values of `model.weights` that do not name a file."""
MAX_DETECTIONS = 2000
"""Upper bound of `model.detections`. The detectors score ten times as many candidate boxes."""
LR_RANGES = {"adamw": (1e-4, 1e-2), "sgd": (1e-3, 3e-2)}
"""Range of the learning rate by optimizer, for a search dimension `{log: auto}`."""


class InputError(ValueError):
    """Input that the user can fix. `errors` holds every error, one line each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Config(BaseModel):
    """Base of all configs: frozen, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers")
    return value


NotBool = BeforeValidator(_refuse_bool)
"""Refuses true and false. Pydantic's `Strict` would also refuse 4.0 and "4" for an integer."""
LearningRate = Annotated[float, Field(gt=0, le=10), NotBool]
WeightDecay = Annotated[float, Field(ge=0, le=1), NotBool]
BatchSize = Annotated[int, Field(ge=1, le=1024), NotBool]


class Model(Config):
    """The detector, its pretrained backbone, and the size of the pictures."""

    detector: Literal[NewDetector, CocoDetector] = "retinanet"
    """A new torchvision head (RetinaNet, FCOS, Faster R-CNN, SSD) on `backbone`, or the builder
    name of one of torchvision's COCO detectors, where only the class layers are new."""
    backbone: str = "tf_efficientnet_lite0"
    """timm model name. The model must give feature maps at strides 8, 16 and 32."""
    weights: str = "imagenet"
    """Pretrained weights: `imagenet` (through timm), `coco` (torchvision's detectors), `none`, a
    local .pth or .safetensors file of the model, or the folder of an export of Unfreeze."""
    image_size: Annotated[int, Field(ge=64, le=2048, multiple_of=32), NotBool] = 320
    """Side in pixels of the square canvas that each picture is letterboxed onto."""
    detections: Annotated[int, Field(ge=1, le=MAX_DETECTIONS), NotBool] = 100
    """Maximum number of boxes on a picture, over all classes. COCO counts 100 of a class. The
    AP of a trial is measured with this limit too."""


class HeadPhase(Config):
    """The head phase: the new neck and head train, the backbone is frozen."""

    epochs: Annotated[int, Field(ge=0, le=1000), NotBool] = 4
    """Epochs before the first backbone stage is unfrozen."""
    batch_size: BatchSize = 8
    """Pictures a step."""
    lr: LearningRate = 2e-3
    """Peak learning rate of neck and head."""
    weight_decay: WeightDecay = 1e-4
    """Weight decay; norms and biases have none."""


class UnfreezePhases(Config):
    """The phases after the head phase: the top `depth` backbone stages train too."""

    epochs: Annotated[int, Field(ge=1, le=1000), NotBool] = 12
    """Epochs after the head phase. This is the budget of ASHA."""
    batch_size: BatchSize = 8
    """Pictures a step."""
    depth: Annotated[Depth, Field(union_mode="left_to_right"), NotBool] = 3
    """Number of backbone stages that train, counted from the head end: 0 to all."""
    schedule: Literal["gradual", "at_once"] = "gradual"
    """`gradual` unfreezes the stages top first over `open_epochs`, `at_once` all together."""
    open_epochs: Annotated[int, Field(ge=1, le=1000), NotBool] = 3
    """Epochs over which `gradual` unfreezes the stages."""
    lr: LearningRate = 1e-3
    """Peak learning rate of neck and head."""
    batch_norm: Literal["keep", "adapt"] = "keep"
    """BatchNorm statistics of unfrozen stages. `keep` holds the pretrained ones, which small
    batches would spoil. `adapt` follows the batches, as a backbone without weights needs."""
    backbone_lr_ratio: Annotated[float, Field(gt=0, le=10), NotBool] = 0.1
    """Learning rate of the top backbone stage, as a fraction of `lr`."""
    stage_lr_decay: Annotated[float, Field(gt=0, le=1), NotBool] = 1.0
    """Learning rate of each lower stage, as a fraction of that of the stage above it."""
    drop_path: Annotated[float, Field(ge=0, lt=1), NotBool] = 0.0
    """Stochastic depth, for backbones that support it: the probability that a block of an unfrozen
    stage is skipped in training. It rises from 0 at the first block to this at the last."""
    weight_decay: WeightDecay = 1e-4
    """Weight decay; norms and biases have none."""


class Train(Config):
    """Training settings of a trial."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1), NotBool] = 0.9
    """Momentum of SGD."""
    augment: Literal["none", "flip", "light", "light_flip"] = "flip"
    """`flip` mirrors a picture left to right with probability one half. `light` slightly changes
    tone, size and position; a box cut to less than 0.4 of its area is no target. `light_flip` does
    both."""
    warmup_epochs: Annotated[float, Field(ge=0, le=100), NotBool] = 0.5
    """Epochs of linear warm-up at the start of each phase, limited to half of the phase."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6), NotBool] = 10.0
    """Gradients are clipped to this global norm."""
    ema: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | Literal["off"],
        Field(union_mode="left_to_right"),
        NotBool,
    ] = "off"
    """Decay a step of an exponential moving average of the weights, from the first unfreeze epoch
    on, such as 0.99. The averaged weights are scored and exported; what is trained stays the same.
    Early steps decay faster: `min(ema, (1 + t) / (10 + t))` at step t."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the forward pass. `auto` takes the fastest that the hardware supports."""
    trunk_cache: Annotated[
        Annotated[int, Field(ge=0)] | Literal["auto", "off"],
        Field(union_mode="left_to_right"),
        NotBool,
    ] = "auto"
    """Largest depth at which the features of the frozen stages are computed once and cached on disk
    for all trials, if the disk has room. `auto` is measured when a search starts: caching is used
    where it makes a phase at least 1.2 times as fast."""
    seed: Annotated[int, Field(ge=0, lt=2**31), NotBool] = 0
    """Seed of initial weights, order of pictures, augmentation and dropout."""
    head: HeadPhase = HeadPhase()
    """The head phase."""
    unfreeze: UnfreezePhases = UnfreezePhases()
    """The phases after it."""


class TrainConfig(Config):
    """One trial: everything that `fit` needs besides the data."""

    model: Model = Model()
    """The detector."""
    train: Train = Train()
    """How it is trained."""


class Data(Config):
    """The pictures, their annotations, and how to read them."""

    train: Path
    """Annotations of the training pictures: a COCO json, a VOC image set (ImageSets/Main/*.txt) or
    folder of xml files, or the train split of a YOLO data.yaml (or classes.txt)."""
    val: Path | None = None
    """Annotations of the validation pictures. Without them a part of train is split off."""
    test: Path | None = None
    """Annotations of the test pictures, used once, to measure the winner."""
    images: Path | dict[Literal["train", "val", "test"], Path] | None = None
    """Folder of the pictures, or one folder for each split. By default the pictures are where the
    format puts them: beside the json or in its `images/`. Not for YOLO: its data.yaml says it."""
    allow: list[str] | None = None
    """Finding codes of `unfreeze check` that are accepted in this data set."""
    crowds: Literal["ignore", "objects"] = "ignore"
    """Boxes with COCO's `iscrowd`. `ignore`: a detection there counts neither as right nor as
    wrong. `objects`: they are normal objects, for tools that export masks with this flag."""
    val_fraction: Annotated[float, Field(gt=0, lt=1), NotBool] = 0.2
    """Fraction of train that becomes val when `val` is not given."""
