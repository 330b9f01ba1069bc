"""Untrusted names (of classes, pictures, folders) escaped for the format that they are shown in."""

import re

MARKDOWN = re.compile(r"[\\`*{}\[\]#|~$^!:@]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that begin markup within a line. A `_` within a word does not."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """Escape for one line in a terminal or a picture.

    Control characters, broken bytes and changes of the writing direction become Python's escapes.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Escape like `printable`, but keep line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def escape_html(text: str) -> str:
    """Escape for the text of an HTML page, or of a plotly chart, which reads some HTML."""
    return "".join(ENTITIES.get(c, c) for c in printable(text))


def escape_markdown(text: str) -> str:
    """Escape for a line or a table cell of Markdown, outside code."""
    return escape_html(MARKDOWN.sub(r"\\\g<0>", printable(text)))


def escape_matplotlib(text: str) -> str:
    """Escape for matplotlib: `$...$` is mathematics there, and no legend shows a label `_...`."""
    escaped = printable(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def quote_yaml(text: str) -> str:
    """Quote for YAML, in double quotes."""
    return '"' + "".join(map(_yaml_character, text)) + '"'


def _yaml_character(c: str) -> str:
    if c in '"\\':
        return f"\\{c}"
    if c.isprintable():
        return c
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
