"""Writes the pages that the project has elsewhere already.

The reference comes from the code; clusters, contributing, security and the changelog are copies of
files that lie where people look for them.

`make docs` runs it before it builds the site. A test compares the pages with what this gives.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from search.commands.cli import parser
from search.space.config import SearchConfig
from trainer.data.finding_messages import CODES

from . import python_reference

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py. Change the code, then run `make docs`. -->\n\n"


def configuration() -> str:
    """The page of all fields of a search.yaml, from the config classes."""
    text = (
        NOTE + "# Configuration\n\nEvery field of a search.yaml. Fields below `model` and `train` "
    )
    text += "can be dimensions of the [search space](../search-space.md).\n"
    text += _section("search.yaml", SearchConfig, "")
    for model, path in _models(SearchConfig, ""):
        text += _section(f"`{path}`", model, f"{path}.")
    return text


def _section(title: str, model: type[BaseModel], prefix: str) -> str:
    rows = [
        (
            f"`{prefix}{name}`",
            _type(field.annotation),
            _range(field),
            _default(field),
            _line(field.description),
        )
        for name, field in model.model_fields.items()
        if not _nested(field.annotation) or _literals(field.annotation)
    ]
    about = f"{_line(model.__doc__)}\n\n" if prefix else ""
    columns = ("field", "type", "range", "default", "effect")
    return f"\n## {title}\n\n{about}" + _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _models(model: type[BaseModel], prefix: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The config classes below one, each with its dotted path, in the order of the fields."""
    for name, field in model.model_fields.items():
        for nested in _nested(field.annotation):
            yield nested, prefix + name
            yield from _models(nested, f"{prefix}{name}.")


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for part in get_args(annotation) for model in _nested(part)]
    return []


def _literals(annotation: Any) -> list[str]:
    """The words that a field may hold."""
    if get_origin(annotation) is Literal:
        return [word for part in get_args(annotation) for word in _literals(part) or [str(part)]]
    if get_origin(annotation) in (Union, UnionType):
        return [word for part in get_args(annotation) for word in _literals(part)]
    return []


def _type(annotation: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    words = [f"`{word}`" for word in _literals(annotation)]
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    for part in parts:
        part = get_args(part)[0] if get_origin(part) is Annotated else part
        if get_origin(part) is Literal or part is type(None):
            continue
        if _nested(part):
            words.append("see below")
        elif get_origin(part) in (list, dict):
            words.append("list" if get_origin(part) is list else "mapping")
        else:
            words.append(names.get(part, getattr(part, "__name__", "text")))
    return ", ".join(dict.fromkeys(words))


def _range(field: FieldInfo) -> str:
    limits = []
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            limits.append(f"at least {limit.ge}")
        elif isinstance(limit, annotated_types.Gt):
            limits.append(f"above {limit.gt}")
        elif isinstance(limit, annotated_types.Le):
            limits.append(f"at most {limit.le:,}")
        elif isinstance(limit, annotated_types.Lt):
            limits.append(f"below {limit.lt:,}")
        elif isinstance(limit, annotated_types.MultipleOf):
            limits.append(f"a multiple of {limit.multiple_of}")
    return ", ".join(limits)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def commands() -> str:
    """The page of all commands, from their own help."""
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "80"  # argparse's width
    try:
        top = parser()
        (actions,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
        text = NOTE + "# Commands\n\nExit codes: 0 done, 1 failed, 2 bad input.\n"
        for name, command in actions.choices.items():
            text += f"\n## unfreeze {name}\n\n```\n{command.format_help().rstrip()}\n```\n"
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return text


def findings() -> str:
    """The page of everything that `unfreeze check` reports, from the table of codes."""
    text = NOTE + "# Findings\n\nWhat `unfreeze check` reports ([Data](../data.md)).\n"
    for severity, title in (("error", "Errors"), ("warning", "Warnings"), ("note", "Notes")):
        rows = [
            (f"`{name}`", _line(code.text), _line(code.fix), _line(code.allowed))
            for name, code in CODES.items()
            if code.severity == severity
        ]
        text += f"\n## {title}\n\n" + _table(("code", "meaning", "fix", "if allowed"), rows)
    return text


def copied(file: str) -> str:
    """A page that is a file of the project, with its links into docs/ made links beside it."""
    note = f"<!-- Copied by docs/generate.py. Change {file}, then run `make docs`. -->\n\n"
    text = (DOCS.parent / file).read_text(encoding="utf-8")
    return note + text.replace("](../docs/", "](").replace("](docs/", "](")


def python() -> str:
    """The page of the Python module, from its source."""
    return NOTE + python_reference.reference()


PAGES: dict[str, Callable[[], str]] = {
    "clusters": partial(copied, "clusters/README.md"),
    "contributing": partial(copied, "CONTRIBUTING.md"),
    "security": partial(copied, "SECURITY.md"),
    "changelog": partial(copied, "CHANGELOG.md"),
    "reference/configuration": configuration,
    "reference/commands": commands,
    "reference/findings": findings,
    "reference/python": python,
}


def main() -> None:
    """Write every page."""
    (DOCS / "reference").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
