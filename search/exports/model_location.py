"""MODEL on the command line: an exported folder, one of its files, or a search's name."""

from pathlib import Path

from trainer.config import InputError
from trainer.export.bundle import export_folder
from trainer.export.conversion import PORTABLE_FILES
from trainer.model.weights import SPEC_FILE, WEIGHTS_FILE

from ..space.locations import WINNER


def find_model(model: str, storage: Path) -> Path:
    """The exported folder, or the one file of such a folder, that MODEL names.

    Raises:
        InputError: It names neither; the message says where they were looked for.
    """
    folder = Path(model)
    if not model:
        raise InputError(["MODEL is empty: give a search's name or an exported folder"])
    if folder.is_file() and folder.name in {WEIGHTS_FILE, *PORTABLE_FILES.values()}:
        return folder
    if (folder / SPEC_FILE).is_file():
        return folder
    winner = storage / model / WINNER
    if (winner / SPEC_FILE).is_file():
        return winner
    if (storage / model).is_dir():
        raise InputError([f"{model}: the search in {storage / model} has no winner yet"])
    raise InputError([f"{model}: neither an exported folder nor a search in {storage}"])


def name_of(model: str) -> str:
    """The name of MODEL: of a search's winner the search's, else its folder's."""
    folder = export_folder(Path(model).resolve())
    return folder.parent.name if folder.name == WINNER else folder.name
