"""Findings: what is wrong with a data set, at which places, and what the user allows."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..config import InputError
from ..config_errors import name_hint
from ..text.escaping import printable
from .finding_messages import CODES, Severity, allowable

SHOWN = 10
"""Places of a finding that are listed; the rest are counted."""


@dataclass(frozen=True)
class Place:
    """Where something is wrong. Ids are those of the data set."""

    file: str = ""
    image: Any = None
    annotation: Any = None
    detail: str = ""

    def __str__(self) -> str:
        ids = (("annotation", self.annotation), ("image", self.image))
        name = " of ".join(f"{kind} {value}" for kind, value in ids if value is not None)
        name = f"{name} ({self.file})" if name and self.file else name or self.file
        return printable(": ".join(filter(None, [name, self.detail])))


def shown(value: Any) -> str:
    """Any value of a file in a message: shortened, however long or deeply nested it is."""
    return reprlib.repr(value)


@dataclass(frozen=True)
class Finding:
    """All places of one kind of finding in one split."""

    code: str
    split: str
    source: str
    """The annotation file or folder."""
    count: int
    places: tuple[Place, ...]
    """The first SHOWN of them."""
    severity: Severity
    hint: str = ""
    """What the places seem to have in common, and what to do."""

    @property
    def line(self) -> str:
        """The finding in one line with the next step, for errors before a search."""
        code, more = CODES[self.code], self.count - len(self.places)
        listed = ", ".join(filter(None, map(str, self.places)))
        text = ": ".join(filter(None, [code.text, listed])) + (f" and {more} more" if more else "")
        text += f"; {printable(self.hint)}" if self.hint else ""
        step = code.fix + (f", or --allow {self.code}" if code.allowed else "")
        return f"data.{self.split}: {self.code}: {text}; {step}"


@dataclass
class Findings:
    """Collects findings. A finding that the user allows becomes a warning."""

    allow: frozenset[str] = frozenset()
    items: list[Finding] = field(default_factory=list)

    def add(self, code: str, split: str, source: object, places: Iterable[Place]) -> None:
        """Add one finding for all these places. Without places nothing is added."""
        remaining = iter(places)
        first = tuple(islice(remaining, SHOWN))
        if first:
            self._add(code, split, source, len(first) + sum(1 for _ in remaining), first)

    def add_at(
        self,
        code: str,
        split: str,
        source: object,
        indices: Sequence[int],
        place: Callable[[int], Place],
        hint: str = "",
    ) -> None:
        """Add one finding for all these indices; only the first become a `Place`."""
        first = tuple(place(int(i)) for i in indices[:SHOWN])
        if first:
            self._add(code, split, source, len(indices), first, hint)

    def _add(
        self,
        code: str,
        split: str,
        source: object,
        count: int,
        places: tuple[Place, ...],
        hint: str = "",
    ) -> None:
        severity = CODES[code].severity
        if code in self.allow:
            severity = "warning"
        self.items.append(Finding(code, split, str(source), count, places, severity, hint))

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return [finding for finding in self.items if finding.severity == "error"]


def check_allowed(codes: Iterable[str]) -> frozenset[str]:
    """Return the codes that a user allows.

    Raises:
        InputError: A code is unknown, or an error that cannot be allowed.
    """
    errors = []
    for code in codes:
        if code not in CODES:
            errors.append(f"data.allow: {code}: no such code{name_hint(code, sorted(allowable()))}")
        elif code not in allowable():
            errors.append(f"data.allow: {code}: cannot be allowed; {CODES[code].fix}")
    if errors:
        raise InputError(errors)
    return frozenset(codes)
