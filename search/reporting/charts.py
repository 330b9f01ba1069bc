"""The charts of a report that show the search itself.

Each returns a plotly figure, or a sentence that says why there is none.
"""

from typing import Any

import plotly.graph_objects as go

from trainer.text.escaping import escape_html

from ..ranking.asha import rungs
from ..ranking.contenders import BASELINE
from ..ranking.costs import Costs
from ..ranking.gain import baseline_row
from ..ranking.results import SearchResult
from ..ranking.row import Row
from ..study.record import End, TrialRecord
from .chart_style import (
    BASELINE_COLOUR,
    LIGHT_BLUE,
    OTHER_COLOUR,
    PALE_COLOUR,
    WINNER_COLOUR,
    Chart,
    hover_text,
    lay_out,
    trial_colour,
)

# -- learning curves ------------------------------------------------------------------------------


def learning_curves(result: SearchResult) -> Chart:
    """Val AP after each epoch of all trials.

    Unfreeze epochs count from 1, so the head phase ends at 0.
    """
    winner = result.winner.best_run.number if result.winner else None
    rows = [row for row in result.rows if row.record.reports]
    if not rows:
        return "No trial has reported an epoch yet."
    figure = go.Figure()
    # winner and baseline are drawn last, over the others
    for row in sorted(rows, key=lambda row: _layer(row, winner)):
        _add_curve(figure, row, winner, result)
    _shade_head_phase(figure, max(_head_epochs(row.record) for row in rows))
    asha, epochs = result.config.search.asha, result.config.train.unfreeze.epochs
    for height in [] if asha == "off" else rungs(asha, epochs):
        line = {"dash": "dash", "width": 1, "color": OTHER_COLOUR}
        figure.add_vline(x=height, line=line, annotation_text="rung")
    return lay_out(figure, "epoch after the head phase", "val AP", legend=True)


def _layer(row: Row, winner: int | None) -> int:
    return 2 if row.record.number == winner else int(row.record.origin == BASELINE)


def _add_curve(figure: go.Figure, row: Row, winner: int | None, result: SearchResult) -> None:
    record = row.record
    reports = sorted(record.reports.values(), key=lambda report: report.epoch)
    head = _head_epochs(record)
    name = _legend_name(row, winner)
    figure.add_scatter(
        x=[report.epoch - head for report in reports],
        y=[report.map for report in reports],
        customdata=[[r.depth, "taken over" if r.forked else "trained"] for r in reports],
        mode="lines+markers",
        name=name or "others",
        legendgroup=name or "others",
        showlegend=bool(name) or not any(trace.name == "others" for trace in figure.data),
        line={
            "color": trial_colour(row, winner),
            "width": 3 if name else 1.5,
            "dash": "dot" if record.end is End.PRUNED else "solid",
        },
        marker={"size": 6 if name else 4},
        hovertemplate=f"{hover_text(row, result.space)}<br>epoch %{{x}}, depth "
        "%{customdata[0]}, %{customdata[1]}<br>AP %{y:.3f}<extra></extra>",
    )
    if record.number == winner:
        _mark_depths(figure, record, head)


def _legend_name(row: Row, winner: int | None) -> str:
    """The name of a curve in the legend; empty for those that share the entry `others`."""
    number, confirms = row.record.number, row.record.confirms
    if number == winner:
        return f"#{number} winner" if confirms is None else f"#{number}, run of #{confirms}: winner"
    return f"#{number} baseline" if row.record.origin == BASELINE else ""


def _head_epochs(record: TrialRecord) -> int:
    return sum(report.unfreeze_epoch == 0 for report in record.reports.values())


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
                font={"color": WINNER_COLOUR},
                arrowcolor=WINNER_COLOUR,
                ax=0,
                ay=-32,
            )


def _shade_head_phase(figure: go.Figure, epochs: int) -> None:
    if not epochs:
        return
    start, end = 0.5 - epochs, 0.5
    figure.add_vrect(
        x0=start, x1=end, fillcolor=PALE_COLOUR, opacity=0.5, line_width=0, layer="below"
    )
    middle = 0.5 - epochs / 2
    figure.add_annotation(
        x=middle, y=0, yref="paper", text="head phase", showarrow=False, yshift=10
    )


# -- depth ----------------------------------------------------------------------------------------


