"""Loads a data set to train on: raises every error, and splits val off if none is given."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..config import Data, InputError, Model
from .checks.examine import examine
from .dataset import Split, Splits
from .embedded_digits import make_digits
from .formats.layouts import find_layout
from .split import split_chosen, split_off

SPLITS_FILE = "splits.json"
"""In a search's folder: which pictures of train became val."""


def load(
    data: Data | str,
    cache: Path,
    folder: Path | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
    model: Model | None = None,
) -> Splits:
    """Load a data set.

    Args:
        data: The `data:` part of a config, or `digits` for the embedded data set.
        cache: The folder for what can be made again.
        folder: A search's folder. If no val is given, the split that it keeps is taken.
        step: As for `examine`.
        model: As for `examine`.

    Raises:
        InputError: Has every error of every file.
    """
    data = resolve_data(data, cache)
    examined = examine(data, cache, step=step, model=model)
    if examined.errors:
        raise InputError([finding.line for finding in examined.errors])
    splits, notes = examined.splits, list(examined.notes)
    made = "val" not in splits
    if made:
        before = _read_chosen(folder)
        halves = split_chosen(splits["train"], "val", before) if before else None
        halves = halves or split_off(splits["train"], "val", data.val_fraction)
        splits = {**splits, "train": halves[0], "val": halves[1]}
        notes.append(
            f"no val given: {len(halves[1].pictures)} of the pictures of train are val, "
            "chosen by content, with the same fraction of each class"
        )
        notes += _missing_classes(halves)
    return Splits(splits["train"], splits["val"], splits.get("test"), tuple(notes), made)


def _missing_classes(halves: tuple[Split, Split]) -> Iterator[str]:
    """A line for each half of a split that lacks classes of the other."""
    labels = [{int(label) for p in h.pictures for label in p.labels[~p.crowd]} for h in halves]
    for half, held in zip(halves, labels, strict=True):
        missing = [half.categories[label - 1].name for label in sorted(set.union(*labels) - held)]
        if missing:
            yield f"{half.name} has no box of {', '.join(missing)}: too few pictures have one"


def load_split(data: Data, name: str, cache: Path) -> Split:
    """Load everything that `data.train` lists as the split of this name. Raises InputError."""
    examined = examine(data.model_copy(update={"val": None, "test": None}), cache)
    if examined.errors:
        raise InputError([replace(finding, split=name).line for finding in examined.errors])
    return replace(examined.splits["train"], name=name)


def resolve_data(data: Data | str, cache: Path) -> Data:
    """The `data:` part itself; for `digits` that of the embedded data set, made if needed."""
    return data if isinstance(data, Data) else find_layout(make_digits(cache))


def splits_file_content(data: Splits) -> bytes:
    """The content of MADE for a val that was split off; `load` reads it again."""
    chosen = {picture.sha256: picture.file.name for picture in data.val.pictures}
    return json.dumps({"val": chosen}, indent=1).encode()


def _read_chosen(folder: Path | None) -> set[str]:
    """Digests of the pictures that are val; empty if there is no file. Raises InputError."""
    if folder is None or not (folder / SPLITS_FILE).is_file():
        return set()
    try:
        content = json.loads((folder / SPLITS_FILE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError([_damaged(folder, "it is no JSON")]) from None
    except OSError as error:
        raise InputError([f"{folder / SPLITS_FILE}: cannot be read ({error.strerror})"]) from None
    chosen = content.get("val") if isinstance(content, dict) else None
    if not isinstance(chosen, dict) or not chosen:
        raise InputError([_damaged(folder, "it has no val of pictures by SHA-256")])
    return set(chosen)


def _damaged(folder: Path, why: str) -> str:
    return (
        f"{folder / SPLITS_FILE} is damaged ({why}): move it away; if the data is unchanged, "
        "the same pictures are chosen again"
    )
