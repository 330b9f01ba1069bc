"""MODEL on the command line: an exported folder or a search's name, and what is done with it."""

import json
import shutil
from pathlib import Path
from typing import Any

from trainer.checkpoint import BEST
from trainer.config import BadInput, parse
from trainer.data.canvas import cache_folder, open_picture
from trainer.data.dataset import Split, Splits
from trainer.data.formats import find, load, load_split
from trainer.evaluate import measure
from trainer.export import export, load_export, record_evaluation
from trainer.model.weights import SPEC
from trainer.predict import draw, find_pictures, predict, to_coco

from .check import find_data
from .config import SearchConfig, read_yaml, study_uri, trial_folder
from .results import config_of
from .space import read_space
from .study import Study, read_study


def find_model(model: str, storage: Path) -> Path:
    """The exported folder that MODEL names. Raises BadInput saying where was looked."""
    folder = Path(model)
    if (folder / SPEC).is_file():
        return folder
    winner = storage / model / "winner"
    if (winner / SPEC).is_file():
        return winner
    if (storage / model).is_dir():
        raise BadInput([f"{model}: the search in {storage / model} has no winner yet"])
    raise BadInput([f"{model}: neither an exported folder nor a search in {storage}"])


def read_search(name: str, storage: Path) -> SearchConfig:
    """The resolved config of a search. Raises BadInput when there is none of this name."""
    file = storage / name / "search.yaml"
    if not file.is_file():
        known = sorted(f.parent.name for f in storage.glob("*/search.yaml"))
        raise BadInput([f"no search {name} in {storage}; there: {', '.join(known) or 'none'}"])
    config = parse(SearchConfig, read_yaml(file))
    # a folder that was moved since holds its search all the same
    return config.model_copy(update={"storage": storage.resolve()})


def begun_study(config: SearchConfig) -> Study:
    """The study of a search that was begun, for reading. Raises BadInput when it is not there."""
    # what the search's folder says counts: a URL in the environment may be for another search
    uri = study_uri(config) if config.study else None
    try:
        return read_study(config.folder, config.name, uri)
    except FileNotFoundError as error:
        raise BadInput([str(error)]) from error


def export_model(model: str, trial: int | None, storage: Path, out: Path) -> None:
    """Write the winner, or one trial's best checkpoint, to a new folder. Raises BadInput."""
    if out.exists():
        raise BadInput([f"{out} is there already; choose another folder"])
    if trial is None:
        shutil.copytree(find_model(model, storage), out)
        return
    config = read_search(model, storage)
    study = begun_study(config)
    record = study.records.get(trial)
    if record is None:
        raise BadInput([f"--trial {trial}: {model} has trials 0 to {len(study.records) - 1}"])
    categories = load(config.data, cache_folder(), config.folder).categories
    trial_config = config_of(config, read_space(config.space), record, study.get("precision"))
    checkpoint = trial_folder(config.folder, trial) / BEST
    if not checkpoint.is_file():
        raise BadInput([f"--trial {trial}: its checkpoint is not kept; see search.disk_cap"])
    export(checkpoint, trial_config, categories, study.get("data"), out)


def load_data(place: Path) -> Splits:
    """The data set that DATA names, see `find_data`; of a search's own YAML with its own split."""
    return load(find_data(place), cache_folder(), place.parent)


def evaluate_model(
    model: str, place: Path, name: str, storage: Path, detections: Path | None
) -> dict[str, Any]:
    """The COCO figures of a model on a split, in fp32, picture by picture; kept beside it."""
    folder = find_model(model, storage)
    if detections is not None and not detections.resolve().parent.is_dir():
        raise BadInput([f"--detections {detections}: there is no folder {detections.parent}"])
    detector, spec = load_export(folder)
    split = _split(place, name)
    ours, theirs = spec.categories, split.categories
    if [(c.id, c.name) for c in ours] != [(c.id, c.name) for c in theirs]:
        raise BadInput(
            [f"{place}: its classes ({_names(theirs)}) are not the model's ({_names(ours)})"]
        )
    metrics, results = measure(detector, split, spec.config.model.image_size)
    if detections is not None:
        detections.write_text(json.dumps(results))
    record_evaluation(folder, split, metrics)
    return {"figures": metrics.figures, "per_class": metrics.per_class}


def _split(place: Path, name: str) -> Split:
    only_file = place.suffix == ".json"
    if only_file:  # one COCO json is the split that was asked for, whole
        return load_split(find(place), name, cache_folder())
    split: Split | None = getattr(load_data(place), name)
    if split is None:
        raise BadInput([f"{place}: has no {name} split"])
    return split


def _names(categories: Any) -> str:
    return ", ".join(f"{category.id} {category.name}" for category in categories)


def predict_pictures(
    model: str, places: list[Path], storage: Path, out: Path, threshold: float
) -> list[str]:
    """Write pictures with boxes and `detections.json`; returns a line a picture not readable."""
    files = find_pictures(places)
    detector, spec = load_export(find_model(model, storage))
    if any(file.resolve().parent == out.resolve() for file in files):
        raise BadInput([f"--out {out} holds the pictures themselves; choose another folder"])
    out.mkdir(parents=True, exist_ok=True)
    images, annotations, unreadable = [], [], []
    taken: set[str] = set()
    for number, file in enumerate(files, start=1):
        try:
            picture = open_picture(file)
        except BadInput as error:
            unreadable += error.errors
            continue
        size = spec.config.model.image_size
        found = predict(detector, spec.categories, picture, size, threshold)
        draw(picture, found).save(out / _free_name(file, taken))
        images.append(
            {"id": number, "file_name": str(file), "width": picture.width, "height": picture.height}
        )
        annotations += list(to_coco(number, found))
    content = {
        "images": images,
        "categories": [{"id": c.id, "name": c.name} for c in spec.categories],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
    }
    (out / "detections.json").write_text(json.dumps(content, indent=1))
    return unreadable


def _free_name(file: Path, taken: set[str]) -> str:
    """A name for a drawn picture that no other has, though folders may hold equal names."""
    name, n = f"{file.stem}.png", 1
    while name in taken:
        n += 1
        name = f"{file.stem}-{n}.png"
    taken.add(name)
    return name
