"""The figures of a report. Each returns a plotly figure, or the reason why there is none."""

from math import log10
from typing import Any, TypeAlias

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial

from trainer.text.escaping import html

from ..ranking.asha import rungs
from ..ranking.costs import Costs
from ..ranking.results import Row, SearchResult, columns, show
from ..space.space import Space
from ..study.study import End, Study, TrialRecord

Chart: TypeAlias = Any
"""A plotly figure (the package has no types), or a sentence that says why there is none."""
WINNER, WRITTEN, OTHER, SOFT = "#1d4ed8", "#ea580c", "#94a3b8", "#e2e8f0"
STATES = {"COMPLETE": WINNER, "PRUNED": "#93c5fd", "FAIL": "#dc2626", "RUNNING": "#16a34a"}
FEW, HINT = 8, 30
"""Trials below which importances are not drawn, and below which they are called a hint."""


def learning_curves(result: SearchResult) -> Chart:
    """Val AP after each epoch, all trials; unfreeze epochs from 1, the head phase up to 0."""
    figure = go.Figure()
    best = result.winner.best_run.number if result.winner else None
    drawn = [row for row in result.rows if row.record.reports]
    if not drawn:
        return "No trial has reported an epoch yet."
    for row in sorted(drawn, key=lambda row: _importance_of(row, best)):
        record = row.record
        reports = sorted(record.reports.values(), key=lambda r: r.epoch)
        head = sum(r.unfreeze_epoch == 0 for r in reports)
        colour, name = _style(row, best)
        figure.add_scatter(
            x=[r.epoch - head for r in reports],
            y=[r.map for r in reports],
            customdata=[[r.depth, "taken over" if r.forked else "trained"] for r in reports],
            mode="lines+markers",
            name=name or "others",
            legendgroup=name or "others",
            showlegend=bool(name) or not any(t.name == "others" for t in figure.data),
            line={
                "color": colour,
                "width": 3 if name else 1.5,
                "dash": "dot" if record.end is End.PRUNED else "solid",
            },
            marker={"size": 6 if name else 4},
            hovertemplate=f"#{record.number} {_settings(row, result.space)}<br>epoch %{{x}}, depth "
            "%{customdata[0]}, %{customdata[1]}<br>AP %{y:.3f}<extra></extra>",
        )
        if record.number == best:
            _mark_depths(figure, record, head)
    heads = max(sum(r.unfreeze_epoch == 0 for r in row.record.reports.values()) for row in drawn)
    if heads:
        figure.add_vrect(
            x0=0.5 - heads, x1=0.5, fillcolor=SOFT, opacity=0.5, line_width=0, layer="below"
        )
        figure.add_annotation(
            x=0.5 - heads / 2, y=0, yref="paper", text="head phase", showarrow=False, yshift=10
        )
    asha, epochs = result.config.search.asha, result.config.train.unfreeze.epochs
    for height in [] if asha == "off" else rungs(asha, epochs):
        figure.add_vline(
            x=height, line={"dash": "dash", "width": 1, "color": OTHER}, annotation_text="rung"
        )
    return _laid_out(figure, "epoch after the head phase", "val AP", legend=True)


def _importance_of(row: Row, best: int | None) -> int:
    """What matters is drawn last, on top."""
    if row.record.number == best:
        return 2
    return int(row.record.origin == "as written")


def _style(row: Row, best: int | None) -> tuple[str, str]:
    """Colour, and name in the legend where it has its own."""
    if row.record.number == best:
        confirms = row.record.confirms
        return (
            WINNER,
            f"#{best} winner" if confirms is None else f"#{best}, run of #{confirms}: winner",
        )
    if row.record.origin == "as written":
        return WRITTEN, f"#{row.record.number} as written"
    return OTHER, ""


def _mark_depths(figure: go.Figure, record: TrialRecord, head: int) -> None:
    """Write the depth where a phase of the winner begins."""
    depth = 0
    for report in sorted(record.reports.values(), key=lambda r: r.epoch):
        if report.depth != depth:
            depth = report.depth
            figure.add_annotation(
                x=report.epoch - head,
                y=report.map,
                text=f"depth {depth}",
                font={"color": WINNER},
                arrowcolor=WINNER,
                ax=0,
                ay=-32,
            )


