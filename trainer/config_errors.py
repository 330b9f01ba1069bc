"""A config from plain values, and every error in it in the words of the user's file."""

import copy
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from .config import Config, InputError

AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse(model: type[AnyConfig], raw: Any) -> AnyConfig:
    """Build a config from plain values.

    Raises:
        InputError: With every error: its dotted path, the value and the legal range.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(describe(model, error)) from None


def describe(model: type[Config], error: ValidationError) -> list[str]:
    """One line for each error of pydantic, in the words of the user's file."""
    lines: dict[str, str] = {}
    for item in error.errors():
        path = _path(item["loc"])
        dotted = ".".join(path) or "the file"
        lines.setdefault(dotted, f"{dotted}: {_reason(model, path, dict(item))}")
    # pydantic reports every branch of a union: keep the errors inside the branch that was meant
    return [
        line for path, line in lines.items() if not any(p.startswith(f"{path}.") for p in lines)
    ]


def parse_valid_fields(
    model: type[AnyConfig], raw: dict[str, Any]
) -> tuple[AnyConfig | None, list[str]]:
    """A config of the valid fields, and every error of the others.

    With it a caller can report errors between fields together with errors of single fields. The
    config is None if it cannot be built without the invalid fields.
    """
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        lines = describe(model, error)
        valid = copy.deepcopy(raw)
        for item in error.errors():
            _remove(valid, _path(item["loc"]))
    try:
        return model.model_validate(valid), lines
    except ValidationError:
        return None, lines


def _remove(raw: Any, path: list[str]) -> None:
    for name in path[:-1]:
        raw = raw.get(name) if isinstance(raw, dict) else None
    if isinstance(raw, dict) and path:
        raw.pop(path[-1], None)


def _path(location: tuple[int | str, ...]) -> list[str]:
    return [str(part) for part in location if not _is_branch(part)]


def _is_branch(part: int | str) -> bool:
    # pydantic puts the branch of a union that it tried into the location; the file has no such key
    if not isinstance(part, str):
        return False
    classes = {config.__name__ for config in _configs(Config)}
    kinds = {"int", "float", "constrained-int", "constrained-float", "path", "str"}
    return part in kinds | classes or "[" in part


def _configs(base: type[Config]) -> Iterator[type[Config]]:
    for config in base.__subclasses__():
        yield config
        yield from _configs(config)


def _reason(model: type[Config], path: list[str], item: Mapping[str, Any]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + name_hint(path[-1], _sibling_names(model, path))
    if kind == "missing":
        return "is required"
    if path[-1:] == ["depth"]:
        return f"{_short(value)}: is not a depth (legal: an integer from 0, or all)"
    if path[-1:] == ["ema"]:
        return f"{_short(value)}: is not a decay (legal: off, or a number over 0 and under 1)"
    if path[-1:] == ["trunk_cache"]:
        return f"{_short(value)}: is not a depth (legal: auto, off, or an integer from 0)"
    if kind == "value_error":  # raised by a validator of a config, with a complete message
        return f"{_short(value)}: {context['error']}"
    if kind == "literal_error":
        legal = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{value!r} is none of {context['expected']}" + did_you_mean(str(value), legal)
    return f"{_short(value)}: {item['msg'][:1].lower()}{item['msg'][1:]}" + _range(model, path)


def did_you_mean(name: str, legal: list[str]) -> str:
    """`; did you mean x?` if a legal name is similar, else an empty text."""
    near = difflib.get_close_matches(name, legal, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def name_hint(name: str, legal: list[str]) -> str:
    """The hint of `did_you_mean` or, if no legal name is similar, all legal names."""
    if hint := did_you_mean(name, legal):
        return hint
    return f"; known here: {', '.join(legal)}" if legal else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sibling_names(model: type[Config], path: list[str]) -> list[str]:
    """Names of the fields beside the one at `path`; empty if `path` leaves the nested configs."""
    parent = _parent(model, path)
    return list(parent.model_fields) if parent else []


def _parent(model: type[Config], path: list[str]) -> type[Config] | None:
    """The config class that holds the last name of `path`."""
    for name in path[:-1]:
        field = model.model_fields.get(name)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, Config)]
        if not nested:
            return None
        model = nested[0]
    return model


def _range(model: type[Config], path: list[str]) -> str:
    """The legal range of the number at `path`, in brackets; empty if it has none."""
    parent = _parent(model, path)
    field = parent.model_fields.get(path[-1]) if parent and path else None
    words = {"gt": "over", "ge": "at least", "lt": "under", "le": "at most"}
    bounds = [
        f"{word} {getattr(rule, attribute):g}"
        for rule in (field.metadata if field else ())
        for attribute, word in words.items()
        if hasattr(rule, attribute)
    ]
    return f" (legal: {', '.join(bounds)})" if bounds else ""
