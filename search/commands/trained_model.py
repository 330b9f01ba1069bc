"""Commands on a trained model: `unfreeze export`, `evaluate` and `predict`."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from .options import DATA, add_allow, add_command, add_json, add_model, add_storage

if TYPE_CHECKING:
    from .options import Commands


def add_export(commands: "Commands") -> None:
    """Add `unfreeze export`."""
    export = add_command(commands, "export", _export, "write a trial's best checkpoint as files")
    add_model(export)
    export.add_argument("--trial", type=int, metavar="N", help="default: the winner")
    export.add_argument("--format", choices=["safetensors", "onnx", "pt2"], default="safetensors")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument(
        "--data", type=Path, metavar="DATA", help="to compare onnx or pt2 on; default: the search's"
    )
    add_allow(export)
    export.add_argument("--force", action="store_true", help="replace an export that is there")
    add_storage(export)


def _export(options: argparse.Namespace) -> int:
    from ..exports.export_model import export_model

    export_model(
        options.model,
        options.trial,
        options.format,
        options.storage,
        options.out,
        data=options.data,
        allow=options.allow,
        force=options.force,
    )
    print(f"wrote {options.out}")
    return 0


def add_evaluate(commands: "Commands") -> None:
    """Add `unfreeze evaluate`."""
    evaluate = add_command(commands, "evaluate", _evaluate, "the 12 COCO figures of a model")
    add_model(evaluate)
    evaluate.add_argument(
        "data", type=Path, metavar="DATA", help=f"{DATA}, or a search.yaml; a json is the split"
    )
    evaluate.add_argument(
        "--split",
        action="append",
        choices=["train", "val", "test"],
        help="may be given several times; default: val",
    )
    add_allow(evaluate)
    add_json(evaluate)
    evaluate.add_argument("--detections", type=Path, metavar="FILE", help="write COCO results")
    add_storage(evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from trainer.config import InputError

    from ..exports.evaluate import evaluate_model
    from ..reporting import summary
    from ..reporting.console import print_json

    splits = options.split or ["val"]
    if options.detections and len(splits) > 1:
        raise InputError(["--detections is one file: give one --split"])
    measured = []
    for split in splits:
        metrics = evaluate_model(
            options.model,
            options.data,
            split,
            options.storage,
            options.detections,
            options.allow,
        )
        measured.append({"split": split, **metrics})
        if not options.json:
            summary.print_metrics(split, metrics)
    if options.json:
        print_json(measured[0] if len(measured) == 1 else {"splits": measured})
    return 0


def add_predict(commands: "Commands") -> None:
    """Add `unfreeze predict`."""
    predict = add_command(commands, "predict", _predict, "draw boxes on pictures")
    add_model(predict)
    predict.add_argument(
        "pictures", type=Path, nargs="+", metavar="PICTURES", help="files, folders or patterns"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="DIR")
    predict.add_argument(
        "--threshold", type=_score, metavar="T", help="least score; default: the model's, a class"
    )
    predict.add_argument("--force", action="store_true", help="write into a folder that is there")
    add_storage(predict)


def _score(text: str) -> float:
    """The argument type of a score from 0 to 1."""
    with contextlib.suppress(ValueError):
        if 0 <= (score := float(text)) <= 1:
            return score
    raise argparse.ArgumentTypeError(f"{text} (legal: 0 to 1)")


def _predict(options: argparse.Namespace) -> int:
    from trainer.text.counts import counted

    from ..exports.predict import predict_pictures
    from ..reporting import summary
    from ..reporting.console import print_plain

    result = predict_pictures(
        options.model,
        options.pictures,
        options.storage,
        options.out,
        options.threshold,
        force=options.force,
        watch=summary.progress_bar,
    )
    for line in result.unreadable:
        print_plain(line, error=True)
    pictures = counted(result.pictures, "picture")
    print(f"wrote {pictures} with {result.boxes} boxes to {options.out}")
    if not result.boxes:
        print("no box scores high enough; a lower --threshold draws more")
    return 1 if result.unreadable else 0
