"""`unfreeze init`: a search.yaml that can be run as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Data, InputError
from trainer.data.loading import load
from trainer.model.detectors import is_coco

from .init_helpers import data_of, init_config, resize_pictures


@pytest.fixture
def dataset(tiny_data: Data, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the tiny data set in a folder of this name."""

    def make(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(tiny_data.train.parent, place)
        return place

    return make


def test_the_file_runs_as_it_is(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    config, said = init_config(place)
    assert config.name == "cells"
    assert data_of(config).train == place / "train.json"
    assert data_of(config).images == place / "images"
    assert set(config.space) >= {"train.unfreeze.depth", "train.unfreeze.lr"}
    assert config.train.unfreeze.batch_size == 4  # few pictures
    assert said[-1] == "  unfreeze search search.yaml"
    text = Path("search.yaml").read_text()
    assert text.startswith("# 2 classes: red, blue\n# train 12 pictures, ")
    assert 'train: "cells/train.json"' in text


def test_a_single_json_is_enough(dataset: Callable[[str], Path]) -> None:
    config, said = init_config(dataset("cells") / "train.json")
    assert data_of(config).val is None
    assert any("no val given" in line for line in said)


def test_the_folders_of_pictures_that_were_given_are_init_config(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("cells")
    elsewhere = (place / "images").rename(tmp_path / "elsewhere")
    assert data_of(init_config(place, images=["elsewhere"])[0]).images == elsewhere
    assert 'images: "elsewhere"' in Path("search.yaml").read_text()
    each = [f"{split}={elsewhere}" for split in ("train", "val")]
    config, _ = init_config(place, Path("each.yaml"), each)
    assert data_of(config).images == elsewhere
    copied = shutil.copytree(elsewhere, tmp_path / "other")
    config, _ = init_config(place, Path("two.yaml"), [f"train={copied}", f"val={elsewhere}"])
    assert data_of(config).images == {"train": copied, "val": elsewhere}


def test_the_file_for_another_tools_layout_runs_too(dataset: Callable[[str], Path]) -> None:
    place = dataset("cvat")
    for split, subset in (("train", "Train"), ("val", "Validation")):
        (place / "annotations").mkdir(exist_ok=True)
        file = place / "annotations" / f"instances_{subset}.json"
        (place / f"{split}.json").rename(file)
        for image in json.loads(file.read_text())["images"]:
            (place / "images" / subset).mkdir(exist_ok=True)
            picture = place / "images" / image["file_name"]
            picture.rename(place / "images" / subset / image["file_name"])
    config, _ = init_config(place)
    subsets = {"train": "Train", "val": "Validation"}
    assert data_of(config).images == {s: place / "images" / name for s, name in subsets.items()}
    splits = load(config.data, place.parent / "cache")
    assert (len(splits.train.pictures), len(splits.val.pictures)) == (12, 6)


@pytest.mark.parametrize("name", ["2024", "données", "no", "null", "1e3", "a b", "-x-", "x" * 120])
def test_a_search_can_be_named_after_any_folder(dataset: Callable[[str], Path], name: str) -> None:
    config, _ = init_config(dataset(name))
    assert config.name


def test_a_search_is_named_after_its_file_where_that_says_something(
    dataset: Callable[[str], Path],
) -> None:
    assert init_config(dataset("cells"), Path("deep.yaml"))[0].name == "deep"


def test_data_elsewhere_is_named_by_its_absolute_path(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("cells")
    out = tmp_path / "project" / "search.yaml"
    out.parent.mkdir()
    assert data_of(init_config(place, out)[0]).train == place / "train.json"


def test_an_existing_file_is_kept(dataset: Callable[[str], Path]) -> None:
    Path("search.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"search\.yaml is there already"):
        init_config(dataset("cells"))
    assert Path("search.yaml").read_text() == "mine"


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_nothing_is_written_where_there_is_no_data(place: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(InputError):
        init_config(Path(place))
    assert not Path("search.yaml").exists()


def test_class_names_do_not_break_the_file(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    for split in ("train", "val"):
        file = place / f"{split}.json"
        content: dict[str, Any] = json.loads(file.read_text())
        content["categories"][0]["name"] = "red\nname: {odd}"
        file.write_text(json.dumps(content))
    assert init_config(place)[0].name == "cells"


def test_with_a_gpu_training_starts_from_coco(
    dataset: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = dataset("cells")
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        config, _ = init_config(place)
    assert config.model.weights == "coco"
    assert is_coco(config.model)
    low, high = config.space["train.unfreeze.lr"]["log"]
    assert low < config.train.unfreeze.lr < high < 2e-3
    config, _ = init_config(place, Path("cpu.yaml"))
    assert (config.model.backbone, config.model.weights) == ("tf_efficientnet_lite0", "imagenet")


@pytest.mark.parametrize(("count", "detections"), [(100, 100), (101, 200), (204, 300)])
def test_as_many_boxes_are_kept_as_a_picture_has_objects(
    dataset: Callable[[str], Path], count: int, detections: int
) -> None:
    place = dataset("cells")
    resize_pictures(place, (300, 300), 12, count)
    config, _ = init_config(place)
    assert config.model.detections == detections
    line = f"  detections: {detections}            # boxes kept of a picture; one here has {count}"
    assert (line in Path("search.yaml").read_text()) == (count > 100)


def test_names_and_paths_with_any_letter_give_valid_yaml(
    dataset: Callable[[str], Path],
) -> None:
    place = dataset('we"ird \\n $x\x1b')
    for file in place.glob("*.json"):
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = "red\n\x1b]0;x\x07\x85evil: true"
        file.write_text(json.dumps(content))
    config, _ = init_config(place)
    assert data_of(config).train == place / "train.json"
    first = Path("search.yaml").read_text().splitlines()[0]
    assert first == r"# 2 classes: red\n\x1b]0;x\x07\x85evil: true, blue"