def depth_against_ap(result: SearchResult) -> Chart:
    """Best val AP of each trial over the depth that it reached."""
    rows = [row for row in result.rows if row.record.confirms is None and row.record.unfreeze_epoch]
    depths = {row.record.number: max(r.depth for r in row.record.reports.values()) for row in rows}
    if len(set(depths.values())) < 2:
        return "No two trials that came to an unfreeze epoch differ in depth."
    figure = go.Figure()
    finished = [row for row in rows if row.record.end is End.FINISHED]
    best: dict[int, float] = {}
    for row in finished:
        depth = depths[row.record.number]
        best[depth] = max(best.get(depth, 0.0), row.map or 0.0)
    if len(best) > 1:
        figure.add_scatter(
            x=sorted(best),
            y=[best[depth] for depth in sorted(best)],
            mode="lines",
            line={"color": PALE_COLOUR, "width": 3},
            name="best that ran all epochs",
            hoverinfo="skip",
        )
    _add_depth_marks(figure, result, finished, depths, "ran all epochs", "circle")
    others = [row for row in rows if row not in finished]
    _add_depth_marks(figure, result, others, depths, "ended earlier", "circle-open")
    figure.update_xaxes(dtick=1)
    return lay_out(figure, "stages trained, from the head end", "best val AP", legend=True)


def _add_depth_marks(
    figure: go.Figure,
    result: SearchResult,
    rows: list[Row],
    depths: dict[int, int],
    name: str,
    symbol: str,
) -> None:
    winner = result.winner.record.number if result.winner else None
    colours = [trial_colour(row, winner) for row in rows]
    figure.add_scatter(
        x=[depths[row.record.number] for row in rows],
        y=[row.map for row in rows],
        mode="markers",
        name=name,
        marker={
            "symbol": symbol,
            "size": 11,
            "color": colours,
            "line": {"width": 2, "color": colours},
        },
        text=[hover_text(row, result.space) for row in rows],
        hovertemplate="%{text}<br>AP %{y:.3f}<extra></extra>",
    )


# -- seeds, epochs, classes -----------------------------------------------------------------------


def seeds(result: SearchResult) -> Chart:
    """The fresh runs of each confirmed configuration; hollow is the run it was chosen by."""
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
        symbols = ["circle-open", *["circle"] * len(row.fresh)]
        figure.add_scatter(
            x=[name] * len(runs),
            y=[row.map, *row.maps],
            mode="markers",
            marker={"size": 11, "color": OTHER_COLOUR, "symbol": symbols},
            text=[f"run of trial #{run.number}" for run in runs],
            hovertemplate="%{text}<br>AP %{y:.3f}<extra></extra>",
            showlegend=False,
        )
        figure.add_scatter(
            x=[name],
            y=[row.mean],
            mode="markers",
            showlegend=False,
            marker={"symbol": "line-ew", "size": 36, "line": {"width": 3, "color": WINNER_COLOUR}},
            hovertemplate="mean %{y:.3f}<extra></extra>",
        )
    baseline = baseline_row(result.rows)
    if baseline and baseline.map and not baseline.fresh:
        line = {"dash": "dash", "color": BASELINE_COLOUR}
        figure.add_hline(y=baseline.map, line=line, annotation_text="baseline")
    return lay_out(figure, "configuration of trial", "best val AP")


def epochs(costs: Costs) -> Chart:
    """How many epochs were trained, taken over, and not run."""
    total = costs.epochs_run + costs.epochs_forked + costs.epochs_not_run
    if not total:
        return "No epoch was trained yet."
    figure = go.Figure()
    for name, count, colour in (
        ("trained", costs.epochs_run, WINNER_COLOUR),
        ("taken over from another trial", costs.epochs_forked, LIGHT_BLUE),
        ("not run, since ASHA stopped the trial", costs.epochs_not_run, PALE_COLOUR),
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
            hovertemplate=f"{name}: %{{x}} of {total}<extra></extra>",
        )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    return lay_out(figure, "epochs", "", legend=True, height=190)


def classes(metrics: dict[str, Any]) -> Chart:
    """AP of each class, measured from the winner's export on val and on test."""
    splits = [split for split in ("val", "test") if split in metrics]
    if not splits:
        return "The winner is measured at the end of the search."
    figure = go.Figure()
    for split, colour in zip(("val", "test"), (WINNER_COLOUR, LIGHT_BLUE), strict=True):
        if split in splits:
            values = metrics[split]["per_class"]
            figure.add_bar(
                y=[escape_html(name) for name in values],
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
    return lay_out(figure, "AP", "", legend=True, height=130 + 26 * names)
