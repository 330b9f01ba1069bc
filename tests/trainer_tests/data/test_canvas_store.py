"""The file of canvases that trials map: made once, checked, and removed when unused."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import PIL
import pytest

from trainer.config import Data, InputError
from trainer.data import canvas, canvas_store, pixels, shared_arrays
from trainer.data.canvas import letterbox
from trainer.data.canvas_store import (
    canvases_digest,
    canvases_folder,
    make_ahead,
    open_canvases,
)
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.loading import load, load_split

MakePicture = Callable[..., Picture]


MakeSplit = Callable[..., Split]


def test_a_store_holds_the_canvases_in_order(tiny: Splits, tmp_path: Path) -> None:
    store = open_canvases(tiny.val, 64, tmp_path)
    assert store.shape == (6, 64, 64, 3)
    for row, picture in zip(store, tiny.val.pictures, strict=True):
        assert (row == letterbox(picture, 64)).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, 0),
        lambda file: os.truncate(file, file.stat().st_size - 1),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["empty", "truncated", "flipped"],
)
def test_a_damaged_store_is_made_again(
    tiny: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
) -> None:
    before = open_canvases(tiny.val, 64, tmp_path).copy()
    (file,) = tmp_path.glob("*.npy")
    expected = file.read_bytes()
    monkeypatch.setattr(shared_arrays, "_checked", set())  # as another process finds it
    damage(file)
    assert (open_canvases(tiny.val, 64, tmp_path) == before).all()
    assert file.read_bytes() == expected


def test_canvases_that_nobody_opened_for_long_go_when_others_are_made(
    tiny: Splits, tmp_path: Path
) -> None:
    for size, age in ((64, canvas_store.UNUSED + 60), (80, canvas_store.UNUSED - 60)):
        made = set(tmp_path.glob("*.npy"))
        open_canvases(tiny.val, size, tmp_path)
        (file,) = set(tmp_path.glob("*.npy")) - made
        os.utime(file, (time.time() - age,) * 2)
    kept = file
    open_canvases(tiny.val, 96, tmp_path)
    assert kept in set(tmp_path.glob("*.npy")) and len(list(tmp_path.glob("*.npy"))) == 2


def test_other_code_or_another_pillow_makes_other_canvases(
    tiny: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = canvases_digest(tiny.val, 64)
    monkeypatch.setattr(canvas_store, "_code_digest", canvas_store._code_digest.__wrapped__)
    assert canvases_digest(tiny.val, 64) == before
    monkeypatch.setattr(PIL, "__version__", "of tomorrow")
    assert canvases_digest(tiny.val, 64) != before
    monkeypatch.undo()
    monkeypatch.setattr(canvas_store, "_code_digest", canvas_store._code_digest.__wrapped__)
    monkeypatch.setattr(pixels, "__file__", canvas.__file__)
    assert canvases_digest(tiny.val, 64) != before


def test_a_store_is_made_once_and_only_read(tiny: Splits, tmp_path: Path) -> None:
    open_canvases(tiny.val, 64, tmp_path)
    (file,) = tmp_path.glob("*.npy")
    made = file.stat().st_ino
    again = open_canvases(tiny.val, 64, tmp_path)
    assert file.stat().st_ino == made
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0


def test_equal_pictures_elsewhere_share_a_store(
    tiny: Splits, tiny_data: Data, tmp_path: Path
) -> None:
    elsewhere = copytree(tiny_data.train.parent, tmp_path / "elsewhere")
    content = json.loads((elsewhere / "val.json").read_text())
    content["annotations"] = content["annotations"][:1]  # boxes are not on a canvas
    (elsewhere / "val.json").write_text(json.dumps(content))
    copy = load(Data(train=elsewhere / "train.json", val=elsewhere / "val.json"), tmp_path)
    folder = tmp_path / "stores"
    open_canvases(tiny.val, 64, folder)
    open_canvases(copy.val, 64, folder)
    assert len(list(folder.glob("*.npy"))) == 1


def test_another_size_order_or_picture_is_another_store(
    tiny: Splits, make_split: MakeSplit, tmp_path: Path
) -> None:
    one, two = tiny.val.pictures[:2]
    open_canvases(make_split(one, two), 64, tmp_path)
    open_canvases(make_split(one, two), 96, tmp_path)
    open_canvases(make_split(one), 64, tmp_path)
    turned = open_canvases(make_split(two, one), 64, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 4
    assert (turned[0] == letterbox(two, 64)).all()


OPEN = """
import sys
from pathlib import Path
from trainer.config import Data
from trainer.data import canvas_store
from trainer.data.loading import load
train, val, stores = map(Path, sys.argv[1:])
split = load(Data(train=train, val=val), stores).train
written = []
write_array = canvas_store.write_array
canvas_store.write_array = lambda *args: written.append(0) or write_array(*args)
print("ready", flush=True)
sys.stdin.readline()
print(canvas_store.open_canvases(split, 640, stores).sum(dtype="int64"), len(written))
"""


def test_two_processes_at_once_write_one_complete_file(
    tiny: Splits, tiny_data: Data, tmp_path: Path, run_two_at_once: Callable[..., list[str]]
) -> None:
    lines = run_two_at_once(OPEN, tiny_data.train, tiny_data.val, tmp_path)
    sums, written = zip(*(map(int, line.split()) for line in lines), strict=True)
    expected = sum(int(letterbox(p, 640).sum(dtype=np.int64)) for p in tiny.train.pictures)
    assert sums == (expected, expected)
    assert sum(written) == 1
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_store_that_fails_leaves_no_part_behind(
    tiny: Splits, make_picture: MakePicture, make_split: MakeSplit, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = make_picture(file=tmp_path / "broken.png")
    stores = tmp_path / "stores"
    with pytest.raises(InputError, match=r"broken\.png: cannot be read as a picture"):
        open_canvases(make_split(tiny.val.pictures[0], broken), 64, stores)
    assert not [file.name for file in stores.iterdir() if file.suffix != ".lock"]


def test_a_picture_that_changed_since_it_was_checked_is_not_filed(
    tiny_data: Data, tmp_path: Path
) -> None:
    folder = copytree(tiny_data.train.parent, tmp_path / "data")
    split = load_split(Data(train=folder / "val.json"), "val", tmp_path)
    file = split.pictures[2].file
    before = file.read_bytes()
    file.write_bytes(split.pictures[3].file.read_bytes())
    stores = tmp_path / "stores"
    with pytest.raises(InputError, match=rf"{file.name}: was changed after .* `unfreeze check`"):
        open_canvases(split, 64, stores)
    assert not list(stores.glob("*.npy"))
    file.write_bytes(before)
    assert (open_canvases(split, 64, stores)[2] == letterbox(split.pictures[2], 64)).all()


def test_few_canvases_wait_for_a_slow_disk(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    made: list[int] = []

    def counted(picture: Picture, size: int) -> Any:
        made.append(picture.id)
        return letterbox(picture, size)

    @contextmanager
    def slow(*args: Any) -> Iterator[Callable[..., None]]:
        with shared_arrays.write_array(*args) as add:

            def add_slowly(row: Any) -> None:
                time.sleep(0.005)  # in which all others could be made
                add(row)
                ahead.append(len(made) - len(ahead))

            yield add_slowly

    monkeypatch.setattr(canvas_store, "letterbox", counted)
    monkeypatch.setattr(canvas_store, "write_array", slow)
    monkeypatch.setattr(canvas_store, "AHEAD", 2)
    store = open_canvases(tiny.train, 64, tmp_path)
    assert len(made) == len(store) == 12
    assert max(ahead) <= 3


def test_canvases_are_made_side_by_side(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(picture: Picture, size: int) -> Any:
        both.wait()  # for another that is being made, which there is none of one by one
        return letterbox(picture, size)

    monkeypatch.setattr(canvas_store, "letterbox", together)
    monkeypatch.setattr(canvas_store, "AHEAD", 2)
    assert len(open_canvases(tiny.train, 32, tmp_path)) == 12


def test_a_store_that_cannot_be_read_back_is_an_error(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas_store, "open_array", lambda *_: None)
    with pytest.raises(OSError, match="reads differently from what was written"):
        open_canvases(tiny.val, 32, tmp_path)


def test_what_a_process_that_died_left_of_a_store_goes(tiny: Splits, tmp_path: Path) -> None:
    left = tmp_path / f"{canvases_digest(tiny.val, 32)}.of-one-that-died.part"
    other = tmp_path / "of-another-store.1.part"
    left.touch()
    other.touch()
    steps: list[int] = []
    open_canvases(tiny.val, 32, tmp_path, lambda: steps.append(1))
    assert list(tmp_path.glob("*.part")) == [other]
    assert len(steps) >= len(tiny.val.pictures)  # whoever waits is called again and again


def test_results_come_in_order_and_few_are_made_ahead() -> None:
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        time.sleep(0.01 if item % 2 else 0)  # so that later ones are ready before earlier ones
        return -item

    with make_ahead(make, range(20), threads=3) as results:
        assert [next(results) for _ in range(5)] == [0, -1, -2, -3, -4]
        time.sleep(0.05)
        assert max(begun) <= 8
    assert max(begun) <= 8  # the rest is never made
    with make_ahead(make, range(7), threads=3) as results:
        assert list(results) == [-item for item in range(7)]


def test_what_goes_wrong_for_an_item_is_raised_in_its_place() -> None:
    with make_ahead(lambda item: 1 / item, [2, 1, 0, 1], threads=2) as results:
        assert [next(results), next(results)] == [0.5, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_canvases_lie_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert canvases_folder() == tmp_path / "unfreeze" / "canvases"
