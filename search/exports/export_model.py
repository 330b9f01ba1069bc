"""`unfreeze export`: a winner or a trial in a new folder, in one of three formats."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer.config import InputError
from trainer.data.canvas import cache_folder
from trainer.data.dataset import Picture
from trainer.data.loading import load
from trainer.export.bundle import (
    METRICS_FILE,
    export,
    export_folder,
    load_export,
    write_digest,
    write_thresholds,
)
from trainer.export.card import write_card
from trainer.export.conversion import PORTABLE_FILES, write_portable
from trainer.model.checkpoint import BEST
from trainer.model.weights import SPEC_FILE

from ..space.locations import trial_folder
from ..study.reading import load_study, read_search_config
from .evaluate import evaluate_model
from .model_data import load_named_split
from .model_location import find_model, name_of
from .output_folder import CONTENT, new_export
from .trial_config import config_of


def export_model(
    model: str,
    trial: int | None,
    format: str,
    storage: Path,
    out: Path,
    *,
    data: Path | None = None,
    allow: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Write a model to a new folder, completely or not at all.

    Args:
        model: MODEL, see `find_model`.
        trial: Number of the trial whose best checkpoint is exported; None exports the winner.
        format: `safetensors`, `onnx` or `pt2`.
        storage: The folder that holds the searches.
        out: The new folder.
        data: DATA with pictures of val, to compare a one-file format with its original on. None
            takes the data of the search that the model lies in.
        allow: Codes of findings in the data that are allowed.
        force: Replace an export that `out` holds.

    Raises:
        InputError: A model, trial or data set that does not exist, or an `out` that may not be
            written.
    """
    with new_export(out, force) as part:
        source = export_folder(find_model(model, storage)) if trial is None else part / "trial"
        if source.resolve() == out.resolve():
            raise InputError([f"--out {out} is the model itself; choose another folder"])
        if trial is not None:
            _export_trial(model, trial, storage, source)
        content = part / CONTENT
        if format == "safetensors":
            shutil.copytree(source, content)
            return
        content.mkdir()
        search = source.parent if trial is None else storage / model
        pictures = _val_pictures(model, search, data, allow)
        export_portable(source, format, content, pictures)
        write_card(content, name_of(model))


def export_portable(source: Path, format: str, folder: Path, pictures: tuple[Picture, ...]) -> None:
    """Write an export as one file, with its spec and figures, into a folder.

    Args:
        source: The export's folder.
        format: `onnx` or `pt2`.
        folder: An existing folder.
        pictures: The file and the export must detect the same on these.

    Raises:
        InputError: The export is damaged, or cannot be written in this format.
    """
    detector, spec = load_export(source)
    write_portable(detector, spec.config.model.image_size, format, folder, pictures)
    shutil.copy(source / SPEC_FILE, folder)
    write_thresholds(folder, spec.thresholds)  # the spec of the first version has none
    write_digest(folder / PORTABLE_FILES[format])
    if (source / METRICS_FILE).is_file():
        shutil.copy(source / METRICS_FILE, folder)


def _export_trial(name: str, trial: int, storage: Path, out: Path) -> None:
    """Export a trial's best checkpoint, with its figures on val."""
    config = read_search_config(name, storage)
    study = load_study(config)
    record = study.records.get(trial)
    if record is None:
        raise InputError([f"--trial {trial}: {name} has trials 0 to {len(study.records) - 1}"])
    categories = load(config.data, cache_folder(), config.folder).categories
    trial_config = config_of(config, record, study.precision)
    checkpoint = trial_folder(config.folder, trial) / BEST
    if not checkpoint.is_file():
        raise InputError(
            [f"--trial {trial}: its checkpoint was deleted, by `clean` or search.disk_cap"]
        )
    export(checkpoint, trial_config, categories, study.data_digest, out)
    evaluate_model(str(out), config.folder / "search.yaml", "val", storage, None)
    write_card(out, f"{name}, trial {trial}")


def _val_pictures(
    model: str, search: Path, data: Path | None, allow: Sequence[str]
) -> tuple[Picture, ...]:
    """Pictures of val: of DATA, else of the search."""
    place = data or search / "search.yaml"
    if data is None and not place.is_file():
        raise InputError(
            [f"{model} lies in no search: give --data DATA, to be compared on its val"]
        )
    return load_named_split(place, "val", allow).pictures
