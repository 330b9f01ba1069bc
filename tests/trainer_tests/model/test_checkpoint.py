"""Checkpoints: intact or refused, and only with what trained."""

import copy
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config import InputError, Model
from trainer.model import checkpoint
from trainer.model.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    Checkpoint,
    DamagedFileError,
    load,
    load_last,
    load_reports,
    load_trained_state,
    pretrained_digest,
    save,
    save_last,
    trained_state,
    write_atomically,
)
from trainer.model.detectors import Detector, build


def small(seed: int = 0) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    return {"model": {"a": torch.rand(64, generator=draw)}, "reports": [{"epoch": seed}]}


def flip_byte(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "first byte": lambda file: flip_byte(file, 0.0),
    "a tensor's byte": lambda file: flip_byte(file, 0.5),
    "last byte": lambda file: flip_byte(file, 1.0),
    "truncated by one": lambda file: os.truncate(file, file.stat().st_size - 1),
    "truncated to half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "truncated to less than a digest": lambda file: os.truncate(file, 10),
    "empty": lambda file: os.truncate(file, 0),
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return build(Model(weights="none", image_size=64), classes=2)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save(small(), tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt")
    assert torch.equal(loaded["model"]["a"], small()["model"]["a"])
    assert loaded["reports"] == [{"epoch": 0}]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    save(small(), tmp_path / "a.pt")
    DAMAGE[damage](tmp_path / "a.pt")
    with pytest.raises(DamagedFileError, match=r"a\.pt"):
        load(tmp_path / "a.pt")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        load(tmp_path / "a.pt")


def test_only_plain_values_are_read(tmp_path: Path) -> None:
    save({"model": Path("anything")}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError):
        load(tmp_path / "a.pt")


def test_the_newest_intact_checkpoint_is_loaded(tmp_path: Path) -> None:
    for epoch in range(3):
        save_last(small(epoch), tmp_path)
    newest = load_last(tmp_path)
    assert newest and newest["reports"] == [{"epoch": 2}]
    assert {file.name for file in tmp_path.iterdir()} == {LAST, PREVIOUS}


def test_the_next_save_does_not_read_what_this_process_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_last(small(1), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "load", lambda file: pytest.fail("it was read"))
        save_last(small(2), tmp_path)
    before = load(tmp_path / PREVIOUS)
    assert before["reports"] == [{"epoch": 1}]


@pytest.mark.parametrize("damage", [*DAMAGE, "gone"])
def test_if_the_last_is_damaged_the_previous_is_loaded(tmp_path: Path, damage: str) -> None:
    save_last(small(1), tmp_path)
    save_last(small(2), tmp_path)
    DAMAGE.get(damage, Path.unlink)(tmp_path / LAST)
    before = load_last(tmp_path)
    assert before and before["reports"] == [{"epoch": 1}]


def test_if_both_are_damaged_or_missing_the_result_is_none(tmp_path: Path) -> None:
    assert load_last(tmp_path / "nowhere") is None
    assert load_last(tmp_path) is None
    for _ in range(2):
        save_last(small(), tmp_path)
    for name in (LAST, PREVIOUS):
        flip_byte(tmp_path / name, 0.5)
    assert load_last(tmp_path) is None


@pytest.mark.parametrize(
    ("last", "best", "epochs"),
    [(2, 1, 2), (2, 2, 2), (2, 3, 3), (2, 4, 2), (0, 1, 1), (0, 2, 0), (2, 0, 2), (0, 0, 0)],
)
def test_a_trial_that_ended_between_two_files_has_its_last_report_in_best(
    tmp_path: Path, last: int, best: int, epochs: int
) -> None:
    reports = [{"epoch": epoch} for epoch in range(1, 5)]
    if last:
        save({"reports": reports[:last]}, tmp_path / LAST)
    if best:
        save({"report": reports[best - 1]}, tmp_path / BEST)
    assert load_reports(tmp_path) == reports[:epochs]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


def test_a_write_makes_its_folder_and_leaves_one_file(tmp_path: Path) -> None:
    write_atomically(b"abc", tmp_path / "a" / "b" / "c")
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["c"]
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"abc"


def test_a_disk_that_fills_up_during_a_save_raises_its_oserror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint._HashingWriter.write

    def fill_up(writer: checkpoint._HashingWriter, content: bytes) -> int:
        if len(content) > 1000:
            writer.stream = FullDisk()  # type: ignore[assignment]
        return write(writer, content)

    class FullDisk:
        def write(self, content: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint._HashingWriter, "write", fill_up)
    with pytest.raises(OSError, match="No space left") as raised:
        save({"model": torch.zeros(10_000)}, tmp_path / "a.pt")
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("full_disk")
def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        write_atomically(b"abc", tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("full_disk")
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(OSError, match="No space"):
        write_atomically(b"abc", tmp_path / "a")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_a_write_onto_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        write_atomically(b"abc", tmp_path / "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_save_that_fails_loses_no_checkpoint(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    save_last(small(1), tmp_path)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError):
        save_last(small(2), tmp_path)
    kept = load_last(tmp_path)
    assert kept and kept["reports"] == [{"epoch": 1}]


def test_a_save_after_a_damaged_last_that_fails_loses_no_checkpoint(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    save_last(small(1), tmp_path)
    save_last(small(2), tmp_path)
    flip_byte(tmp_path / LAST, 0.5)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError):
        save_last(small(2), tmp_path)
    kept = load_last(tmp_path)
    assert kept and kept["reports"] == [{"epoch": 1}]


@pytest.mark.parametrize("depth", range(6))
def test_a_trained_state_holds_only_what_trained(detector: Detector, depth: int) -> None:
    opened = {
        f"backbone.{name}"
        for stage in detector.stages[5 - depth :]
        for name in (*stage.parameters, *stage.buffers)
    }
    names = set(trained_state(detector, depth))
    assert {name for name in names if name.startswith("backbone.")} == opened
    assert names - opened == {n for n in detector.state_dict() if not n.startswith("backbone.")}


def kept(detector: Detector, depth: int, before: Detector | None = None) -> Checkpoint:
    return {
        "model": trained_state(detector, depth),
        "pretrained": pretrained_digest(before or detector),
    }


@pytest.mark.parametrize("depth", [0, 3])
def test_a_trained_state_makes_an_equal_detector(detector: Detector, depth: int) -> None:
    trained, again = copy.deepcopy(detector), copy.deepcopy(detector)
    with torch.no_grad():
        for name, tensor in trained_state(trained, depth).items():
            trained.state_dict()[name].copy_(tensor + 1)
    load_trained_state(again, kept(trained, depth, detector))
    expected = trained.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    "other",
    [
        lambda: build(Model(weights="none", image_size=64), classes=3),
        lambda: build(Model(detector="faster_rcnn", weights="none", image_size=64), classes=2),
    ],
)
def test_a_state_of_another_architecture_is_refused(
    detector: Detector, other: Callable[[], Detector]
) -> None:
    with pytest.raises(RuntimeError):
        load_trained_state(other(), kept(detector, 0))


def test_a_checkpoint_without_a_backbones_digest_is_loaded(detector: Detector) -> None:
    earlier = {"model": trained_state(detector, 0)}
    load_trained_state(copy.deepcopy(detector), earlier)


def test_a_state_on_another_backbone_is_refused(detector: Detector) -> None:
    of_this = kept(detector, 1)
    load_trained_state(copy.deepcopy(detector), of_this)
    changes: tuple[Callable[[Detector], Tensor], ...] = (
        lambda other: other.backbone.get_parameter(detector.stages[0].parameters[0]),
        lambda other: other.backbone.get_buffer(detector.stages[0].buffers[0]),
        lambda other: other.mean,
    )
    for change in changes:
        other = copy.deepcopy(detector)
        with torch.no_grad():
            change(other).add_(1)
        with pytest.raises(InputError, match=r"model\.weights: what is there now is not what this"):
            load_trained_state(other, of_this)
