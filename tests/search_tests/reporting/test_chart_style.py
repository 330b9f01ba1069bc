"""What all charts share."""

from dataclasses import replace

import plotly.graph_objects as go

from search.reporting import charts
from search.reporting.chart_style import (
    BASELINE_COLOUR,
    WINNER_COLOUR,
    hover_text,
    lay_out,
    trial_colour,
)
from search.reporting.report import read_result
from search.space.space import read_space

from ..conftest import MadeUp


def test_names_are_no_markup_to_plotly(made_up: MadeUp) -> None:
    figure = charts.classes({"val": {"per_class": {"<b>%{x}": 0.5, "$_$\x1b": None}}})
    assert figure.data[0].y == ("&lt;b&gt;%{x}", r"$_$\x1b")
    row = read_result(made_up.config, made_up.study).rows[0]
    space = read_space({"model.weights": {"choice": ["a", "b"]}})
    chosen = replace(row, values={"model.weights": "%{y}<br>"})
    assert "%&#123;y}&lt;br&gt;" in hover_text(chosen, space)


def test_winner_and_baseline_have_their_colours(made_up: MadeUp) -> None:
    rows = read_result(made_up.config, made_up.study).rows
    colours = {row.record.number: trial_colour(row, 7) for row in rows}
    assert (colours[7], colours[0]) == (WINNER_COLOUR, BASELINE_COLOUR)
    assert len({colours[n] for n in colours if n not in {0, 7}}) == 1


def test_titles_that_are_none_stay_as_they_are() -> None:
    figure = go.Figure().update_xaxes(title="depth")
    assert lay_out(figure, None, "AP").layout.xaxis.title.text == "depth"
    assert figure.layout.yaxis.title.text == "AP"
