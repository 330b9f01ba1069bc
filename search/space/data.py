"""The data set that a command or a config names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from trainer.config import Data, InputError
from trainer.config_errors import parse
from trainer.data.canvas import cache_folder
from trainer.data.checks.examine import examine
from trainer.data.checks.reading import format_of
from trainer.data.dataset import SPLIT_NAMES
from trainer.data.formats.layouts import find_layout

from .config import SearchConfig
from .config_file import read_yaml
from .locations import data_with_absolute_paths

AnyData = TypeVar("AnyData", Data, Data | str)


def find_data(place: Path) -> Data | str:
    """The data set that a user names as DATA: a YAML with a `data:` part, or what `find` knows.

    Raises:
        InputError: No data set is there.
    """
    if not place.exists():
        raise InputError([f"{place}: no such file or folder"])
    if place.suffix.lower() in {".yaml", ".yml"}:
        from .validation import checked_config  # imports torch, which the other forms do not need

        raw = read_yaml(place)
        if "data" in raw:
            return checked_config({"name": "data", "data": raw["data"]}, place.parent).data
        if "names" not in raw:
            raise InputError([f"{place}: has no data: part, and no names as YOLO's have"])
    return find_layout(place)


def with_allowed_codes(data: AnyData, codes: Sequence[str]) -> AnyData:
    """The data set with further codes of errors that it allows; the embedded one has no errors."""
    if not isinstance(data, Data) or not codes:
        return data
    return data.model_copy(update={"allow": [*(data.allow or []), *codes]})


def with_images(data: AnyData, given: Sequence[str]) -> AnyData:
    """The data set with its images in the folders of --images.

    Args:
        data: The data set.
        given: The values of the option, each DIR or SPLIT=DIR.

    Raises:
        InputError: Its images cannot be given so, or a folder does not exist.
    """
    if not given:
        return data
    if not isinstance(data, Data):
        raise InputError(["--images: the embedded data set has its images; leave it out"])
    if format_of(data.train) == "YOLO":
        raise InputError(["--images: path and train in data.yaml say where YOLO's pictures are"])
    return data.model_copy(update={"images": _folders(data, given)})


def _folders(data: Data, given: Sequence[str]) -> Path | dict[str, Path] | None:
    """What `data.images` becomes: SPLIT=DIR overrides DIR, and both override what it was."""
    splits = [name for name in SPLIT_NAMES if getattr(data, name) is not None]
    folders: dict[str, Path] = {}
    errors = []
    for text in given:
        split, equals, folder = text.partition("=")
        name, path = (split, Path(folder)) if equals and split in SPLIT_NAMES else ("", Path(text))
        if name in folders:
            errors.append(f"--images {text}: {name or 'all'} has {folders[name]} already")
        if name and name not in splits:
            errors.append(f"--images {text}: there is no {name}, only {', '.join(splits)}")
        if not path.is_dir():
            errors.append(f"--images {text}: no folder {path}")
        folders[name] = path
    if errors:
        raise InputError(errors)
    before: Any = data.images
    if not isinstance(before, dict):
        before = dict.fromkeys(splits, before)
    images = [folders.get(name) or folders.get("") or before.get(name) for name in splits]
    if len({*images}) == 1:
        return images[0]
    return {name: path for name, path in zip(splits, images, strict=True) if path}


def check_config_and_data(
    raw: dict[str, Any],
    beside: Path,
    allow: Sequence[str] = (),
    *,
    elsewhere: bool = False,
    without_space: bool = False,
) -> SearchConfig:
    """Check the raw values of a configuration and, where they have errors, its data set too.

    Args:
        raw: The content of a YAML file.
        beside: The folder of the file.
        allow: Further codes of errors that are none in this data set.
        elsewhere: Whether another machine runs the search: then its files may be missing here.
        without_space: Whether to leave out the space, as `unfreeze train` does.

    Raises:
        InputError: Has every error.
    """
    from .validation import checked_config

    data = raw.get("data")
    if allow and isinstance(data, dict):
        raw = raw | {"data": data | {"allow": [*(data.get("allow") or []), *allow]}}
    try:
        return checked_config(raw, beside, elsewhere, without_space)
    except InputError as error:
        of_data = [] if elsewhere else data_errors(raw.get("data"), beside)
        raise InputError([*error.errors, *of_data]) from None


def data_errors(raw: Any, beside: Path) -> list[str]:
    """Errors in the annotation files of a config's `data:` part.

    Images are not read. Errors of the part itself are left to the check of the config.

    Args:
        raw: The `data:` part.
        beside: The folder of the config's file.
    """
    try:
        data = data_with_absolute_paths(parse(Data, raw), beside)
        errors = examine(data, cache_folder(), pictures=False).errors
    except InputError:
        return []
    return [finding.line for finding in errors if finding.code != "file-missing"]
