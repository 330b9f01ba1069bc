"""Which pictures are meant, which boxes count, and how they are drawn."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.Image import Transpose
from torch import Tensor

from trainer.config import InputError
from trainer.data.canvas import open_picture
from trainer.data.dataset import Category
from trainer.evaluation.drawing import draw
from trainer.evaluation.predict import find_pictures, predict
from trainer.model.heads import Detections

RED, BLUE = Category(3, "red"), Category(7, "blue")


def two_boxes(pictures: Tensor) -> Detections:
    corners = torch.tensor([[0.0, 0.0, 20.0, 20.0], [10.0, 10.0, 96.0, 96.0]])
    return [{"boxes": corners, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.4])}]


def test_files_folders_and_patterns_are_listed_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = find_pictures([tmp_path / "b.png", tmp_path, tmp_path / "*" / "*.png"])
    assert [file.name for file in files] == ["b.png", "a.JPG", "c.png"]


def test_what_begins_with_a_dot_is_no_picture_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".hidden/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for place in (tmp_path, tmp_path / "**" / "*.png"):
        assert find_pictures([place]) == [tmp_path / "a.png"]


def test_a_link_to_nowhere_is_listed_and_a_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    for place in (tmp_path, tmp_path / "*.png"):
        assert find_pictures([place]) == [tmp_path / "gone.png"]


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert find_pictures([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]


@pytest.mark.parametrize("place", ["*.png", "nothing.png"])
def test_a_place_without_pictures_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=place.replace("*", r"\*")):
        find_pictures([tmp_path / place])


def test_a_threshold_is_one_or_one_a_class() -> None:
    picture = Image.new("RGB", (192, 96))
    both = predict(two_boxes, (RED, BLUE), picture, 96, {"red": 0.95, "blue": 0.3})
    assert [box.category for box in both] == [BLUE]
    assert both[0].xywh == (20, 20, 172, 76)  # clipped to the picture
    assert [box.category for box in predict(two_boxes, (RED, BLUE), picture, 96, 0.5)] == [RED]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_the_picture_as_seen(tmp_path: Path, orientation: int) -> None:
    def red(pictures: Tensor) -> Detections:
        down, across = (pictures[0, 0] > 200).nonzero().T
        corners = [across.min(), down.min(), across.max() + 1, down.max() + 1]
        scores, labels = torch.ones(1), torch.ones(1, dtype=torch.int64)
        boxes = torch.tensor([[float(corner) for corner in corners]])
        return [{"boxes": boxes, "labels": labels, "scores": scores}]

    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = Image.new("RGB", (40, 20))
    seen.paste("red", (4, 6, 12, 16))
    plain = [Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM]
    turned = [Transpose.TRANSPOSE, Transpose.ROTATE_90, Transpose.TRANSVERSE, Transpose.ROTATE_270]
    stored = seen if orientation == 1 else seen.transpose([*plain, *turned][orientation - 2])
    for name, mode in (("a.tiff", "RGB"), ("b.tiff", "RGBA"), ("c.png", "RGB")):
        stored.convert(mode).save(tmp_path / name, exif=exif)
        picture = open_picture(tmp_path / name)
        (box,) = predict(red, (RED,), picture, 40, 0.5)
        assert (box.xywh, draw(picture, [], enlarge=False).size) == ((4, 6, 8, 10), (40, 20))


def test_a_folders_pictures_are_of_every_format_that_is_trained_on(tmp_path: Path) -> None:
    names = ["a.jfif", "b.AVIF", "c.jp2", "d.ppm", "e.mpo", "f.tif"]
    for name in (*names, "g.txt", "h.svg"):
        (tmp_path / name).touch()
    assert [file.name for file in find_pictures([tmp_path])] == names
