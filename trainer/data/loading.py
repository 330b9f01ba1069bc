"""Reading a data set: every finding checked, and a val split off where none is given."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..config import BadInput, Data, Model
from .checks.examine import examine
from .dataset import Split, Splits
from .digits import make_digits
from .formats.layouts import find
from .split import split_off, take_off

MADE = "splits.json"
"""In a search's folder: which pictures of train became val."""


def load(
    data: Data | str,
    cache: Path,
    folder: Path | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
    model: Model | None = None,
) -> Splits:
    """Read a data set: the `data:` part of a config, or `digits` for the embedded one.

    Where no val is given, the split that a search's `folder` keeps is taken, else one is made.
    Raises BadInput with every error of every file; `step` and `model` are as for
    `examine`.
    """
    data = given(data, cache)
    examined = examine(data, cache, step=step, model=model)
    if examined.errors:
        raise BadInput([finding.line for finding in examined.errors])
    splits, notes = examined.splits, list(examined.notes)
    made = "val" not in splits
    if made:
        before = _read_made(folder)
        halves = take_off(splits["train"], "val", before) if before else None
        halves = halves or split_off(splits["train"], "val", data.val_fraction)
        splits = {**splits, "train": halves[0], "val": halves[1]}
        notes.append(
            f"no val given: {len(halves[1].pictures)} of the pictures of train are val, "
            "chosen by content, in equal shares of each class"
        )
        notes += _one_sided(halves)
    return Splits(splits["train"], splits["val"], splits.get("test"), tuple(notes), made)


def _one_sided(halves: tuple[Split, Split]) -> Iterator[str]:
    """Classes that a made val or what is left of train lacks, a line a side."""
    held = [{int(label) for p in half.pictures for label in p.labels[~p.crowd]} for half in halves]
    for half, own in zip(halves, held, strict=True):
        missing = [half.categories[label - 1].name for label in sorted(set.union(*held) - own)]
        if missing:
            yield f"{half.name} has no box of {', '.join(missing)}: too few pictures have one"


def load_split(data: Data, name: str, cache: Path) -> Split:
    """All that `data.train` lists, as the split of this name. Raises BadInput."""
    examined = examine(data.model_copy(update={"val": None, "test": None}), cache)
    if examined.errors:
        raise BadInput([replace(finding, split=name).line for finding in examined.errors])
    return replace(examined.splits["train"], name=name)


def given(data: Data | str, cache: Path) -> Data:
    """The `data:` part itself, `digits` being made where they are not yet."""
    return data if isinstance(data, Data) else find(make_digits(cache))


def made_split(data: Splits) -> bytes:
    """What a search keeps of a val that was made, to be read by `load` again."""
    chosen = {picture.sha256: picture.file.name for picture in data.val.pictures}
    return json.dumps({"val": chosen}, indent=1).encode()


def _read_made(folder: Path | None) -> set[str]:
    """Digests of the pictures that are val, none where none are kept. Raises BadInput."""
    if folder is None or not (folder / MADE).is_file():
        return set()
    try:
        kept = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BadInput([_damaged(folder, "it is no JSON")]) from None
    chosen = kept.get("val") if isinstance(kept, dict) else None
    if not isinstance(chosen, dict) or not chosen:
        raise BadInput([_damaged(folder, "it has no val of pictures by SHA-256")])
    return set(chosen)


def _damaged(folder: Path, why: str) -> str:
    return (
        f"{folder / MADE} is damaged ({why}): move it away, and the same pictures are chosen "
        "again, if the data is the same"
    )
