"""YAML 1.2 text as plain values, within bounds that any file written by hand keeps."""

from typing import Any

DEEP, MOST = 50, 50_000
"""Levels of nesting, and values with every alias written out: more is no file of a person's, and
would take hours or all memory, as aliases of aliases double each time."""


class NoYaml(Exception):
    """Why a text cannot be read."""

    def __init__(self, problem: str, kind: str = "", line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        """With words of the text itself."""
        self.kind = kind or problem
        """Without any."""
        self.line = line
        """From 1."""


def load_yaml(text: str) -> Any:
    """Numbers, texts, lists and dicts; nothing in the text is ever run. Raises NoYaml."""
    from ruamel.yaml import YAML  # slow to import, and of no use for other formats
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _check_bounds(text)
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        problem, kind = str(error.problem).splitlines()[0], error.context or "is no YAML"
        problem = problem.partition(" with value ")[0]  # of a key given twice: it may be a secret
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise NoYaml(problem, kind, line) from None
    except YAMLError as error:
        raise NoYaml(str(error).splitlines()[0]) from None
    except ValueError:  # a date that no calendar has, a number of thousands of digits
        raise NoYaml("has a number or date that cannot be read") from None


def _check_bounds(text: str) -> None:
    from ruamel.yaml import YAML, events

    total = 0
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str | None, int] = {}
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, events.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, events.CollectionEndEvent):
            anchor, before = opened.pop()
            sizes[anchor] = total - before
        elif isinstance(event, events.ScalarEvent):
            sizes[event.anchor] = 1
            total += 1
        elif isinstance(event, events.AliasEvent):
            total += sizes.get(event.anchor, 1)
        if len(opened) > DEEP:
            raise NoYaml(f"is nested more than {DEEP} deep")
        if total > MOST:
            raise NoYaml(f"holds more than {MOST} values, each alias counted")
