"""Optuna's charts in a report, over the trials that can be compared."""

from math import log10

import optuna
from optuna import visualization
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial

from ..ranking.asha import rungs
from ..ranking.results import SearchResult
from ..study.study import Study
from .chart_style import LIGHT_BLUE, OTHER_COLOUR, WINNER_COLOUR, Chart, lay_out
from .formatting import column_headings

STATE_COLOURS = {
    "COMPLETE": WINNER_COLOUR,
    "PRUNED": LIGHT_BLUE,
    "FAIL": "#dc2626",
    "RUNNING": "#16a34a",
}
FEW = 8
"""Trials below which importances are not drawn."""
HINT = 30
"""Trials below which importances are called a hint."""


def comparable_study(result: SearchResult, study: Study) -> tuple[optuna.Study, int]:
    """A study of all trials that reached the first rung, and the unfreeze epochs of that rung.

    Each trial's value is its best AP until that rung: the one budget at which most trials can be
    compared. Without ASHA the budget is all unfreeze epochs.
    """
    asha, budget = result.config.search.asha, result.config.train.unfreeze.epochs
    height = min([budget] if asha == "off" else [*rungs(asha, budget), budget])
    headings = column_headings(result.space)
    comparable = optuna.create_study(direction="maximize")
    for trial in study.optuna.get_trials(deepcopy=False):
        record = study.records.get(trial.number)  # None: it began after the records were read
        value = record.best_until(height) if record else None
        if record is not None and value is not None and record.confirms is None:
            comparable.add_trial(_with_headings(trial, value, headings))
    return comparable, height


def _with_headings(trial: FrozenTrial, value: float, headings: dict[str, str]) -> FrozenTrial:
    """A trial whose parameters have the headings of the table instead of dotted names."""

    def heading(name: str) -> str:
        field, _, branch = name.partition(" ")
        return " ".join(filter(None, [headings.get(field, field), branch]))

    return optuna.create_trial(
        params={heading(name): param for name, param in trial.params.items()},
        distributions={heading(name): range_ for name, range_ in trial.distributions.items()},
        value=value,
    )


def left_out(study: optuna.Study) -> str:
    """A sentence that names the dimensions which fANOVA leaves out: not all trials have them."""
    names = {name for trial in study.trials for name in trial.params}
    some = sorted(n for n in names if any(n not in trial.params for trial in study.trials))
    return f" Left out, since not all trials have it: {', '.join(some)}." if some else ""


def importances(study: optuna.Study) -> Chart:
    """How much of the differences each dimension explains (fANOVA)."""
    trials = len(study.trials)
    if trials < FEW:
        return f"Importances need {FEW} comparable trials to mean anything; there are {trials}."
    if len({trial.value for trial in study.trials}) == 1:
        return "All trials came to the same AP: no dimension mattered."
    figure = visualization.plot_param_importances(
        study, evaluator=FanovaImportanceEvaluator(seed=0)
    )
    figure.update_traces(marker_color=WINNER_COLOUR)
    return lay_out(figure, "fraction of the differences explained", "")


def slices(study: optuna.Study) -> Chart:
    """AP over each dimension."""
    if len(study.trials) < 2:
        return f"Two comparable trials are needed; there are {len(study.trials)}."
    figure = visualization.plot_slice(study, target_name="val AP")
    for trace in figure.data:
        # Optuna colours by trial number, the first ones nearly white
        trace.marker = {"color": WINNER_COLOUR, "opacity": 0.6, "size": 7}
        axis = figure.layout["xaxis" + (trace.xaxis or "x")[1:]]
        if axis.type == "log":  # powers of ten, on a short axis 2 and 5 too; no micro and milli
            decades = log10(max(trace.x) / min(trace.x))
            dtick = "D2" if decades < 2 else max(1, round(decades / 2))
            axis.update(dtick=dtick, exponentformat="power", tickangle=0)
        elif axis.type == "category":
            trace.x = [str(value).strip("'") for value in trace.x]
            axis.categoryarray = [str(value).strip("'") for value in axis.categoryarray or ()]
        else:
            axis.update(nticks=5)
    return lay_out(figure, None, None)


def parallel_coordinates(study: optuna.Study) -> Chart:
    """Each trial as a line through its values."""
    if len(study.trials) < 2:
        return f"Two comparable trials are needed; there are {len(study.trials)}."
    figure = visualization.plot_parallel_coordinate(study, target_name="val AP")
    if not figure.data:
        return "No two comparable trials have the same dimensions."
    figure = lay_out(figure, None, None)
    return figure.update_layout(margin={"t": 70, "b": 40, "l": 60, "r": 40})


def timeline(study: Study) -> Chart:
    """When each trial ran."""
    if not any(t.datetime_start for t in study.optuna.get_trials(deepcopy=False)):
        return "No trial has begun yet."
    figure = visualization.plot_timeline(study.optuna)
    for trace in figure.data:
        # Optuna would show all attributes of a trial, and an error text may hold a secret
        trace.update(text=None, hovertemplate="trial %{y}<extra></extra>")
        trace.marker.color = STATE_COLOURS.get(trace.name, OTHER_COLOUR)
    if len(study.records) <= 20:
        figure.update_yaxes(dtick=1)
    return lay_out(figure, "", "trial", legend=True)
