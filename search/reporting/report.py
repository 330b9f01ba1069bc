"""A search on one HTML page that needs no network: what won, by how much, whether to believe it.

Everything on the page comes from the study and from the winner's export.
"""

import base64
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from trainer.config import InputError
from trainer.evaluation.review import CURVES, MISSES, REVIEW
from trainer.evaluation.sheets import THRESHOLD
from trainer.export.bundle import read_metrics
from trainer.model.checkpoint import write_atomically
from trainer.text.escaping import printable

from ..ranking.costs import costs
from ..ranking.ranking import rank, winner
from ..ranking.results import SearchResult
from ..ranking.row import Row, metrics_belong_to
from ..space.config import SearchConfig
from ..space.config_file import stored_config, write_yaml
from ..space.locations import WINNER, trial_folder
from ..space.space import read_space
from ..study.environment_changes import describe_changes
from ..study.study import Study
from .formatting import error_line
from .report_tables import facts, figures_table, trials_table
from .verdict import verdict

log = logging.getLogger(__name__)

PICTURE_WIDTH = 640
"""Pixels across that a picture has on the page, at most."""
SHEET_WIDTH = 1200
"""Pixels across that a sheet of many pictures has on the page, at most."""
Plan: TypeAlias = tuple[str, str, Callable[[], Any]]
"""A section's title, its note, and what draws its chart."""


@dataclass(frozen=True)
class Section:
    """A chart with its title and what to know about it."""

    title: str
    note: str
    chart: Markup | None
    reason: str
    """Why there is no chart."""


def read_result(config: SearchConfig, study: Study) -> SearchResult:
    """What a search came to so far, from its study and its folder."""
    space = read_space(config.space)
    rows = rank(config, study.records.values())
    best = winner(rows)
    state = str(study.state or "not begun")
    metrics = _metrics(config, best)
    return SearchResult(config, space, rows, best, metrics, costs(config, study), state)


def _metrics(config: SearchConfig, best: Row | None) -> dict[str, Any]:
    """The figures of the export, empty where it is an earlier winner's."""
    if best is None:
        return {}
    metrics = read_metrics(config.folder / WINNER)
    return metrics if metrics_belong_to(metrics, best) else {}


def write_report(result: SearchResult, study: Study) -> Path:
    """Write a search's page into its folder; the same study gives the same page."""
    file = result.config.report
    write_atomically(page(result, study).encode(), file)
    return file


def page(result: SearchResult, study: Study) -> str:
    """The page's HTML."""
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
        facts=facts(result, study),
        verdict=verdict(result),
        figures=figures_table(result.metrics),
        table=trials_table(result),
        sections=_sections(result, study),
        # without figures the pictures in the folder are an earlier winner's
        pictures=_pictures(config.folder / WINNER / "pictures") if result.metrics else [],
        pictured=result.metrics.get("pictured", "test"),
        sheets=_sheets(result),
        events=_events(result),
        yaml=write_yaml(stored_config(config)),
    )


def _events(result: SearchResult) -> list[tuple[int, str, str]]:
    """Number, state and text of each change of environment, and of each error of a trial."""
    return [
        (row.record.number, row.state, text)
        for row in result.rows
        for text in (
            *(f"continued {line}" for line in describe_changes(row.record)),
            error_line(row.record),
        )
        if text
    ]


# -- charts -------------------------------------------------------------------------------------


def _sections(result: SearchResult, study: Study) -> list[Section]:
    planned = [
        *_plan_search_charts(result),
        *_plan_optuna_charts(result, study),
        *_plan_outcome_charts(result, study),
    ]
    return [_section(number, *plan) for number, plan in enumerate(planned)]


def _plan_search_charts(result: SearchResult) -> list[Plan]:
    from . import charts  # imports plotly, which takes a second

    return [
        (
            "Learning curves",
            "Dotted trials were stopped by ASHA. Epochs up to 0 are the head phase, which is the "
            "same for all trials that share it. The winner's depth is written where it changes.",
            lambda: charts.learning_curves(result),
        ),
        (
            "Depth against AP",
            "How many stages of the backbone were trained. Hollow marks are trials that ran fewer "
            "epochs: they are not comparable.",
            lambda: charts.depth_against_ap(result),
        ),
        (
            "The best again with other seeds",
            "Each dot is a fresh run. The bar is the mean of a configuration's fresh runs, by "
            "which configurations are compared. The hollow mark is the run that the configuration "
            "was chosen by, which was partly lucky.",
            lambda: charts.seeds(result),
        ),
    ]


def _plan_optuna_charts(result: SearchResult, study: Study) -> list[Plan]:
    from . import optuna_charts  # imports plotly, which takes a second

    comparable, height = optuna_charts.comparable_study(result, study)
    trials = len(comparable.trials)
    note = (
        f"Optuna's plot, over the {trials} trials that ran at least {height} unfreeze epochs, by "
        "their best AP until then: the one budget at which most trials can be compared."
    )
    hint = f" From {trials} trials it is only a hint." if trials < optuna_charts.HINT else ""
    return [
        (
            "What mattered",
            f"{note}{optuna_charts.left_out(comparable)}{hint}",
            lambda: optuna_charts.importances(comparable),
        ),
        ("One dimension at a time", note, lambda: optuna_charts.slices(comparable)),
        ("All dimensions at once", note, lambda: optuna_charts.parallel_coordinates(comparable)),
    ]


def _plan_outcome_charts(result: SearchResult, study: Study) -> list[Plan]:
    from . import charts, optuna_charts  # import plotly, which takes a second

    return [
        (
            "Val against test, class by class",
            "Measured from the winner's export.",
            lambda: charts.classes(result.metrics),
        ),
        ("Where the epochs went", "", lambda: charts.epochs(result.costs)),
        (
            "When trials ran",
            "Optuna's plot. Optuna records a diverged trial as pruned.",
            lambda: optuna_charts.timeline(study),
        ),
    ]


def _section(number: int, title: str, note: str, draw: Callable[[], Any]) -> Section:
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
    files = sorted(folder.glob("*.jpg"))
    return [(printable(file.stem), _data_url(file, PICTURE_WIDTH)) for file in files]


def _sheets(result: SearchResult) -> list[tuple[str, str]]:
    """Title and data URL of the winning run's curves and of its misses, if they were drawn."""
    if result.winner is None:
        return []
    review = trial_folder(result.config.folder, result.winner.best_run.number) / REVIEW
    titles = {
        CURVES: "Precision against recall on val, as measured during training",
        MISSES: f"The val pictures with the most missed and wrong boxes at a score of {THRESHOLD}, "
        "truth at the left",
    }
    return [
        (title, _data_url(review / name, SHEET_WIDTH))
        for name, title in titles.items()
        if (review / name).is_file()
    ]


def _data_url(file: Path, width: int) -> str:
    """A picture as a JPEG in a URL, at most this many pixels wide."""
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise InputError([f"{file} is damaged: delete it, and the report leaves it out"]) from error
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
