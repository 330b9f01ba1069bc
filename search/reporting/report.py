"""A search on one HTML page that needs no network: what won, by how much, and whether to believe
it. All of it is read off the study and the winner's export."""

import base64
import io
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from trainer.config import BadInput
from trainer.evaluation.coco_metrics import FIGURES
from trainer.evaluation.review import CURVES, MISSES, REVIEW, THRESHOLD
from trainer.export.bundle import read_metrics
from trainer.model.checkpoint import write_whole
from trainer.model.detectors import is_coco
from trainer.text.escaping import printable

from ..ranking.costs import Costs, costs, saved
from ..ranking.gain import describe_gain
from ..ranking.results import (
    Row,
    SearchResult,
    columns,
    is_of,
    rank,
    show,
    show_mean,
    state_in,
    trial_name,
    winner,
)
from ..space.config import SearchConfig, stored, trial_folder, write_yaml
from ..space.space import read_space
from ..study.environment_changes import stretches
from ..study.study import Study, TrialRecord

log = logging.getLogger(__name__)

SIDE, WIDE = 640, 1200
"""Pixels across that pictures and sheets of pictures have on the page, at most."""


@dataclass(frozen=True)
class Section:
    """A chart with what to know about it."""

    title: str
    note: str
    chart: Markup | None
    reason: str
    """Why there is none."""


def read_result(config: SearchConfig, study: Study) -> SearchResult:
    """What a search came to so far, from what it keeps."""
    space = read_space(config.space)
    rows = rank(config, study.records.values())
    best = winner(rows)
    state = str(study.get("state") or "not begun")
    metrics = _metrics(config, best)
    return SearchResult(config, space, rows, best, metrics, costs(config, study), state)


def _metrics(config: SearchConfig, best: Row | None) -> dict[str, Any]:
    """The figures of the export, where it is of this winner and not of an earlier one."""
    if best is None:
        return {}
    metrics = read_metrics(config.folder / "winner")
    return metrics if is_of(metrics, best) else {}


def write_report(result: SearchResult, study: Study) -> Path:
    """Write a search's page into its folder; the same study gives the same page."""
    file = result.config.report
    write_whole(page(result, study).encode(), file)
    return file


def page(result: SearchResult, study: Study) -> str:
    """The page's text."""
    import plotly.offline  # takes a second to import, and every search imports this file

    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    config = result.config
    return template.render(
        plotly=Markup(plotly.offline.get_plotlyjs()),
        name=config.name,
        state=result.state,
        about=_about(result, study),
        verdict=verdict(result),
        figures=_figures(result.metrics),
        table=_table(result),
        sections=_sections(result, study),
        # without figures, those that are there are an earlier winner's
        pictures=_pictures(config.folder / "winner" / "pictures") if result.metrics else [],
        pictured=result.metrics.get("pictured", "test"),
        sheets=_sheets(result),
        ends=[
            (r.record.number, r.state, text)
            for r in result.rows
            for text in (*(f"went on {line}" for line in stretches(r.record)), _last_line(r.record))
            if text
        ],
        yaml=write_yaml(stored(config)),
    )


# -- in words -----------------------------------------------------------------------------------


def verdict(result: SearchResult) -> list[str]:
    """What won, by how much over the configuration as written, and how far to trust it."""
    row = result.winner
    if row is None or row.map is None:
        return ["No trial has come to a result yet."]
    lines = []
    heads = columns(result.space).items()
    settings = ", ".join(f"{h} {show(row.values[n])}" for n, h in heads if n in row.values)
    ended = sum(r.record.end is not None for r in result.rows if r.record.confirms is None)
    if result.state != "done":
        lines = [f"{ended} of {result.config.search.trials} trials have ended: {result.state}."]
    did = "won" if result.metrics else "leads so far"
    lines.append(f"Trial {trial_name(row)} {did}" + (f": {settings}." if settings else "."))
    lines += _measured(result)
    lines.append(describe_gain(result.config, result.rows, row))
    lines.append(_saved(result.costs))
    return list(filter(None, lines))


