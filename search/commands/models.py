"""`unfreeze models`: what can be fine-tuned, its stages, and how much trains at each depth."""

from typing import get_args

from rich.console import Console
from rich.table import Table

from trainer.config import BadInput, CocoDetector, Model, NewDetector
from trainer.config_errors import did_you_mean
from trainer.model.backbones import TESTED, is_known
from trainer.model.detectors import Outline, errors, is_coco, outline

from ..reporting.console import text_console

EXPLAINED = (
    "Depth is how many stages of the backbone train, counted from the head end. At depth 0 neck "
    "and head train alone. Parameters are in millions, with the class layers of one class."
)


def print_models(name: str | None, console: Console | None = None) -> None:
    """Print all tested models, or one by its name. Raises BadInput for a name that is none."""
    console = console or text_console()
    if name is not None:
        _print_model(console, _named(name))
        return
    console.print(_table("Backbones, from timm", [_on(Model(), backbone) for backbone in TESTED]))
    heads = ", ".join(get_args(NewDetector))
    console.print(
        f"Each with a new head, model.detector: {heads} (counted: {Model().detector}). Others of "
        "timm's with maps at strides 8, 16 and 32 work, untested.\n"
    )
    trained = [Model(detector=detector, weights="none") for detector in get_args(CocoDetector)]
    console.print(_table("Detectors, from torchvision", trained))
    console.print("Each with weights: coco keeps all but its class layers.\n")
    console.print(f"{EXPLAINED} `unfreeze models NAME` tells which layers each stage has.")


def _on(model: Model, backbone: str) -> Model:
    return model.model_copy(update={"backbone": backbone, "weights": "none"})


def _named(name: str) -> Model:
    if name in (*get_args(NewDetector), *get_args(CocoDetector)):
        return Model.model_validate({"detector": name, "weights": "none"})
    hint = did_you_mean(name, [*get_args(CocoDetector), *TESTED])
    if hint and not is_known(name):
        raise BadInput([f"timm has no {name!r}{hint}"])
    model = _on(Model(), name)
    if found := errors(model):
        raise BadInput([line.removeprefix("model.backbone: ") for line in found])
    return model


def _table(title: str, models: list[Model]) -> Table:
    outlines = [outline(model) for model in models]
    deepest = max(len(own.stages) for own in outlines)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for depth in range(deepest + 1):
        table.add_column(f"depth {depth}" if depth == 0 else str(depth), justify="right")
    for model, own in zip(models, outlines, strict=True):
        name = model.detector if is_coco(model) else model.backbone
        counts = [_millions(own.trainable(d)) for d in range(len(own.stages) + 1)]
        table.add_row(name, *counts)
    return table


def _print_model(console: Console, model: Model) -> None:
    own = outline(model)
    what = model.detector if is_coco(model) else f"{model.detector} on {model.backbone}"
    table = Table(title=what, title_justify="left", box=None, pad_edge=False)
    table.add_column("depth", justify="right")
    table.add_column("opens", overflow="fold")
    table.add_column("its parameters", justify="right")
    table.add_column("trainable in all", justify="right")
    table.add_row("0", "neck and head", _millions(own.rest), _millions(own.trainable(0)))
    for depth in range(1, len(own.stages) + 1):
        table.add_row(str(depth), *_stage(own, depth))
    console.print(table)
    console.print(EXPLAINED)


def _stage(own: Outline, depth: int) -> tuple[str, str, str]:
    place = len(own.stages) - depth
    layers = ", ".join(own.layers[place])
    return (
        f"stage {place + 1}: {layers}",
        _millions(own.stages[place]),
        _millions(own.trainable(depth)),
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}" if count < 1e7 else f"{count / 1e6:.1f}"
