"""MODEL on the command line: an exported folder or a search's name, and what is done with it."""

import contextlib
import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config import BadInput
from trainer.data.canvas import cache_folder, open_picture
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.formats.layouts import find
from trainer.data.loading import load, load_split
from trainer.evaluation.coco_metrics import measure
from trainer.evaluation.operating_point import best_thresholds
from trainer.evaluation.predict import draw, find_pictures, free_name, predict, to_coco
from trainer.export.bundle import (
    METRICS,
    export,
    folder_of,
    load_export,
    open_export,
    record_evaluation,
    write_digest,
    write_thresholds,
)
from trainer.export.card import write_card
from trainer.export.conversion import FILES, write_portable
from trainer.model.checkpoint import BEST, write_whole
from trainer.model.weights import SPEC, WEIGHTS

from ..ranking.results import config_of
from ..space.config import trial_folder
from ..space.data import allowing, find_data
from ..study.reading import begun_study, read_search

log = logging.getLogger(__name__)

UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
"""Of a model on a read-only mount, or somebody else's."""


def find_model(model: str, storage: Path) -> Path:
    """The exported folder, or the one file of one, that MODEL names.

    Raises BadInput saying where was looked.
    """
    folder = Path(model)
    if not model:
        raise BadInput(["MODEL is empty: give a search's name or an exported folder"])
    if folder.is_file() and folder.name in {WEIGHTS, *FILES.values()}:
        return folder
    if (folder / SPEC).is_file():
        return folder
    winner = storage / model / "winner"
    if (winner / SPEC).is_file():
        return winner
    if (storage / model).is_dir():
        raise BadInput([f"{model}: the search in {storage / model} has no winner yet"])
    raise BadInput([f"{model}: neither an exported folder nor a search in {storage}"])


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
    """Write the winner, or one trial's best checkpoint, to a new folder, whole or not at all.

    `data` is where a one-file format finds pictures to be compared on, if not in the search.
    Raises BadInput.
    """
    with _new_folder(out, force) as part:
        source = folder_of(find_model(model, storage)) if trial is None else part / "trial"
        if source.resolve() == out.resolve():
            raise BadInput([f"--out {out} is the model itself; choose another folder"])
        if trial is not None:
            _export_trial(model, trial, storage, source)
        made = part / "made"
        if format == "safetensors":
            shutil.copytree(source, made)
        else:
            made.mkdir()
            make_portable(
                source, format, made, _compared_on(source, model, trial, storage, data, allow)
            )
            write_card(made, _name_of(model))


def make_portable(source: Path, format: str, folder: Path, pictures: tuple[Picture, ...]) -> None:
    """Put an export's one file, spec and figures into a folder. Raises BadInput."""
    detector, spec = load_export(source)
    write_portable(detector, spec.config.model.image_size, format, folder, pictures)
    shutil.copy(source / SPEC, folder)
    write_thresholds(folder, spec.thresholds)  # an export of the first version has none
    write_digest(folder / FILES[format])
    if (source / METRICS).is_file():
        shutil.copy(source / METRICS, folder)


@contextlib.contextmanager
def _new_folder(out: Path, force: bool) -> Iterator[Path]:
    """A place to make `out` in, as its `made`. Raises BadInput where `out` may not be written."""
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    if (part / "before").exists() and not out.exists():  # killed between taking away and putting
        (part / "before").rename(out)
    if out.exists():
        if not force:
            raise BadInput([f"{out} is there already; choose another folder, or --force"])
        if not (out / SPEC).is_file() and not (out.is_dir() and not any(out.iterdir())):
            raise BadInput([f"{out} is no export: --force does not replace it"])
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise BadInput([f"--out {out} cannot be written ({error.strerror})"]) from error
    try:
        yield part
        if out.exists():
            out.rename(part / "before")
        (part / "made").rename(out)
    finally:
        if (part / "before").exists() and not out.exists():
            (part / "before").rename(out)
        shutil.rmtree(part, ignore_errors=True)


def _export_trial(name: str, trial: int, storage: Path, out: Path) -> None:
    """A trial's best checkpoint as an export, with its figures on val."""
    config = read_search(name, storage)
    study = begun_study(config)
    record = study.records.get(trial)
    if record is None:
        raise BadInput([f"--trial {trial}: {name} has trials 0 to {len(study.records) - 1}"])
    categories = load(config.data, cache_folder(), config.folder).categories
    trial_config = config_of(config, record, study.get("precision"))
    checkpoint = trial_folder(config.folder, trial) / BEST
    if not checkpoint.is_file():
        raise BadInput([f"--trial {trial}: its checkpoint is gone: `clean`, or search.disk_cap"])
    export(checkpoint, trial_config, categories, study.get("data"), out)
    evaluate_model(str(out), config.folder / "search.yaml", "val", storage, None)
    write_card(out, f"{name}, trial {trial}")


