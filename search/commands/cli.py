"""The `unfreeze` command. Imports only what its help needs; each command imports its own."""

import argparse
import contextlib
import io
import json
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..study.facts import SearchState
from .errors import Misused, Parser, as_json, explain

if TYPE_CHECKING:
    from ..space.config import SearchConfig

DESCRIPTION = """\
How deep should you unfreeze? Unfreeze finds out, and shows you: it searches for the best way to
fine-tune a pretrained object detector on your own pictures."""
DATA = (
    "a COCO json, YOLO's data.yaml, or a folder as COCO, Roboflow, VOC, YOLO, CVAT, FiftyOne, "
    "Label Studio or mmdetection lay it out"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 bad input."""
    try:
        options = parser().parse_args(arguments)
    except Misused as error:
        if "--json" in (sys.argv if arguments is None else arguments):
            print(as_json([error.message]))
        raise
    from ..reporting.console import log_plainly

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal lacks letters for
            stream.reconfigure(errors="backslashreplace")
    log_plainly()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    if strange := _strangers():
        return _fail(options, [strange], 1)
    try:
        return int(options.run(options))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error, goes_on=options.run in (_search, _train))
        if explained is None:  # a bug
            _fail(options, [f"{type(error).__name__}: {error}"], 1)
            raise
        return _fail(options, *explained)


def _fail(options: argparse.Namespace, lines: list[str], status: int) -> int:
    from ..reporting.console import tell

    for line in lines:
        tell(line, error=True)
    if getattr(options, "json", False):
        print(as_json(lines))
    return status


def _strangers() -> str:
    """What is wrong where another installed package has a name of ours; empty when nothing is."""
    here = Path(__file__).parents[2]
    for name in ("trainer", "clusters"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != here:
            found = spec.origin if spec else "nowhere"
            return (
                f"another package named {name} is in the way ({found}); install Unfreeze in an "
                "environment of its own"
            )
    return ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="unfreeze", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"unfreeze {version('unfreeze')}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    init = _command(commands, "init", _init, "write a commented search.yaml for a data set")
    init.add_argument("data", type=Path, metavar="DATA", help=DATA)
    init.add_argument(
        "--out", type=Path, default=Path("search.yaml"), metavar="FILE", help="default: search.yaml"
    )
    _allowances(init)
    _picture_folders(init)

    check = _command(commands, "check", _check, "find everything that is wrong with a data set")
    check.add_argument("data", type=Path, metavar="DATA", help=f"{DATA}, or a search.yaml")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--out", type=Path, metavar="DIR", help="draw the data set into DIR")
    check.add_argument(
        "--no-pictures", action="store_true", help="check the annotation files alone"
    )
    _allowances(check)
    _picture_folders(check)

    models = _command(commands, "models", _models, "backbones and detectors, and their stages")
    models.add_argument("name", nargs="?", metavar="NAME", help="of one; default: all tested")

    search = _command(commands, "search", _search, "search, or continue a search")
    search.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="default: the embedded one"
    )
    _settings(search)
    search.add_argument("--trials", type=int, metavar="T", help="trials in all")
    search.add_argument(
        "--cluster", metavar="X", help="local, auto, a head's address, or a definition's name"
    )
    search.add_argument("--detach", action="store_true", help="as a Ray job, without this terminal")
    search.add_argument("--dry-run", action="store_true", help="say what would run, and stop")

    train = _command(commands, "train", _train, "train one trial, without Ray")
    train.add_argument("file", type=Path, metavar="FILE")
    _settings(train)

    lister = _command(commands, "list", _list, "the searches in a storage folder")
    status = _command(commands, "status", _status, "where a search stands")
    status.add_argument("name", metavar="NAME")
    status.add_argument("--watch", action="store_true", help="again and again, while it runs")
    stop = _command(commands, "stop", _stop, "end a running search; the same line continues it")
    stop.add_argument("name", metavar="NAME")
    report = _command(commands, "report", _report, "a search on one page, to read and to print")
    report.add_argument("name", metavar="NAME")
    clean = _command(commands, "clean", _clean, "delete checkpoints; record and winner stay")
    clean.add_argument("name", metavar="NAME")
    export = _command(commands, "export", _export, "write a trial's best checkpoint as files")
    export.add_argument(
        "model", metavar="MODEL", help="a search's name, an exported folder, or a file of one"
    )
    export.add_argument("--trial", type=int, metavar="N", help="default: the winner")
    export.add_argument("--format", choices=["safetensors", "onnx", "pt2"], default="safetensors")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument(
        "--data", type=Path, metavar="DATA", help="to compare onnx or pt2 on; default: the search's"
    )
    _allowances(export)
    export.add_argument("--force", action="store_true", help="replace an export that is there")

    evaluate = _command(commands, "evaluate", _evaluate, "the 12 COCO figures of a model")
    evaluate.add_argument(
        "model", metavar="MODEL", help="a search's name, an exported folder, or a file of one"
    )
    evaluate.add_argument(
        "data", type=Path, metavar="DATA", help=f"{DATA}, or a search.yaml; a json is the split"
    )
    evaluate.add_argument(
        "--split",
        action="append",
        choices=["train", "val", "test"],
        help="may be given several times; default: val",
    )
    _allowances(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print JSON, a line a split")
    evaluate.add_argument("--detections", type=Path, metavar="FILE", help="write COCO results")

    predict = _command(commands, "predict", _predict, "draw boxes on pictures")
    predict.add_argument(
        "model", metavar="MODEL", help="a search's name, an exported folder, or a file of one"
    )
    predict.add_argument(
        "pictures", type=Path, nargs="+", metavar="PICTURES", help="files, folders or patterns"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="DIR")
    predict.add_argument(
        "--threshold", type=_score, metavar="T", help="least score; default: the model's, a class"
    )
    predict.add_argument("--force", action="store_true", help="write into a folder that is there")

    ui = _command(commands, "ui", _ui, "MLflow's pages on this store")
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    ui.add_argument(
        "--tracking", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db"
    )
    for command in (lister, status, stop):
        command.add_argument(
            "--cluster", metavar="X", help="of a search sent with --detach: asked there, as a job"
        )
    for command in (lister, status, stop, report, clean, export, evaluate, predict):
        command.add_argument(
            "--storage",
            type=Path,
            default=Path("searches"),
            metavar="DIR",
            help="where searches lie; default: searches, in this folder",
        )
    return top


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def _settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="a setting over the file's"
    )
    command.add_argument("--name", metavar="N", help="default: the file's name")
    _allowances(command)


def _allowances(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CODE",
        help="an error of `unfreeze check` that is none in this data set",
    )


def _picture_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="DIR",
        help="where the pictures are, or SPLIT=DIR, once a split; not for YOLO",
    )


def _config(
    options: argparse.Namespace, sets: list[str], elsewhere: bool = False
) -> "SearchConfig":
    from trainer.config import BadInput

    from ..space.config_file import read
    from ..space.data import data_errors
    from ..space.validation import resolve

    raw = read(options.file, [*options.set, *sets], options.name)
    beside = options.file.parent if options.file else Path()
    if options.allow and isinstance(raw.get("data"), dict):
        raw["data"]["allow"] = [*(raw["data"].get("allow") or []), *options.allow]
    try:
        return resolve(raw, beside, elsewhere)
    except BadInput as error:
        found = [] if elsewhere else data_errors(raw.get("data"), beside)
        raise BadInput([*error.errors, *found]) from None


def _init(options: argparse.Namespace) -> int:
    from ..reporting.console import tell
    from .init import write_search

    write_search(options.data, options.out, tell, options.allow, options.images)
    return 0


def _check(options: argparse.Namespace) -> int:
    from .check import check_data

    good = check_data(
        options.data,
        options.allow,
        options.images,
        options.out,
        not options.no_pictures,
        options.json,
    )
    return 0 if good else 2


def _models(options: argparse.Namespace) -> int:
    from .models import print_models

    print_models(options.name)
    return 0


def _search(options: argparse.Namespace) -> int:
    sets = [f"search.trials={options.trials}"] if options.trials is not None else []
    sets += [f"cluster={options.cluster}"] if options.cluster else []
    config = _config(options, sets, elsewhere=options.detach)
    if options.dry_run:
        from .dry_run import print_plan

        print_plan(config)
        return 0
    if options.detach:
        from ..running.detached import send

        return send(config, print)

    from ..reporting import summary
    from ..reporting.console import tell
    from ..running.driver import run
    from ..study.disk import is_full

    try:
        result = run(config, summary.progress())
    except OSError as error:
        if not is_full(error):
            raise
        tell(f"{error}; free some space, and the same line continues", error=True)
        return 1
    summary.print_result(result)
    good = result.state in {SearchState.DONE, SearchState.OUT_OF_TIME, SearchState.STOPPED}
    return 0 if result.winner is not None and good else 1


def _train(options: argparse.Namespace) -> int:
    from ..reporting import summary
    from ..running.single import train

    result = train(_config(options, ["search.asha=off"]), summary.lines())
    summary.print_result(result)
    return 0 if result.winner is not None else 1


def _list(options: argparse.Namespace) -> int:
    if options.cluster:
        from ..running.detached import ask

        return ask(None, ["list"], options.storage, print)
    from ..reporting import status

    status.print_list(options.storage)
    return 0


def _status(options: argparse.Namespace) -> int:
    if options.cluster:
        from ..running.detached import ask, watch

        if options.watch:
            return watch(options.name, print)
        return ask(options.name, ["status", options.name], options.storage, print)
    from ..reporting import status

    show = status.watch_status if options.watch else status.print_status
    show(options.storage, options.name)
    return 0


def _stop(options: argparse.Namespace) -> int:
    if options.cluster:
        from ..running.detached import ask

        return ask(options.name, ["stop", options.name], options.storage, print)
    from trainer.config import BadInput

    from ..study.lock import is_held, request_stop
    from ..study.reading import read_search

    config = read_search(options.name, options.storage)
    if not is_held(config.folder):
        raise BadInput([f"{options.name} is not running"])
    request_stop(config.folder)
    print(
        f"{options.name}: its trials will stop within seconds; then its driver exports the best "
        "so far. The same search line continues it"
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    from ..reporting.report import read_result, write_report
    from ..study.reading import begun_study, read_search

    config = read_search(options.name, options.storage)
    study = begun_study(config)
    print(f"wrote {write_report(read_result(config, study), study)}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from ..exports.retention import clean
    from ..study.reading import begun_study, read_search

    config = read_search(options.name, options.storage)
    freed = clean(config, begun_study(config))
    print(f"freed {freed / 1e6:.0f} MB")
    return 0


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


def _evaluate(options: argparse.Namespace) -> int:
    from trainer.config import BadInput

    from ..exports.evaluate import evaluate_model
    from ..reporting import summary

    splits = options.split or ["val"]
    if options.detections and len(splits) > 1:
        raise BadInput(["--detections is one file: give one --split"])
    for split in splits:
        metrics = evaluate_model(
            options.model,
            options.data,
            split,
            options.storage,
            options.detections,
            options.allow,
        )
        if options.json:
            print(json.dumps({"split": split, **metrics}))
        else:
            summary.print_metrics(split, metrics)
    return 0


def _score(text: str) -> float:
    """argparse's type of a score."""
    with contextlib.suppress(ValueError):
        if 0 <= (score := float(text)) <= 1:
            return score
    raise argparse.ArgumentTypeError(f"{text} (legal: 0 to 1)")


def _predict(options: argparse.Namespace) -> int:
    from ..exports.predict import predict_pictures
    from ..reporting import summary
    from ..reporting.console import tell

    done = predict_pictures(
        options.model,
        options.pictures,
        options.storage,
        options.out,
        options.threshold,
        force=options.force,
        watch=summary.bar,
    )
    for line in done.unreadable:
        tell(line, error=True)
    pictures = f"{done.pictures} picture{'' if done.pictures == 1 else 's'}"
    print(f"wrote {pictures} with {done.boxes} boxes to {options.out}")
    if not done.boxes:
        print("no box scores high enough; a lower --threshold draws more")
    return 1 if done.unreadable else 0


def _ui(options: argparse.Namespace) -> int:
    from ..tracking.ui import serve

    return serve(options.tracking, options.port)


if __name__ == "__main__":
    sys.exit(main())
