"""Recorded steps, with a stand-in for the recording itself: that needs a GPU, see test_gpu.py."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from trainer.config import Model, NewDetector
from trainer.model.acceleration import cuda_graphs
from trainer.model.acceleration.cuda_graphs import Recorded
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.model.losses import gather

SIZE = 96
TARGET = {"boxes": torch.tensor([[8.0, 8.0, 60.0, 60.0]]), "labels": torch.tensor([1])}


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of each graph that is recorded; it runs what it should hold."""
    made: list[int] = []

    def record(module: Any, inputs: list[Tensor], state: object) -> Recorded:
        made.append(len(inputs[0]))

        def run(*own: Tensor) -> dict[str, Tensor]:
            assert [one.shape for one in own] == [one.shape for one in inputs]
            found: dict[str, Tensor] = module(*own)
            return found

        return Recorded(run, state, *inputs[2].shape)

    monkeypatch.setattr(cuda_graphs, "_record", record)
    monkeypatch.setattr(cuda_graphs, "_is_of_graphs", lambda pictures: True)
    return made


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    own = build(Model(weights="none", image_size=SIZE), 2)
    set_depth(own, own.stages, 2)
    return own


def losses_of(detector: Detector, count: int, boxes: int = 1) -> dict[str, float]:
    draw = torch.Generator().manual_seed(count)
    pictures = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    one = {name: value.repeat(boxes, *[1] * (value.ndim - 1)) for name, value in TARGET.items()}
    torch.manual_seed(0)  # of what Faster R-CNN draws
    found = detector(pictures, [one] * count)
    return {name: float(loss.detach()) for name, loss in found.items()}


@pytest.mark.parametrize("name", get_args(NewDetector))
def test_a_smaller_batch_is_filled_up_and_loses_nothing(name: str, recordings: list[int]) -> None:
    own = build(Model(detector=name, weights="none", image_size=SIZE), 2)
    set_depth(own, own.stages, 2)
    found = [losses_of(own, count) for count in (4, 3, 4)]
    assert recordings == [4]
    own.cuda_graphs.off = True
    for one, count in zip(found, (4, 3, 4), strict=True):
        assert one == pytest.approx(losses_of(own, count), rel=1e-5)


def test_there_is_room_for_some_more_boxes_and_then_twice_as_many(
    detector: Detector, recordings: list[int]
) -> None:
    for boxes in (1, 16, 3, 17, 32, 0, 200):
        losses_of(detector, 4, boxes)
    recorded = detector.cuda_graphs.recorded
    assert len(recordings) == 3 and recorded and recorded.boxes == 256


def test_the_first_box_to_ignore_is_recorded_anew_and_no_other(
    detector: Detector, recordings: list[int]
) -> None:
    pictures = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    marked = {**TARGET, "ignored": torch.tensor([[60.0, 60.0, 90.0, 90.0]])}
    batches = ([TARGET] * 4, [TARGET, marked] * 2, [TARGET] * 4, [marked] * 3)
    found = [detector(pictures[: len(own)], own)["classification"].item() for own in batches]
    assert recordings == [4, 4]
    detector.cuda_graphs.off = True
    plain = [detector(pictures[: len(own)], own)["classification"].item() for own in batches]
    assert found == pytest.approx(plain, rel=1e-5)
    assert plain[1] < plain[0]  # less of the background counts


@pytest.mark.parametrize(
    "change",
    [
        lambda own: set_depth(own, own.stages, 3),
        lambda own: own.to(torch.float64).to(torch.float32),  # other memory
    ],
)
def test_another_state_is_recorded_anew(
    detector: Detector, recordings: list[int], change: Callable[[Detector], Any]
) -> None:
    losses_of(detector, 4)
    change(detector)
    losses_of(detector, 4)
    assert len(recordings) == 2


def test_another_size_of_batch_is_recorded_anew(detector: Detector, recordings: list[int]) -> None:
    for count in (4, 5, 4, 2, 4):
        losses_of(detector, count)
    assert recordings == [4, 5, 2, 4]


def test_norms_that_follow_the_batch_are_not_recorded(
    detector: Detector, recordings: list[int]
) -> None:
    losses_of(detector, 4)
    set_depth(detector, detector.stages, 2, adapt_statistics=True)
    losses_of(detector, 4)
    assert recordings == [4] and detector.cuda_graphs.recorded is None


def test_a_model_that_no_graph_holds_trains_all_the_same(
    detector: Detector, recordings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_of(detector, 4)

    def fails(*_: Any) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graphs, "_record", fails)
    detector.cuda_graphs.recorded = None
    assert losses_of(detector, 4) == pytest.approx(expected, rel=1e-5)
    assert detector.cuda_graphs.off


def test_a_gpu_that_is_lost_in_a_recording_is_no_model_that_no_graph_holds(
    detector: Detector, recordings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Recorded:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(cuda_graphs, "_record", fails)
    monkeypatch.setattr(cuda_graphs, "has_lost_accelerator", lambda: True)
    with pytest.raises(torch.AcceleratorError):
        losses_of(detector, 4)
    assert not detector.cuda_graphs.off


def test_detections_are_not_recorded(detector: Detector, recordings: list[int]) -> None:
    detector.eval()(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))
    assert recordings == []


@pytest.mark.parametrize("name", get_args(NewDetector))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_recorded_can_be_let_go_of(name: str, dtype: torch.dtype) -> None:
    """As after recording: no view of anything else."""
    own = build(Model(detector=name, weights="none", image_size=SIZE), 2).train()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        pictures = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
        found = own.alike(pictures, gather([TARGET] * 2), None)
    for tensor in found.values():
        assert tensor.requires_grad and tensor.dtype is torch.float32
        tensor.detach_()