def _compared_on(
    source: Path,
    model: str,
    trial: int | None,
    storage: Path,
    data: Path | None,
    allow: Sequence[str],
) -> tuple[Picture, ...]:
    """Pictures of val: of DATA, else of the search that an export lies in."""
    search = source.parent if trial is None else storage / model
    place = data or search / "search.yaml"
    if data is None and not place.is_file():
        raise BadInput([f"{model} lies in no search: give --data DATA, to be compared on its val"])
    return _split(place, "val", allow).pictures


def _name_of(model: str) -> str:
    folder = folder_of(Path(model).resolve())
    return folder.parent.name if folder.name == "winner" else folder.name


def load_data(place: Path, allow: Sequence[str] = ()) -> Splits:
    """The data set that DATA names, see `find_data`; of a search's own YAML with its own split."""
    search = place.parent if place.name == "search.yaml" else None
    return load(allowing(find_data(place), allow), cache_folder(), search)


def evaluate_model(
    model: str,
    place: Path,
    name: str,
    storage: Path,
    detections: Path | None,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """The COCO figures of a model on a split, in fp32, picture by picture; kept beside it, where
    its folder can be written."""
    chosen = find_model(model, storage)
    folder = folder_of(chosen)
    if detections is not None and not detections.resolve().parent.is_dir():
        raise BadInput([f"--detections {detections}: there is no folder {detections.parent}"])
    found_in, spec = open_export(chosen)
    split = _split(place, name, allow)
    ours, theirs = spec.categories, split.categories
    if [(c.id, c.name) for c in ours] != [(c.id, c.name) for c in theirs]:
        raise BadInput(
            [f"{place}: its classes ({_names(theirs)}) are not the model's ({_names(ours)})"]
        )
    metrics, results = measure(
        found_in, split, spec.config.model.image_size, spec.config.model.detections
    )
    if detections is not None:
        write_whole(json.dumps(results).encode(), detections)
    try:
        record_evaluation(folder, split, metrics)
        if name == "val" and _is_its_own(place, spec.data, allow):
            write_thresholds(folder, best_thresholds(split, results))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        log.warning("%s does not keep these figures (%s)", folder, error.strerror)
    return asdict(metrics)


def _split(place: Path, name: str, allow: Sequence[str]) -> Split:
    only_file = place.suffix == ".json"
    if only_file:  # one COCO json is the split that was asked for, whole
        return load_split(allowing(find(place), allow), name, cache_folder())
    split: Split | None = getattr(load_data(place, allow), name)
    if split is None:
        raise BadInput([f"{place}: has no {name} split"])
    return split


def _is_its_own(place: Path, digest: str, allow: Sequence[str]) -> bool:
    """Whether DATA is what a model was trained on."""
    return place.suffix != ".json" and load_data(place, allow).digest == digest


def _names(categories: Any) -> str:
    return ", ".join(f"{category.id} {category.name}" for category in categories)


@dataclass(frozen=True)
class Predicted:
    """What came of some pictures."""

    pictures: int
    boxes: int
    unreadable: list[str]
    """A line for each picture that could not be read."""


def predict_pictures(
    model: str,
    places: list[Path],
    storage: Path,
    out: Path,
    threshold: float | None,
    *,
    force: bool = False,
    watch: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Predicted:
    """Write pictures with boxes and `detections.json`. Raises BadInput when none can be read.

    Without a threshold the model's own operating point counts. `watch` iterates over the files.
    """
    files = find_pictures(places)
    detect, spec = open_export(find_model(model, storage))
    if any(file.resolve().parent == out.resolve() for file in files):
        raise BadInput([f"--out {out} holds the pictures themselves; choose another folder"])
    images, annotations, unreadable = [], [], []
    taken: set[str] = set()
    least = spec.thresholds if threshold is None else threshold
    with _filled(out, force) as part:
        for number, file in enumerate(watch(files), start=1):
            try:
                picture = open_picture(file)
            except BadInput as error:
                unreadable += error.errors
                continue
            found = predict(detect, spec.categories, picture, spec.config.model.image_size, least)
            draw(picture, found).save(part / free_name(file, taken), quality=92)
            size = {"width": picture.width, "height": picture.height}
            images.append({"id": number, "file_name": str(file), **size})
            annotations += list(to_coco(number, found))
        if not images:
            raise BadInput([*unreadable, "none of the pictures can be read: nothing was written"])
        content = {
            "images": images,
            "categories": [{"id": c.id, "name": c.name} for c in spec.categories],
            "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        }
        write_whole(json.dumps(content, indent=1).encode(), part / "detections.json")
    return Predicted(len(images), len(annotations), unreadable)


@contextlib.contextmanager
def _filled(out: Path, force: bool) -> Iterator[Path]:
    """A folder that becomes `out`, or with `force` goes into it, once all is in it."""
    if out.exists() and not (force and out.is_dir()):
        hint = "choose another folder, or --force" if out.is_dir() else "choose a folder"
        raise BadInput([f"{out} is there already; {hint}"])
    part = out.absolute().with_name(f".{out.absolute().name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise BadInput([f"--out {out} cannot be written ({error.strerror})"]) from error
    try:
        yield part
        if out.exists():
            for file in part.iterdir():
                file.replace(out / file.name)
        else:
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
