"""Names that others chose, of classes, pictures and folders: text that stays text where it goes."""

import re

MARKDOWN = re.compile(r"[\\`*{}\[\]#|~$^!:@]|(?<![^\W_])_|_(?![^\W_])")
"""What begins markup in a line, so no `_` within a word."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """For a terminal or a picture, in one line: escape sequences, broken bytes and what turns the
    direction of writing become Python's escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """The same for several lines."""
    return "\n".join(map(printable, text.split("\n")))


def html(text: str) -> str:
    """For the text of an HTML page, or of a chart of plotly's, which reads a little HTML."""
    return "".join(ENTITIES.get(c, c) for c in printable(text))


def markdown(text: str) -> str:
    """For a line or a cell of Markdown, outside code."""
    return html(MARKDOWN.sub(r"\\\g<0>", printable(text)))


def matplotlib(text: str) -> str:
    """For a text of matplotlib's, which reads `$...$` as mathematics, and as a label `_...` as what
    no legend shows."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def quoted(text: str) -> str:
    """For YAML, in double quotes."""
    return '"' + "".join(map(_in_yaml, text)) + '"'


def _in_yaml(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
