"""The folder that `--out` names: written completely, or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainer.config import InputError
from trainer.model.weights import SPEC_FILE

CONTENT = "content"
"""Name of the folder that becomes `out`, within the temporary one."""
BEFORE = "before"
"""Name of the earlier export, within the temporary folder, while it is replaced."""


@contextlib.contextmanager
def new_export(out: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside `out`. Its folder `content` becomes `out` at the end.

    With `force` an earlier export is replaced. A process that was killed while it replaced one left
    the earlier export in the temporary folder; it is put back first.

    Raises:
        InputError: `out` exists, is not an export, or cannot be written.
    """
    part = _temporary(out)
    before = part / BEFORE
    if before.exists() and not out.exists():
        before.rename(out)
    if out.exists():
        if not force:
            raise InputError([f"{out} exists already; choose another folder, or --force"])
        if not (out / SPEC_FILE).is_file() and not (out.is_dir() and not any(out.iterdir())):
            raise InputError([f"{out} is no export: --force does not replace it"])
    _make_empty(part, out)
    try:
        yield part
        if out.exists():
            out.rename(before)
        (part / CONTENT).rename(out)
    finally:
        if before.exists() and not out.exists():
            before.rename(out)
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def filled_folder(out: Path, force: bool) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end; with `force` its files go into `out`.

    Raises:
        InputError: `out` exists, or cannot be written.
    """
    if out.exists() and not (force and out.is_dir()):
        hint = "choose another folder, or --force" if out.is_dir() else "choose a folder"
        raise InputError([f"{out} exists already; {hint}"])
    part = _temporary(out)
    _make_empty(part, out)
    try:
        yield part
        if out.exists():
            for file in part.iterdir():
                file.replace(out / file.name)
        else:
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _temporary(out: Path) -> Path:
    return out.absolute().with_name(f".{out.absolute().name}.part")


def _make_empty(part: Path, out: Path) -> None:
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError([f"--out {out} cannot be written ({error.strerror})"]) from error
