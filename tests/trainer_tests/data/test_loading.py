"""Loading raises every error at once, and splits val off if none is given."""

from errno import EACCES
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.config import Data, InputError
from trainer.data.dataset import Splits
from trainer.data.loading import SPLITS_FILE, load, load_split

from .small_sets import CACHE, coco, draw, errors_of, rewrite, write


def test_crowds_are_marked(data: Data) -> None:
    rewrite(data.train, lambda c: c["annotations"][0].update(iscrowd=1))
    assert load(data, CACHE).train.pictures[0].crowd.tolist() == [True, False]


def test_a_picture_without_boxes_stays(data: Data) -> None:
    rewrite(data.train, lambda c: c.update(annotations=c["annotations"][2:]))
    picture = load(data, CACHE).train.pictures[0]
    assert (picture.boxes.shape, picture.labels.shape) == ((0, 4), (0,))


def many(folder: Path, reverse: bool) -> Splits:
    names = draw(folder, *(f"{i}.png" for i in range(40)))
    file = write(folder / "train.json", coco(names[::-1] if reverse else names))
    return load(Data(train=file, val_fraction=0.25), CACHE)


def test_without_val_a_part_of_train_is_taken_by_content(tmp_path: Path) -> None:
    here, there = many(tmp_path / "here", False), many(tmp_path / "there", True)
    sides = [
        [{picture.file.name for picture in split.pictures} for split in (s.train, s.val)]
        for s in (here, there)
    ]
    assert sides[0] == sides[1]
    assert len(sides[0][0]) + len(sides[0][1]) == 40
    assert len(sides[0][1]) == 10
    assert here.val_is_from_train
    assert here.notes[-1].startswith("no val given: 10 of the pictures")


def test_one_picture_alone_cannot_be_split(tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", coco(draw(tmp_path, "a.png")))
    assert "val" in errors_of(Data(train=file))[0]


def test_a_file_that_is_not_there_or_no_text_is_reported(data: Data, tmp_path: Path) -> None:
    data.train.write_bytes(b"\xff\xfe{}")
    gone = data.model_copy(update={"val": tmp_path / "gone.json"})
    unreadable, missing = errors_of(gone)
    assert (
        f"data.val: file-missing: files or folders that do not exist: {tmp_path / 'gone.json'}"
        in missing
    )
    assert "data.train: file-unreadable: " in unreadable and "is UTF-16" in unreadable


def test_errors_of_all_files_are_reported_at_once(data: Data, tmp_path: Path) -> None:
    rewrite(data.train, lambda c: c["annotations"][0].update(category_id=99))
    rewrite(data.train, lambda c: c["images"][1].update(file_name="gone.png"))
    rewrite(data.val, lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]))
    errors = errors_of(data)
    assert len(errors) == 3
    assert [error.partition(":")[0] for error in errors] == ["data.train", "data.train", "data.val"]


def test_a_file_that_is_no_picture_is_reported(data: Data, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    (error,) = errors_of(data)
    assert error.startswith("data.train: ") and "b.png" in error


def test_a_file_alone_is_reported_as_the_split_that_it_is(data: Data, tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"^data\.test: picture-missing"):
        load_split(Data(train=data.train), "test", tmp_path / "cache")


def test_the_tiny_set_is_read_completely(tiny: Splits) -> None:
    assert (len(tiny.train.pictures), len(tiny.val.pictures)) == (12, 6)
    labels = np.concatenate([picture.labels for picture in tiny.train.pictures])
    assert set(labels.tolist()) == {1, 2}


def test_a_kept_split_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "train.json", coco(draw(tmp_path, "a.png", "b.png")))
    kept = tmp_path / SPLITS_FILE
    kept.touch()
    read_text = Path.read_text

    def refuse(file: Path, *settings: Any, **more: Any) -> str:
        if file == kept:  # tests may run as root, which may read everything
            raise PermissionError(EACCES, "Permission denied", str(file))
        return read_text(file, *settings, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError) as raised:
        load(Data(train=file), CACHE, tmp_path)
    assert raised.value.errors == [f"{kept}: cannot be read (Permission denied)"]
