"""What all charts of a report share: colours, layout, and a trial's text on hovering."""

from typing import Any, TypeAlias

import plotly.graph_objects as go

from trainer.text.escaping import escape_html

from ..ranking.contenders import BASELINE
from ..ranking.row import Row
from ..space.space import Space
from .formatting import show_settings

Chart: TypeAlias = Any
"""A plotly figure (the package has no types), or a sentence that says why there is none."""
WINNER_COLOUR = "#1d4ed8"
BASELINE_COLOUR = "#ea580c"
OTHER_COLOUR = "#94a3b8"
PALE_COLOUR = "#e2e8f0"
LIGHT_BLUE = "#93c5fd"


def trial_colour(row: Row, winner: int | None) -> str:
    """The colour of a trial's marks, given the number of the winner's run."""
    if row.record.number == winner:
        return WINNER_COLOUR
    return BASELINE_COLOUR if row.record.origin == BASELINE else OTHER_COLOUR


def hover_text(row: Row, space: Space) -> str:
    """`#3 lr 0.001, depth 2`, with nothing in it that plotly takes for markup or a template."""
    settings = escape_html(show_settings(row, space)).replace("%{", "%&#123;")
    return f"#{row.record.number} {settings}"


def lay_out(
    figure: go.Figure, x: str | None, y: str | None, *, legend: bool = False, height: int = 380
) -> go.Figure:
    """Give a figure the look of the report, and its axes titles; None keeps Optuna's titles."""
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
