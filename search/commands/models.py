"""The tables of `unfreeze models`: stages of each model, and how much trains at each depth."""

from typing import get_args

from rich.console import Console
from rich.table import Table

from trainer.config import CocoDetector, InputError, Model, NewDetector
from trainer.config_errors import did_you_mean
from trainer.model.backbones import TESTED_BACKBONES, is_timm_model
from trainer.model.detectors import is_coco, model_errors
from trainer.model.outline import Outline, outline

from ..reporting.console import text_console

EXPLAINED = (
    "Depth is how many stages of the backbone train, counted from the head end. At depth 0 neck "
    "and head train alone. Parameters are in millions, with the class layers of one class."
)


def print_models(name: str | None, console: Console | None = None) -> None:
    """Print all tested models, or one by its name. Raises InputError for an unknown name."""
    console = console or text_console()
    if name is not None:
        _print_model(console, _model_called(name))
        return
    console.print(
        _table(
            "Backbones, from timm",
            [_with_backbone(Model(), backbone) for backbone in TESTED_BACKBONES],
        )
    )
    heads = ", ".join(get_args(NewDetector))
    console.print(
        f"Each with a new head, model.detector: {heads} (counted: {Model().detector}). Others of "
        "timm's with maps at strides 8, 16 and 32 work, untested.\n"
    )
    trained = [Model(detector=detector, weights="none") for detector in get_args(CocoDetector)]
    console.print(_table("Detectors, from torchvision", trained))
    console.print("Each with weights: coco keeps all but its class layers.\n")
    console.print(f"{EXPLAINED} `unfreeze models NAME` tells which layers each stage has.")


def _with_backbone(model: Model, backbone: str) -> Model:
    return model.model_copy(update={"backbone": backbone, "weights": "none"})


def _model_called(name: str) -> Model:
    if name in (*get_args(NewDetector), *get_args(CocoDetector)):
        return Model.model_validate({"detector": name, "weights": "none"})
    hint = did_you_mean(name, [*get_args(CocoDetector), *TESTED_BACKBONES])
    if hint and not is_timm_model(name):
        raise InputError([f"timm has no {name!r}{hint}"])
    model = _with_backbone(Model(), name)
    if lines := model_errors(model):
        raise InputError([line.removeprefix("model.backbone: ") for line in lines])
    return model


def _table(title: str, models: list[Model]) -> Table:
    outlines = [outline(model) for model in models]
    deepest = max(len(one.stages) for one in outlines)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for depth in range(deepest + 1):
        table.add_column(f"depth {depth}" if depth == 0 else str(depth), justify="right")
    for model, one in zip(models, outlines, strict=True):
        name = model.detector if is_coco(model) else model.backbone
        counts = [_millions(one.trainable(d)) for d in range(len(one.stages) + 1)]
        table.add_row(name, *counts)
    return table


def _print_model(console: Console, model: Model) -> None:
    parts = outline(model)
    what = model.detector if is_coco(model) else f"{model.detector} on {model.backbone}"
    table = Table(title=what, title_justify="left", box=None, pad_edge=False)
    table.add_column("depth", justify="right")
    table.add_column("opens", overflow="fold")
    table.add_column("its parameters", justify="right")
    table.add_column("trainable in all", justify="right")
    table.add_row(
        "0", "neck and head", _millions(parts.neck_and_head), _millions(parts.trainable(0))
    )
    for depth in range(1, len(parts.stages) + 1):
        table.add_row(str(depth), *_stage_cells(parts, depth))
    console.print(table)
    console.print(EXPLAINED)


def _stage_cells(parts: Outline, depth: int) -> tuple[str, str, str]:
    index = len(parts.stages) - depth
    layers = ", ".join(parts.layers[index])
    return (
        f"stage {index + 1}: {layers}",
        _millions(parts.stages[index]),
        _millions(parts.trainable(depth)),
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}" if count < 1e7 else f"{count / 1e6:.1f}"