def depth_against_ap(result: SearchResult) -> Chart:
    """Best val AP of each trial over the depth it reached."""
    rows = [row for row in result.rows if row.record.confirms is None and row.record.unfreeze_epoch]
    depths = {row.record.number: max(r.depth for r in row.record.reports.values()) for row in rows}
    if len(set(depths.values())) < 2:
        return "No two trials that came to an unfreeze epoch differ in depth."
    best = result.winner.record.number if result.winner else None
    figure = go.Figure()
    whole = [row for row in rows if row.record.end is End.FINISHED]
    tops = {
        d: max(r.map or 0 for r in whole if depths[r.record.number] == d)
        for d in sorted({depths[r.record.number] for r in whole})
    }
    if len(tops) > 1:
        figure.add_scatter(
            x=list(tops),
            y=list(tops.values()),
            mode="lines",
            line={"color": SOFT, "width": 3},
            name="best that ran all epochs",
            hoverinfo="skip",
        )
    for name, group, symbol in (
        ("ran all epochs", whole, "circle"),
        ("ended earlier", [row for row in rows if row not in whole], "circle-open"),
    ):
        figure.add_scatter(
            x=[depths[row.record.number] for row in group],
            y=[row.map for row in group],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 11,
                "color": [_style(row, best)[0] for row in group],
                "line": {"width": 2, "color": [_style(row, best)[0] for row in group]},
            },
            text=[f"#{row.record.number} {_settings(row, result.space)}" for row in group],
            hovertemplate="%{text}<br>AP %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(dtick=1)
    return _laid_out(figure, "stages trained, from the head end", "best val AP", legend=True)


def seeds(result: SearchResult) -> Chart:
    """The fresh runs of each confirmed configuration, and hollow the one it was chosen by."""
    rows = [row for row in result.rows if row.fresh]
    if not rows:
        return (
            "Every configuration ran once, so how much of a difference is luck is not known. "
            "search.confirm trains the best again with other seeds."
        )
    figure = go.Figure()
    for row in rows:
        name = f"#{row.record.number}"
        runs = (row.record, *row.fresh)
        figure.add_scatter(
            x=[name] * len(runs),
            y=[row.map, *row.maps],
            mode="markers",
            marker={
                "size": 11,
                "color": OTHER,
                "symbol": ["circle-open", *["circle"] * len(row.fresh)],
            },
            text=[f"run of trial #{run.number}" for run in runs],
            hovertemplate="%{text}<br>AP %{y:.3f}<extra></extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=[name],
            y=[row.mean],
            mode="markers",
            showlegend=False,
            marker={"symbol": "line-ew", "size": 36, "line": {"width": 3, "color": WINNER}},
            hovertemplate="mean %{y:.3f}<extra></extra>",
        )
    written = next((r for r in result.rows if r.record.origin == "as written" and r.map), None)
    if written and not written.fresh:
        figure.add_hline(
            y=written.map, line={"dash": "dash", "color": WRITTEN}, annotation_text="as written"
        )
    return _laid_out(figure, "configuration of trial", "best val AP")


def epochs(costs: Costs) -> Chart:
    """Where the epochs went."""
    whole = costs.run + costs.forked + costs.stopped
    if not whole:
        return "No epoch was trained yet."
    figure = go.Figure()
    for name, count, colour in (
        ("trained", costs.run, WINNER),
        ("taken over from another trial", costs.forked, "#93c5fd"),
        ("not run, since ASHA stopped the trial", costs.stopped, SOFT),
    ):
        figure.add_bar(
            y=[""],
            x=[count],
            name=name,
            orientation="h",
            marker={"color": colour},
            text=[count],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{name}: %{{x}} of {whole}<extra></extra>",
        )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    return _laid_out(figure, "epochs", "", legend=True, height=190)


