"""The tables of `unfreeze models`: stages of each model, and how much trains at each depth."""

from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from trainer.config import CocoDetector, InputError, Model, NewDetector
from trainer.config_errors import did_you_mean
from trainer.model.backbones import TESTED_BACKBONES, is_timm_model
from trainer.model.detectors import is_coco, model_errors
from trainer.model.outline import outline

from ..reporting.console import Prose, first_that_fits, print_json, text_console

EXPLAINED = (
    "Depth is how many stages of the backbone train, counted from the head end. At depth 0 neck "
    "and head train alone. Parameters are in millions, with the class layers of one class."
)


def print_models(name: str | None, as_json: bool = False, console: Console | None = None) -> None:
    """Print all tested models, or one by its name. Raises InputError for an unknown name."""
    console = console or text_console()
    if as_json:
        models = _all_models() if name is None else [_model_called(name)]
        print_json({"models": [_as_json(model) for model in models]})
    elif name is None:
        _print_all(console)
    else:
        _print_model(console, _model_called(name))


def _all_models() -> list[Model]:
    return [*_backbones(), *_trained()]


def _backbones() -> list[Model]:
    return [_with_backbone(Model(), backbone) for backbone in TESTED_BACKBONES]


def _trained() -> list[Model]:
    return [Model(detector=detector, weights="none") for detector in get_args(CocoDetector)]


def _as_json(model: Model) -> dict[str, Any]:
    """One model of the object of `unfreeze models --json`; its stages are listed bottom first."""
    parts = outline(model)
    return {
        "name": _name(model),
        "detector": model.detector,
        "backbone": None if is_coco(model) else model.backbone,
        "neck_and_head": parts.neck_and_head,
        "stages": [
            {"parameters": parameters, "layers": list(layers)}
            for parameters, layers in zip(parts.stages, parts.layers, strict=True)
        ],
        "trainable": [parts.trainable(depth) for depth in range(len(parts.stages) + 1)],
    }


def _name(model: Model) -> str:
    return model.detector if is_coco(model) else model.backbone


def _print_all(console: Console) -> None:
    console.print(first_that_fits(console, [_table("Backbones, from timm", _backbones())]))
    heads = ", ".join(get_args(NewDetector))
    console.print(
        Prose(
            f"Each with a new head, model.detector: {heads} (counted: {Model().detector}). Others "
            "of timm's with maps at strides 8, 16 and 32 work, untested.\n"
        )
    )
    console.print(first_that_fits(console, [_table("Detectors, from torchvision", _trained())]))
    console.print(Prose("Each with weights: coco keeps all but its class layers.\n"))
    console.print(Prose(f"{EXPLAINED} `unfreeze models NAME` tells which layers each stage has."))


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
    table.add_column("")
    for depth in range(deepest + 1):
        table.add_column(f"depth {depth}" if depth == 0 else str(depth), justify="right")
    for model, one in zip(models, outlines, strict=True):
        counts = [_millions(one.trainable(d)) for d in range(len(one.stages) + 1)]
        table.add_row(_name(model), *counts)
    return table


def _print_model(console: Console, model: Model) -> None:
    parts = outline(model)
    what = model.detector if is_coco(model) else f"{model.detector} on {model.backbone}"
    table = Table(title=what, title_justify="left", box=None, pad_edge=False)
    table.add_column("depth", justify="right")
    table.add_column("opens")
    table.add_column("its parameters", justify="right")
    table.add_column("trainable in all", justify="right")
    neck_and_head = _millions(parts.neck_and_head)
    table.add_row("0", "neck and head", neck_and_head, _millions(parts.trainable(0)))
    stages = range(len(parts.stages), 0, -1)
    for depth, stage in enumerate(stages, start=1):
        count, in_all = parts.stages[stage - 1], parts.trainable(depth)
        table.add_row(str(depth), f"stage {stage}", _millions(count), _millions(in_all))
    console.print(first_that_fits(console, [table]))
    console.print()
    for stage in stages:
        console.print(Prose(f"stage {stage}: {', '.join(parts.layers[stage - 1])}"))
    console.print()
    console.print(Prose(EXPLAINED))


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}" if count < 1e7 else f"{count / 1e6:.1f}"
