"""The tables of a report: facts of the search, COCO figures, and trials."""

from datetime import datetime
from typing import Any

from trainer.evaluation.coco_metrics import FIGURES
from trainer.model.detectors import is_coco

from ..ranking.results import SearchResult
from ..ranking.row import Row, state_in
from ..space.config import SearchConfig
from ..study.study import Study
from .formatting import column_headings, show_figure, show_mean, show_value, trial_name


def facts(result: SearchResult, study: Study) -> list[tuple[str, str]]:
    """When the search ran, on what model and data, with what resources: terms and values."""
    costs = result.costs
    gpu_hours, cpu_hours = f"{costs.gpu_hours:.2f} GPU-hours", f"{costs.cpu_hours:.2f} CPU-hours"
    return [
        ("when", _time_span(study)),
        ("model", _model(result.config, study)),
        ("data", f"digest {study.data_digest[:12]}"),
        ("a trial had", _resources(study)),
        ("spent", gpu_hours if costs.gpu_hours else cpu_hours),
    ]


def _time_span(study: Study) -> str:
    """`2026-01-31 10:00 UTC to 2026-01-31 12:00 UTC`."""
    records = study.records.values()
    starts = [record.started for record in records if record.started]
    ends = [record.ended for record in records if record.ended]
    times = ([min(starts)] if starts else []) + ([max(ends)] if ends else [])
    shown = [datetime.fromtimestamp(t).astimezone().strftime("%Y-%m-%d %H:%M %Z") for t in times]
    return " to ".join(shown) or "not begun"


def _model(config: SearchConfig, study: Study) -> str:
    model = config.model
    name = model.detector if is_coco(model) else f"{model.detector} on {model.backbone}"
    return f"{name}, weights {model.weights}, {model.image_size} px, {study.precision}"


def _resources(study: Study) -> str:
    """CPUs and GPUs that a trial has, `-` in a study that does not record them."""
    if not study.allocations:
        return "-"
    _, resources = study.allocations[-1]
    cpus, gpus = resources.get("cpus_per_trial", 1), resources.get("gpus_per_trial", 0)
    return f"{cpus:g} CPU, {gpus:g} GPU"


def figures_table(metrics: dict[str, Any]) -> dict[str, Any]:
    """The 12 COCO figures of each split: `heads`, and `rows` of cells.

    A model that may give more than 100 boxes a picture has a second row, for all of them.
    """
    rows = []
    for split in filter(metrics.get, ("val", "test")):
        measured = metrics[split]
        rows.append([split, *(show_figure(measured["figures"].get(name)) for name in FIGURES)])
        if more := measured.get("at_detections"):
            heading = f"{split}, {measured['detections']} boxes a picture"
            rows.append([heading, *(show_figure(more.get(name)) for name in FIGURES)])
    return {"heads": [_figure_heading(name) for name in FIGURES], "rows": rows}


def _figure_heading(name: str) -> str:
    """`map_50` as COCO writes it: `AP50`."""
    kind, _, rest = name.partition("_")
    short = {"map": "AP", "mar": "AR"}[kind]
    return f"{short}{rest}" if rest.isdigit() and kind == "map" else f"{short} {rest}".strip()


def trials_table(result: SearchResult) -> dict[str, Any]:
    """All trials: `heads`, and `rows` of cells and whether the row is the winner's.

    A cell is what is shown, and the key that the page sorts it by.
    """
    fields = column_headings(result.space)
    confirmed = any(row.fresh for row in result.rows)
    rows = [(_cells(row, result, fields, confirmed), row is result.winner) for row in result.rows]
    names = ["", "trial", "AP", "AP50", *(["fresh mean"] if confirmed else []), *fields.values()]
    return {"heads": [*names, "epochs", "min", "state"], "rows": rows}


def _cells(
    row: Row, result: SearchResult, fields: dict[str, str], confirmed: bool
) -> list[tuple[str, Any]]:
    record, best = row.record, row.record.best
    cells: list[tuple[str, Any]] = [
        (str(row.rank) if record.confirms is None else "", row.rank),
        (trial_name(row), record.number),
        (show_figure(best.map if best else None), best.map if best else -1),
        (show_figure(best.map_50 if best else None), best.map_50 if best else -1),
    ]
    cells += [(show_mean(row), -1 if row.mean is None else row.mean)] if confirmed else []
    cells += [(show_value(row.values.get(name)), row.values.get(name)) for name in fields]
    seconds = sum(report.seconds for report in record.reports.values() if not report.forked)
    state = state_in(result.state, row)
    return [
        *cells,
        (str(record.unfreeze_epoch), record.unfreeze_epoch),
        (f"{seconds / 60:.1f}", seconds),
        (state, state),
    ]
