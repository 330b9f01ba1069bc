"""`unfreeze init`: a search.yaml that can be run as it is."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from search.commands.init import write_search
from search.space.config import SearchConfig
from search.space.config_file import read
from search.space.validation import resolve
from trainer.config import BadInput, Data
from trainer.data.loading import load
from trainer.model.detectors import is_coco

Write = Callable[..., SearchConfig]


@pytest.fixture
def dataset(tiny_data: Data, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the tiny data set in a folder of this name."""

    def make(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(tiny_data.train.parent, place)
        return place

    return make


def written(
    place: Path, out: Path = Path("search.yaml"), images: Sequence[str] = ()
) -> tuple[SearchConfig, list[str]]:
    """What init wrote, as a search reads it, and what it said."""
    said: list[str] = []
    write_search(place, out, said.append, images=images)
    return resolve(read(out, []), out.parent), said


def test_what_it_writes_runs_as_it_is(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    config, said = written(place)
    assert config.name == "cells"
    assert config.data.train == place / "train.json"
    assert config.data.images == place / "images"
    assert set(config.space) >= {"train.unfreeze.depth", "train.unfreeze.lr"}
    assert config.train.unfreeze.batch_size == 4  # few pictures
    assert said[-1] == "  unfreeze search search.yaml"
    text = Path("search.yaml").read_text()
    assert text.startswith("# 2 classes: red, blue\n# train 12 pictures, ")
    assert 'train: "cells/train.json"' in text


def test_a_single_json_is_enough(dataset: Callable[[str], Path]) -> None:
    config, said = written(dataset("cells") / "train.json")
    assert config.data.val is None
    assert any("no val given" in line for line in said)


def test_the_folders_of_pictures_that_were_given_are_written(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("cells")
    elsewhere = (place / "images").rename(tmp_path / "elsewhere")
    assert written(place, images=["elsewhere"])[0].data.images == elsewhere
    assert 'images: "elsewhere"' in Path("search.yaml").read_text()
    each = [f"{split}={elsewhere}" for split in ("train", "val")]
    config, _ = written(place, Path("each.yaml"), each)
    assert config.data.images == elsewhere
    copied = shutil.copytree(elsewhere, tmp_path / "other")
    config, _ = written(place, Path("two.yaml"), [f"train={copied}", f"val={elsewhere}"])
    assert config.data.images == {"train": copied, "val": elsewhere}


def test_what_it_writes_of_another_tools_layout_runs_too(dataset: Callable[[str], Path]) -> None:
    place = dataset("cvat")
    for split, subset in (("train", "Train"), ("val", "Validation")):
        (place / "annotations").mkdir(exist_ok=True)
        file = place / "annotations" / f"instances_{subset}.json"
        (place / f"{split}.json").rename(file)
        for image in json.loads(file.read_text())["images"]:
            (place / "images" / subset).mkdir(exist_ok=True)
            picture = place / "images" / image["file_name"]
            picture.rename(place / "images" / subset / image["file_name"])
    config, _ = written(place)
    subsets = {"train": "Train", "val": "Validation"}
    assert config.data.images == {s: place / "images" / name for s, name in subsets.items()}
    splits = load(config.data, place.parent / "cache")
    assert (len(splits.train.pictures), len(splits.val.pictures)) == (12, 6)


@pytest.mark.parametrize("name", ["2024", "données", "no", "null", "1e3", "a b", "-x-", "x" * 120])
def test_a_search_can_be_named_after_any_folder(dataset: Callable[[str], Path], name: str) -> None:
    config, _ = written(dataset(name))
    assert config.name


def test_a_search_is_named_after_its_file_where_that_says_something(
    dataset: Callable[[str], Path],
) -> None:
    assert written(dataset("cells"), Path("deep.yaml"))[0].name == "deep"


def test_data_elsewhere_is_named_by_its_whole_path(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("cells")
    out = tmp_path / "project" / "search.yaml"
    out.parent.mkdir()
    assert written(place, out)[0].data.train == place / "train.json"


def test_it_overwrites_nothing(dataset: Callable[[str], Path]) -> None:
    Path("search.yaml").write_text("mine")
    with pytest.raises(BadInput, match="search.yaml is there already"):
        written(dataset("cells"))
    assert Path("search.yaml").read_text() == "mine"


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_nothing_is_written_where_there_is_no_data(place: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(BadInput):
        written(Path(place))
    assert not Path("search.yaml").exists()


def test_class_names_do_not_break_the_file(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    for split in ("train", "val"):
        file = place / f"{split}.json"
        content: dict[str, Any] = json.loads(file.read_text())
        content["categories"][0]["name"] = "red\nname: {odd}"
        file.write_text(json.dumps(content))
    assert written(place)[0].name == "cells"


def test_where_there_is_a_gpu_it_starts_from_coco(
    dataset: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = dataset("cells")
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        config, _ = written(place)
    assert config.model.weights == "coco"
    assert is_coco(config.model)
    low, high = config.space["train.unfreeze.lr"]["log"]
    assert low < config.train.unfreeze.lr < high < 2e-3
    config, _ = written(place, Path("cpu.yaml"))
    assert (config.model.backbone, config.model.weights) == ("tf_efficientnet_lite0", "imagenet")


def resized(place: Path, size: tuple[int, int], side: int, count: int = 1) -> None:
    """Make the pictures of train as large, with so many square objects of this side on each."""
    content: dict[str, Any] = json.loads((place / "train.json").read_text())
    for image in content["images"]:
        image["width"], image["height"] = size
        picture = Image.new("L", size)
        picture.putpixel((image["id"] % 50, 0), 255)
        picture.save(place / "images" / image["file_name"])
    content["annotations"] = [
        {
            "id": 1000 * image["id"] + i,
            "image_id": image["id"],
            "category_id": (3, 7)[image["id"] % 2],
            "bbox": [(side + 1) * (i % 20), (side + 1) * (i // 20), side, side],
        }
        for image in content["images"]
        for i in range(count)
    ]
    (place / "train.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("side", "size", "told"),
    [
        (12, 352, "image_size is 352: on 320 px 12 of 21 objects would have a side under 2 pixels"),
        (5, 800, "a step takes about 6.2 times as long"),
        (3, 320, "on a canvas of 320 px 12 of 21 objects .* 1334 px, .* too slow .* into tiles"),
        (13, 320, ""),
    ],
)
def test_the_canvas_shows_the_objects_or_it_is_said_why_not(
    dataset: Callable[[str], Path], side: int, size: int, told: str
) -> None:
    place = dataset("cells")
    resized(place, (2000, 30), side)
    config, said = written(place)
    assert config.model.image_size == size
    about = [line for line in said if "pixels" in line]
    assert len(about) == bool(told)
    assert all(re.search(told, line) for line in about)
    assert not any("box-vanishing" in line for line in said)


def test_a_few_that_vanish_are_told_and_change_nothing(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    resized(place, (700, 400), 9, count=20)
    content = json.loads((place / "train.json").read_text())
    content["annotations"][0]["bbox"] = [0, 0, 9, 4]
    (place / "train.json").write_text(json.dumps(content))
    config, said = written(place)
    assert config.model.image_size == 320
    assert [line for line in said if "pixels" in line] == [
        "on a canvas of 320 px 1 of 249 objects have a side under 2 pixels: too few to pay for a "
        "larger one"
    ]


@pytest.mark.parametrize(("count", "detections"), [(100, 100), (101, 200), (204, 300)])
def test_as_many_boxes_are_found_as_a_picture_has(
    dataset: Callable[[str], Path], count: int, detections: int
) -> None:
    place = dataset("cells")
    resized(place, (300, 300), 12, count)
    config, _ = written(place)
    assert config.model.detections == detections
    line = f"  detections: {detections}            # boxes found of a picture; one here has {count}"
    assert (line in Path("search.yaml").read_text()) == (count > 100)


def test_names_and_paths_with_any_letter_give_a_yaml_that_can_be_read(
    dataset: Callable[[str], Path],
) -> None:
    place = dataset('we"ird \\n $x\x1b')
    for file in place.glob("*.json"):
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = "red\n\x1b]0;x\x07\x85evil: true"
        file.write_text(json.dumps(content))
    config, _ = written(place)
    assert config.data.train == place / "train.json"
    first = Path("search.yaml").read_text().splitlines()[0]
    assert first == r"# 2 classes: red\n\x1b]0;x\x07\x85evil: true, blue"