def _measured(result: SearchResult) -> list[str]:
    val, test = (result.metrics.get(s, {}).get("figures", {}).get("map") for s in ("val", "test"))
    if val is None:
        assert result.winner is not None
        return [f"Its best val AP during training is {result.winner.map:.3f}."]
    lines = [f"Measured from its export, its val AP is {val:.3f}."]
    if test is not None:
        looks = result.metrics["test"].get("looks", 1)
        apart = f"{abs(test - val):.3f} {'below' if test < val else 'above'} val"
        times = "once" if looks == 1 else f"{looks} times: it flatters by now"
        lines.append(
            f"On test, which had no say in the choice, it is {test:.3f}: {apart}; test was "
            f"looked at {times}."
        )
    return lines


def _saved(spent: Costs) -> str:
    if not spent.run + spent.forked + spent.stopped:
        return ""
    text = (
        f"Its {spent.trials} trial{'s' * (spent.trials > 1)} trained {spent.run} epochs; "
        f"{spent.forked} were forked, taken over from another trial"
    )
    if spent.stopped:
        text += f", and {spent.stopped} not run, since ASHA had stopped their trial"
    text += "."
    if spent.read:
        text += f" For {spent.read:,} pictures the frozen stages were read from files, not run."
    line = saved(spent)
    return text + (f" {line[0].upper()}{line[1:]}." if line else "")


def _about(result: SearchResult, study: Study) -> list[tuple[str, str]]:
    model = result.config.model
    records = study.records.values()
    starts = [r.started for r in records if r.started]
    ends = [r.ended for r in records if r.ended]
    times = [
        datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        for at in ([min(starts)] if starts else []) + ([max(ends)] if ends else [])
    ]
    shares = study.get("shares", [])
    share = shares[-1][1] if shares else {}
    return [
        ("when", " to ".join(times) or "not begun"),
        (
            "model",
            (model.detector if is_coco(model) else f"{model.detector} on {model.backbone}")
            + f", weights {model.weights}, "
            f"{model.image_size} px, {study.get('precision')}",
        ),
        ("data", f"digest {str(study.get('data'))[:12]}"),
        (
            "a trial had",
            f"{share.get('cpus_per_trial', '?'):g} CPU, {share.get('gpus_per_trial', 0):g} GPU"
            if share
            else "-",
        ),
        (
            "spent",
            f"{result.costs.gpu_hours:.2f} GPU-hours"
            if result.costs.gpu_hours
            else f"{result.costs.cpu_hours:.2f} CPU-hours",
        ),
    ]


def _last_line(record: TrialRecord) -> str:
    return (record.text.strip().splitlines() or [""])[-1]


# -- tables -------------------------------------------------------------------------------------


