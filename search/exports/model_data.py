"""DATA on the command line: the data set, or the split, that a model is measured on."""

from collections.abc import Sequence
from pathlib import Path

from trainer.config import InputError
from trainer.data.canvas import cache_folder
from trainer.data.dataset import SPLIT_NAMES, Split, Splits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load, load_split

from ..space.data import find_data, with_allowed_codes


def load_data(place: Path, allow: Sequence[str] = ()) -> Splits:
    """The data set that DATA names, see `find_data`.

    A search's search.yaml gives the splits that the search used.

    Args:
        place: DATA.
        allow: Codes of findings that are allowed.
    """
    search = place.parent if place.name == "search.yaml" else None
    return load(with_allowed_codes(find_data(place), allow), cache_folder(), search)


def load_named_split(place: Path, name: str, allow: Sequence[str]) -> Split:
    """The split of this name in DATA. One COCO json is itself the split.

    Raises:
        InputError: DATA is damaged, or has no such split.
    """
    if name not in SPLIT_NAMES:
        raise InputError([f"split: {name} (legal: {', '.join(SPLIT_NAMES)})"])
    if _is_one_split(place):
        return load_split(with_allowed_codes(find_layout(place), allow), name, cache_folder())
    split: Split | None = getattr(load_data(place, allow), name)
    if split is None:
        raise InputError([f"{place}: has no {name} split"])
    return split


def is_training_data(place: Path, digest: str, allow: Sequence[str]) -> bool:
    """Whether DATA is the data set with this digest, the one that a model was trained on."""
    return not _is_one_split(place) and load_data(place, allow).digest == digest


def _is_one_split(place: Path) -> bool:
    return place.suffix == ".json"
