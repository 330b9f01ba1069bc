"""Each split is read with its pictures, and the classes of all splits are merged."""

from pathlib import Path

from PIL import Image

from trainer.config import Data
from trainer.data.formats.layouts import ROBOFLOW, find_layout
from trainer.data.loading import load

from ..small_sets import CACHE, Coco, coco, draw, errors_of, rewrite, write


def test_sizes_are_as_seen_whatever_the_json_says(data: Data, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", exif=exif)
    rewrite(data.train, lambda c: c["images"][1].update(width=999, height=1))
    allowing = data.model_copy(update={"allow": ["size-wrong"]})
    first, second = load(allowing, CACHE).train.pictures
    assert (first.width, first.height) == (10, 20)
    assert (second.width, second.height) == (20, 10)


def test_pictures_lie_beside_the_json_in_images_or_where_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "train.json", coco(["a.png"]))
    write(tmp_path / "val.json", coco(["b.png"]))
    data = Data(train=tmp_path / "train.json", val=tmp_path / "val.json")
    draw(tmp_path / "images", "a.png")
    draw(tmp_path, "b.png")
    beside = load(data, CACHE)
    assert beside.train.pictures[0].file == (tmp_path / "images" / "a.png").resolve()
    draw(tmp_path / "one", "a.png", "b.png")
    one = load(data.model_copy(update={"images": tmp_path / "one"}), CACHE)
    assert one.val.pictures[0].file.parent.name == "one"
    draw(tmp_path / "two", "b.png")
    folders = {"train": tmp_path / "one", "val": tmp_path / "two"}
    two = load(data.model_copy(update={"images": folders}), CACHE)
    assert [s.pictures[0].file.parent.name for s in (two.train, two.val)] == ["one", "two"]


def test_an_unused_class_that_is_no_root_stays(data: Data) -> None:
    rewrite(data.train, lambda c: c["categories"].append({"id": 9, "name": "rare"}))
    assert [c.id for c in load(data, CACHE).categories] == [3, 7, 9]
    rewrite(data.train, lambda c: c["categories"][-1].update(supercategory="rare"))
    assert [c.id for c in load(data, CACHE).categories] == [3, 7, 9]


def test_a_category_that_splits_name_differently_is_reported(data: Data) -> None:
    rewrite(data.val, lambda c: c["categories"][0].update(name="green"))
    (error,) = errors_of(data)
    assert "7" in error and "blue" in error and "green" in error


def test_a_category_is_its_text_however_that_is_composed(data: Data) -> None:
    for file, name in ((data.train, "Ge\u0301nois"), (data.val, "G\u00e9nois")):

        def rename(content: Coco, name: str = name) -> None:
            content["categories"][0].update(name=name)

        rewrite(file, rename)
    assert [c.name for c in load(data, CACHE).categories] == ["red", "Ge\u0301nois"]


def test_a_category_id_given_twice_is_reported(data: Data) -> None:
    rewrite(data.train, lambda c: c["categories"].append({"id": 3, "name": "green"}))
    assert any("categor" in error and "3" in error for error in errors_of(data))


def test_a_root_with_boxes_stays(roboflow: Path) -> None:
    extra = {"id": 9, "image_id": 10, "category_id": 0, "bbox": [1, 1, 5, 5]}
    rewrite(roboflow / "train" / ROBOFLOW, lambda c: c["annotations"].append(extra))
    splits = load(find_layout(roboflow), CACHE)
    assert [c.id for c in splits.categories] == [0, 1, 2]
    assert not [note for note in splits.notes if "root" in note]


def test_annotations_that_cannot_be_looked_up_are_reported(data: Data, tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    long = tmp_path / f"{'a' * 300}.json"
    behind, too_long = errors_of(data.model_copy(update={"train": loop, "val": long}))
    assert behind.startswith("data.train: file-unreadable: ") and "symbolic links" in behind
    assert too_long.startswith("data.val: file-unreadable: ") and "name too long" in too_long