def _figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The 12 COCO figures by split, and those of all detections where these are more than 100."""
    rows = []
    for split in filter(metrics.get, ("val", "test")):
        own = metrics[split]
        rows.append([split, *(_figure(own["figures"].get(name)) for name in FIGURES)])
        if more := own.get("at_detections"):
            heading = f"{split}, {own['detections']} boxes a picture"
            rows.append([heading, *(_figure(more.get(name)) for name in FIGURES)])
    return {"heads": [_heading(name) for name in FIGURES], "rows": rows}


def _heading(name: str) -> str:
    """`map_50` as COCO writes it: `AP50`."""
    kind, _, rest = name.partition("_")
    short = {"map": "AP", "mar": "AR"}[kind]
    return f"{short}{rest}" if rest.isdigit() and kind == "map" else f"{short} {rest}".strip()


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(result: SearchResult) -> dict[str, Any]:
    """Headings, and rows of cells: what is shown, and what it is sorted by."""
    heads = columns(result.space)
    confirmed = any(row.fresh for row in result.rows)
    rows = []
    for row in result.rows:
        record, best = row.record, row.record.best
        cells: list[tuple[str, Any]] = [
            (str(row.rank) if record.confirms is None else "", row.rank),
            (trial_name(row), record.number),
            (_figure(best.map if best else None), best.map if best else -1),
            (_figure(best.map_50 if best else None), best.map_50 if best else -1),
        ]
        cells += [(show_mean(row), row.mean or -1)] if confirmed else []
        cells += [(show(row.values.get(name)), row.values.get(name)) for name in heads]
        seconds = sum(r.seconds for r in record.reports.values() if not r.forked)
        cells += [
            (str(record.unfreeze_epoch), record.unfreeze_epoch),
            (f"{seconds / 60:.1f}", seconds),
            (state := state_in(result.state, row), state),
        ]
        rows.append((cells, row is result.winner))
    names = ["", "trial", "AP", "AP50", *(["fresh mean"] if confirmed else []), *heads.values()]
    return {"heads": [*names, "epochs", "min", "state"], "rows": rows}


# -- charts -------------------------------------------------------------------------------------


def _sections(result: SearchResult, study: Study) -> list[Section]:
    from . import charts  # as plotly

    compared, height = charts.compared(result, study)
    trials = len(compared.trials)
    equal = (
        f"Optuna's own plot, over the {trials} trials that ran at least {height} unfreeze epochs, "
        f"by their best AP until then: the one budget at which most can be compared."
    )
    hint = f" From {trials} trials it is a hint, no more." if trials < charts.HINT else ""
    planned = (
        (
            "Learning curves",
            "Dotted trials were stopped by ASHA. Epochs up to 0 are the head phase, "
            "the same for all that share it; the winner's depth is written where it changes.",
            lambda: charts.learning_curves(result),
        ),
        (
            "Depth against AP",
            "How many stages of the backbone were trained. Hollow ones ran fewer "
            "epochs: they are not comparable.",
            lambda: charts.depth_against_ap(result),
        ),
        (
            "The same again with other seeds",
            "Each dot is a fresh run, the bar their mean, by which they are compared. Hollow is "
            "the run that the configuration was chosen by, of which luck is a part.",
            lambda: charts.seeds(result),
        ),
        (
            "What mattered",
            f"{equal}{charts.left_out(compared)}{hint}",
            lambda: charts.importances(compared),
        ),
        ("One dimension at a time", equal, lambda: charts.slices(compared)),
        ("All dimensions at once", equal, lambda: charts.parallel_coordinates(compared)),
        (
            "Val against test, class by class",
            "Measured from the winner's export.",
            lambda: charts.classes(result.metrics),
        ),
        ("Where the epochs went", "", lambda: charts.epochs(result.costs)),
        (
            "When trials ran",
            "Optuna's own plot: to Optuna a diverged trial is a pruned one.",
            lambda: charts.timeline(study),
        ),
    )
    return [_section(i, *one) for i, one in enumerate(planned)]


def _section(number: int, title: str, note: str, draw: Any) -> Section:
    try:
        chart = draw()
    except Exception as error:  # one chart that fails must not take the page with it
        log.debug("%s could not be drawn", title, exc_info=True)
        chart = f"It could not be drawn ({type(error).__name__}: {error})."
    if isinstance(chart, str):
        return Section(title, note, None, chart)
    html = chart.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"chart{number}",
        config={"displayModeBar": False, "responsive": True},
    )
    return Section(title, note, Markup(html), "")


# -- pictures -----------------------------------------------------------------------------------


def _pictures(folder: Path) -> list[tuple[str, str]]:
    """Name and data URL of each of the winner's pictures."""
    return [(printable(file.stem), _inlined(file, SIDE)) for file in sorted(folder.glob("*.jpg"))]


def _sheets(result: SearchResult) -> list[tuple[str, str]]:
    """The winning run's precision against recall, and its misses, where it finished."""
    if result.winner is None:
        return []
    place = trial_folder(result.config.folder, result.winner.best_run.number) / REVIEW
    titles = {
        CURVES: "Precision against recall on val, as measured during training",
        MISSES: f"The val pictures with the most missed and wrong boxes at a score of {THRESHOLD}, "
        "truth at the left",
    }
    return [(t, _inlined(place / n, WIDE)) for n, t in titles.items() if (place / n).is_file()]


def _inlined(file: Path, most: int) -> str:
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG
        raise BadInput([f"{file} is damaged: delete it, and the page goes without"]) from error
    if picture.width > most:
        picture = picture.resize((most, round(picture.height * most / picture.width)))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
