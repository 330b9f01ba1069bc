"""Untrusted names stay text in a terminal, Markdown, HTML, matplotlib and YAML."""

import io

import pytest
from matplotlib.figure import Figure
from ruamel.yaml import YAML

from trainer.text.escaping import (
    escape_html,
    escape_markdown,
    escape_matplotlib,
    printable,
    printable_lines,
    quote_yaml,
)

HOSTILE = [
    "\x1b]0;owned\x07\x1b[2J",
    "$_$",
    r"\$x\$ $\frac{1}{0}$",
    "_hidden",
    "a|b\n\n# c",
    "<img src=x onerror=alert(1)> & ![x](http://h/p) **b** `c` <!--",
    "\u202egnp.exe\u200b",
    "broken \udcff byte",
    'say "\\n"',
    "\U000e0001 \x7f\x85\0",
    "Größe 犬 🐕",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_printable_text_has_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and printable(shown) == shown
    assert shown == text or not text.isprintable()
    shown.encode()


def test_line_breaks_stay() -> None:
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red_cell-2 (old)", "red_cell-2 (old)"),
        ("a|b\nc", r"a\|b\\nc"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("![x](http://h)", r"\!\[x\](http\://h)"),
        ("_a_ *b* `c` ~d~", r"\_a\_ \*b\* \`c\` \~d\~"),
        ("# $x$ \\", r"\# \$x\$ \\"),
    ],
)
def test_markdown_has_no_markup(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown


def test_html_has_no_tags() -> None:
    assert escape_html("<br>&amp;\x1b") == "&lt;br&gt;&amp;amp;\\x1b"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_matplotlib_draws_the_text_and_shows_it_in_a_legend(text: str) -> None:
    figure = Figure()
    axes = figure.add_subplot(title=escape_matplotlib(text))
    axes.plot([0, 1], label=f"{escape_matplotlib(text)} 0.5")
    axes.set_yticks([0, 1], [escape_matplotlib(text)] * 2)
    (label,) = axes.legend().get_texts()
    assert label.get_text().replace(r"\$", "$").strip() == f"{printable(text)} 0.5"
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_reads_the_same_text(text: str) -> None:
    line = f"a: {quote_yaml(text)}\n"
    assert line.strip().isprintable()
    assert YAML(typ="safe", pure=True).load(line) == {"a": text}
