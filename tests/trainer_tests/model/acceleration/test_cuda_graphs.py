"""CUDA graphs, with a stand-in for the recording, which needs a GPU (see test_gpu.py)."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from trainer.config import Model, NewDetector
from trainer.model.acceleration import cuda_graphs
from trainer.model.acceleration.cuda_graphs import RecordedGraph
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.model.matching import pad_targets

SIZE = 96
TARGET = {"boxes": torch.tensor([[8.0, 8.0, 60.0, 60.0]]), "labels": torch.tensor([1])}


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch size of each recorded graph; running one calls the module itself."""
    made: list[int] = []

    def record(module: Any, inputs: list[Tensor], state: object) -> RecordedGraph:
        made.append(len(inputs[0]))

        def run(*tensors: Tensor) -> dict[str, Tensor]:
            assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in inputs]
            results: dict[str, Tensor] = module(*tensors)
            return results

        return RecordedGraph(run, state, *inputs[2].shape)

    monkeypatch.setattr(cuda_graphs, "_record", record)
    monkeypatch.setattr(cuda_graphs, "_can_record", lambda pictures: True)
    return made


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    detector = build(Model(weights="none", image_size=SIZE), 2)
    set_depth(detector, detector.stages, 2)
    return detector


def losses_of(detector: Detector, count: int, boxes: int = 1) -> dict[str, float]:
    draw = torch.Generator().manual_seed(count)
    pictures = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    one = {name: value.repeat(boxes, *[1] * (value.ndim - 1)) for name, value in TARGET.items()}
    torch.manual_seed(0)  # Faster R-CNN samples at random
    losses = detector(pictures, [one] * count)
    return {name: float(loss.detach()) for name, loss in losses.items()}


@pytest.mark.parametrize("name", get_args(NewDetector))
def test_a_smaller_batch_is_padded_with_the_same_losses(
    name: NewDetector, recordings: list[int]
) -> None:
    detector = build(Model(detector=name, weights="none", image_size=SIZE), 2)
    set_depth(detector, detector.stages, 2)
    losses = [losses_of(detector, count) for count in (4, 3, 4)]
    assert recordings == [4]
    detector.cuda_graphs.off = True
    for recorded, count in zip(losses, (4, 3, 4), strict=True):
        assert recorded == pytest.approx(losses_of(detector, count), rel=1e-5)


def test_the_room_for_boxes_doubles_when_it_is_too_small(
    detector: Detector, recordings: list[int]
) -> None:
    for boxes in (1, 16, 3, 17, 32, 0, 200):
        losses_of(detector, 4, boxes)
    recorded = detector.cuda_graphs.recorded
    assert len(recordings) == 3 and recorded and recorded.boxes == 256


def test_only_the_first_ignored_box_needs_a_new_graph(
    detector: Detector, recordings: list[int]
) -> None:
    pictures = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    marked = {**TARGET, "ignored": torch.tensor([[60.0, 60.0, 90.0, 90.0]])}
    batches = ([TARGET] * 4, [TARGET, marked] * 2, [TARGET] * 4, [marked] * 3)
    recorded = [
        detector(pictures[: len(batch)], batch)["classification"].item() for batch in batches
    ]
    assert recordings == [4, 4]
    detector.cuda_graphs.off = True
    plain = [detector(pictures[: len(batch)], batch)["classification"].item() for batch in batches]
    assert recorded == pytest.approx(plain, rel=1e-5)
    assert plain[1] < plain[0]  # less background counts


@pytest.mark.parametrize(
    "change",
    [
        lambda detector: set_depth(detector, detector.stages, 3),
        lambda detector: detector.to(torch.float64).to(torch.float32),  # other memory
    ],
)
def test_another_state_needs_a_new_graph(
    detector: Detector, recordings: list[int], change: Callable[[Detector], Any]
) -> None:
    losses_of(detector, 4)
    change(detector)
    losses_of(detector, 4)
    assert len(recordings) == 2


def test_another_size_of_batch_needs_a_new_graph(detector: Detector, recordings: list[int]) -> None:
    for count in (4, 5, 4, 2, 4):
        losses_of(detector, count)
    assert recordings == [4, 5, 2, 4]


def test_norms_that_adapt_are_not_recorded(detector: Detector, recordings: list[int]) -> None:
    losses_of(detector, 4)
    set_depth(detector, detector.stages, 2, adapt_statistics=True)
    losses_of(detector, 4)
    assert recordings == [4] and detector.cuda_graphs.recorded is None


def test_a_model_that_cannot_be_recorded_trains_without_a_graph(
    detector: Detector, recordings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_of(detector, 4)

    def fails(*_: Any) -> RecordedGraph:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graphs, "_record", fails)
    detector.cuda_graphs.recorded = None
    assert losses_of(detector, 4) == pytest.approx(expected, rel=1e-5)
    assert detector.cuda_graphs.off


def test_a_gpu_lost_during_a_recording_is_an_error(
    detector: Detector, recordings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> RecordedGraph:
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
def test_static_losses_can_be_detached(name: NewDetector, dtype: torch.dtype) -> None:
    """As after a recording: none of them is a view of another tensor."""
    detector = build(Model(detector=name, weights="none", image_size=SIZE), 2).train()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        pictures = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
        results = detector.static_losses(pictures, pad_targets([TARGET] * 2), None)
    for tensor in results.values():
        assert tensor.requires_grad and tensor.dtype is torch.float32
        tensor.detach_()
