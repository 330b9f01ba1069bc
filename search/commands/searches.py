"""Commands on searches that exist: `list`, `status`, `stop`, `report`, `clean` and `ui`."""

import argparse
from typing import TYPE_CHECKING

from .options import add_cluster, add_command, add_json, add_storage

if TYPE_CHECKING:
    from .options import Commands


def add_list(commands: "Commands") -> None:
    """Add `unfreeze list`."""
    command = add_command(commands, "list", _list, "the searches in a storage folder")
    add_json(command)
    add_cluster(command)
    add_storage(command)


def _list(options: argparse.Namespace) -> int:
    _refuse_mixed_json(options)
    if options.cluster:
        from ..running.detached import ask

        return ask(None, ["list"], options.storage, print)
    from ..reporting import status

    status.print_list(options.storage, options.json)
    return 0


def _refuse_mixed_json(options: argparse.Namespace, watch: bool = False) -> None:
    """Raise InputError if `--json` stands beside an option that prints more than one object."""
    from trainer.config import InputError

    if options.json and watch:
        raise InputError(["--json gives one object: leave --watch out"])
    if options.json and options.cluster:
        raise InputError(
            ["--json: --cluster prints the log of a job; run it on the head, without --cluster"]
        )


def add_status(commands: "Commands") -> None:
    """Add `unfreeze status`."""
    status = add_command(commands, "status", _status, "where a search stands")
    status.add_argument("name", metavar="NAME")
    status.add_argument("--watch", action="store_true", help="again and again, while it runs")
    add_json(status)
    add_cluster(status)
    add_storage(status)


def _status(options: argparse.Namespace) -> int:
    _refuse_mixed_json(options, watch=options.watch)
    if options.cluster:
        from ..running.detached import ask, watch

        if options.watch:
            return watch(options.name, print)
        return ask(options.name, ["status", options.name], options.storage, print)
    from ..reporting import status

    if options.watch:
        status.watch_status(options.storage, options.name)
    else:
        status.print_status(options.storage, options.name, options.json)
    return 0


def add_stop(commands: "Commands") -> None:
    """Add `unfreeze stop`."""
    stop = add_command(
        commands, "stop", _stop, "end a running search; the same command continues it"
    )
    stop.add_argument("name", metavar="NAME")
    add_cluster(stop)
    add_storage(stop)


def _stop(options: argparse.Namespace) -> int:
    if options.cluster:
        from ..running.detached import ask

        return ask(options.name, ["stop", options.name], options.storage, print)
    from trainer.config import InputError

    from ..study.lock import is_held, request_stop
    from ..study.reading import read_search_config

    config = read_search_config(options.name, options.storage)
    if not is_held(config.folder):
        raise InputError([f"{options.name} is not running"])
    request_stop(config.folder)
    print(
        f"{options.name}: its trials will stop within seconds; then its driver exports the best "
        "so far. The same search command continues it"
    )
    return 0


def add_report(commands: "Commands") -> None:
    """Add `unfreeze report`."""
    report = add_command(commands, "report", _report, "a search on one page, to read and to print")
    report.add_argument("name", metavar="NAME")
    add_storage(report)


def _report(options: argparse.Namespace) -> int:
    from ..reporting.report import read_result, write_report
    from ..study.reading import load_study, read_search_config

    config = read_search_config(options.name, options.storage)
    study = load_study(config)
    print(f"wrote {write_report(read_result(config, study), study)}")
    return 0


def add_clean(commands: "Commands") -> None:
    """Add `unfreeze clean`."""
    clean = add_command(commands, "clean", _clean, "delete checkpoints; record and winner stay")
    clean.add_argument("name", metavar="NAME")
    add_storage(clean)


def _clean(options: argparse.Namespace) -> int:
    from ..exports.retention import clean
    from ..study.reading import load_study, read_search_config

    config = read_search_config(options.name, options.storage)
    freed = clean(config, load_study(config))
    print(f"freed {freed / 1e6:.0f} MB")
    return 0


def add_ui(commands: "Commands") -> None:
    """Add `unfreeze ui`."""
    ui = add_command(commands, "ui", _ui, "MLflow's pages on this store")
    ui.add_argument("--port", type=int, default=5000, help="default: 5000")
    ui.add_argument(
        "--tracking", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db"
    )


def _ui(options: argparse.Namespace) -> int:
    from ..tracking.ui import serve

    return serve(options.tracking, options.port)
