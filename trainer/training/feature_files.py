"""Files of frozen features: a machine computes them once, and all trials map them."""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.canvas import cache_folder
from ..data.shared_arrays import Bytes, key_of, locked, open_array, write_array

log = logging.getLogger(__name__)

MAX_BYTES = 20 * 10**9
"""Maximum size of all files of a machine. The least recently used files are deleted first."""
MAX_DISK_FRACTION = 0.5
"""New files may take at most this fraction of the free disk space."""

Compute = Callable[[Bytes, bool], list[Bytes]]
"""Computes the features of one canvas, mirrored or not: an array for each file."""


@dataclass(frozen=True)
class Pass:
    """One run of the frozen stages over the pictures of a split, all mirrored or none."""

    split: str
    canvases: Bytes
    mirrored: bool
    keys: list[str]
    """Key of each file that the run fills."""


def features_folder() -> Path:
    """Folder of the files on this machine."""
    return cache_folder() / "outputs"


def open_or_make(
    folder: Path, passes: Sequence[Pass], compute: Compute, on_step: Callable[[], None]
) -> list[list[Bytes] | None]:
    """Map the files of each pass, and make missing ones.

    Safe for several processes: one makes the files, the others wait.

    Args:
        folder: Folder of the files.
        passes: All passes that are needed together.
        compute: Computes the features of one canvas.
        on_step: Called for every picture, and while this process waits.

    Returns:
        For each pass its arrays (n, H, W, C x bytes of a number); None if the disk has no room.
    """

    def open_all() -> list[list[Bytes] | None]:
        return [_open(folder, one.keys, on_step) for one in passes]

    if None not in (arrays := open_all()):
        return arrays
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", on_step):
        try:
            _make_missing(folder, passes, compute, on_step)
        except OSError as error:
            log.warning("features of the frozen stages are not cached: %s", error)
        return open_all()


def space_problem(folder: Path, wanted: int) -> str:
    """Why a folder has no room for files of that many bytes in total; empty if it has room.

    Files that are already in the folder count as free space: they are among the wanted ones, or
    can be deleted.
    """
    if wanted > MAX_BYTES:
        return f"they would take {wanted / 1e9:.1f} GB, of at most {MAX_BYTES / 1e9:.0f}"
    existing = next(place for place in (folder, *folder.parents) if place.is_dir())
    cached = sum(file.st_size for file in _files(folder).values())
    free = shutil.disk_usage(existing).free + cached
    if wanted > MAX_DISK_FRACTION * free:
        return (
            f"they would take {wanted / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} "
            f"GB free, of which they may take {MAX_DISK_FRACTION:.0%}"
        )
    return ""


def _open(folder: Path, keys: list[str], on_step: Callable[[], None]) -> list[Bytes] | None:
    arrays = [array for key in keys if (array := open_array(folder, key, on_step)) is not None]
    return arrays if len(arrays) == len(keys) else None


def _make_missing(
    folder: Path, passes: Sequence[Pass], compute: Compute, on_step: Callable[[], None]
) -> None:
    """Write the missing files. Raises OSError if the disk has no room for all of them."""
    for part in folder.glob("*.part"):
        part.unlink()  # left by a process that died: this process has the lock
    missing = {
        key for one in passes for key in one.keys if open_array(folder, key, on_step) is None
    }
    if not missing:
        return  # another process has made them
    sizes = [row.nbytes for row in compute(passes[0].canvases[0], False)]
    needed = {
        key: size * len(one.canvases)
        for one in passes
        for key, size in zip(one.keys, sizes, strict=True)
    }
    _make_room(folder, needed, missing)
    for one in passes:
        if not missing.isdisjoint(one.keys):
            _write(folder, one, missing, compute, on_step)


def _write(
    folder: Path, one: Pass, missing: set[str], compute: Compute, on_step: Callable[[], None]
) -> None:
    """Write the missing files of one pass, all at the same time."""
    with contextlib.ExitStack() as files:
        add = {
            index: files.enter_context(write_array(folder, key, len(one.canvases)))
            for index, key in enumerate(one.keys)
            if key in missing
        }
        for canvas in one.canvases:
            on_step()
            rows = compute(canvas, one.mirrored)
            for index, write in add.items():
                write(rows[index])


def _make_room(folder: Path, needed: dict[str, int], missing: set[str]) -> None:
    """Delete the least recently used files until the missing ones have room.

    `needed` gives the size in bytes of each needed file; these are not deleted. Raises OSError if
    there is too little room for all of them.
    """
    if problem := space_problem(folder, sum(needed.values())):
        raise OSError(problem)
    files = _files(folder)
    wanted = sum(needed[key] for key in missing)
    used = sum(file.st_size for file in files.values())
    free = shutil.disk_usage(folder).free
    for path, file in sorted(files.items(), key=lambda item: item[1].st_mtime):
        if used + wanted <= MAX_BYTES and wanted <= MAX_DISK_FRACTION * free:
            break
        if key_of(path) not in needed:
            path.unlink(missing_ok=True)  # a process that maps the file can still read it
            used -= file.st_size
            free += file.st_size


def _files(folder: Path) -> dict[Path, os.stat_result]:
    files = {}
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another process deleted it to make room
            files[file] = file.stat()
    return files