def classes(metrics: dict[str, Any]) -> Chart:
    """AP a class of the winner, on val and on test."""
    splits = [split for split in ("val", "test") if split in metrics]
    if not splits:
        return "The winner is measured at the end of the search."
    figure = go.Figure()
    for split, colour in zip(("val", "test"), (WINNER, "#93c5fd"), strict=True):
        if split in splits:
            values = metrics[split]["per_class"]
            figure.add_bar(
                y=[html(name) for name in values],
                x=list(values.values()),
                orientation="h",
                name=split,
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.3f}<extra>" + split + "</extra>",
            )
    figure.update_layout(barmode="group", legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    names = len(metrics[splits[0]]["per_class"])
    return _laid_out(figure, "AP", "", legend=True, height=130 + 26 * names)


# -- Optuna's own -------------------------------------------------------------------------------


def compared(result: SearchResult, study: Study) -> tuple[optuna.Study, int]:
    """A study of all trials that reached the first rung, by their best AP until then, and that
    rung's unfreeze epochs: the one budget at which most trials can be compared.

    Without ASHA it is the whole of it.
    """
    asha, budget = result.config.search.asha, result.config.train.unfreeze.epochs
    height = min([budget] if asha == "off" else [*rungs(asha, budget), budget])
    heads = columns(result.space)
    found = optuna.create_study(direction="maximize")
    for trial in study.optuna.get_trials(deepcopy=False):
        record = study.records.get(trial.number)  # None: it has begun since
        value = record.best_until(height) if record else None
        if record is not None and value is not None and record.confirms is None:
            found.add_trial(_shortened(trial, value, heads))
    return found, height


def _shortened(trial: FrozenTrial, value: float, heads: dict[str, str]) -> FrozenTrial:
    """A trial under the headings of the table instead of dotted names."""

    def short(name: str) -> str:
        field, _, branch = name.partition(" ")
        return " ".join(filter(None, [heads.get(field, field), branch]))

    return optuna.create_trial(
        params={short(name): own for name, own in trial.params.items()},
        distributions={short(name): own for name, own in trial.distributions.items()},
        value=value,
    )


def left_out(study: optuna.Study) -> str:
    """Which dimensions not all trials have, in a sentence; fANOVA cannot tell of these."""
    all_of_them = {name for trial in study.trials for name in trial.params}
    some = sorted(n for n in all_of_them if any(n not in trial.params for trial in study.trials))
    return f" Left out, since not all of them have it: {', '.join(some)}." if some else ""


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
    figure.update_traces(marker_color=WINNER)
    return _laid_out(figure, "share of the differences explained", "")


def slices(study: optuna.Study) -> Chart:
    """AP over each dimension."""
    if len(study.trials) < 2:
        return f"Two comparable trials are needed; there are {len(study.trials)}."
    figure = visualization.plot_slice(study, target_name="val AP")
    for trace in figure.data:
        # Optuna's colour is the trial's number, the first ones nearly white
        trace.marker = {"color": WINNER, "opacity": 0.6, "size": 7}
        axis = figure.layout["xaxis" + (trace.xaxis or "x")[1:]]
        if axis.type == "log":  # powers of ten, and on a short axis 2 and 5; no micro and milli
            decades = log10(max(trace.x) / min(trace.x))
            dtick = "D2" if decades < 2 else max(1, round(decades / 2))
            axis.update(dtick=dtick, exponentformat="power", tickangle=0)
        elif axis.type == "category":
            trace.x = [str(value).strip("'") for value in trace.x]
            axis.categoryarray = [str(value).strip("'") for value in axis.categoryarray or ()]
        else:
            axis.update(nticks=5)
    return _laid_out(figure, None, None)


def parallel_coordinates(study: optuna.Study) -> Chart:
    """Each trial a line through its values."""
    if len(study.trials) < 2:
        return f"Two comparable trials are needed; there are {len(study.trials)}."
    figure = visualization.plot_parallel_coordinate(study, target_name="val AP")
    if not figure.data:
        return "No two comparable trials have the same dimensions."
    figure = _laid_out(figure, None, None)
    return figure.update_layout(margin={"t": 70, "b": 40, "l": 60, "r": 40})


def timeline(study: Study) -> Chart:
    """When each trial ran."""
    if not any(t.datetime_start for t in study.optuna.get_trials(deepcopy=False)):
        return "No trial has begun yet."
    figure = visualization.plot_timeline(study.optuna)
    for trace in figure.data:
        # Optuna would show all that the study knows of a trial, and an error may tell a secret
        trace.update(text=None, hovertemplate="trial %{y}<extra></extra>")
        trace.marker.color = STATES.get(trace.name, OTHER)
    if len(study.records) <= 20:
        figure.update_yaxes(dtick=1)
    return _laid_out(figure, "", "trial", legend=True)


# -- what all share -----------------------------------------------------------------------------


def _settings(row: Row, space: Space) -> str:
    pairs = columns(space).items()
    text = ", ".join(f"{head} {show(row.values[n])}" for n, head in pairs if n in row.values)
    return html(text).replace("%{", "%&#123;")  # with which plotly's own values begin


def _laid_out(
    figure: go.Figure, x: str | None, y: str | None, *, legend: bool = False, height: int = 380
) -> go.Figure:
    """One look for all; None leaves Optuna's own titles of axes."""
    figure.update_layout(
        template="plotly_white",
        title=None,
        width=None,
        height=height,
        autosize=True,
        showlegend=legend,
        margin={"t": 30, "b": 50, "l": 60, "r": 20},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1e293b"},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    if legend:
        figure.update_layout(
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": None}
        )
    if x is not None:
        figure.update_xaxes(title=x)
    if y is not None:
        figure.update_yaxes(title=y)
    return figure
