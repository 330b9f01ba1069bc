"""One epoch: mean losses, no step that would spoil the weights, and seeded randomness."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import Model, TrainConfig
from trainer.data.batches import Batch
from trainer.model.detectors import build
from trainer.model.freezing import set_depth
from trainer.training.engine import DivergedError, TrainingSummary, seed_step, train_one_epoch
from trainer.training.optim import build as build_optimizer

Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]


class Toy(nn.Module):
    """A detector of one weight whose losses are given."""

    def __init__(self, losses: Losses, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start]))
        self.register_buffer("mean", torch.zeros(1))
        self.losses = losses

    def forward(self, pictures: Tensor, targets: Any, frozen: None) -> dict[str, Tensor]:
        return self.losses(self.weight, pictures.float())


def batch(value: int = 0) -> Batch:
    pictures = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    return Batch(pictures, [{"boxes": torch.zeros(0, 4)}])


def empty_batch() -> Batch:
    targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    return Batch(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8), targets)


def epoch(detector: Any, batches: list[Batch], **changes: Any) -> dict[str, float]:
    return trained(detector, batches, **changes).losses


def trained(detector: Any, batches: list[Batch], **changes: Any) -> TrainingSummary:
    optimizer = changes.pop("optimizer", None) or torch.optim.SGD(detector.parameters(), lr=1.0)
    settings: dict[str, Any] = {
        "set_step": lambda step: None,
        "precision": "fp32",
        "clip_norm": 10.0,
        "seed": 0,
        "epoch": 0,
        **changes,
    }
    scaler = settings.pop("scaler", torch.amp.GradScaler("cpu", enabled=False))
    return train_one_epoch(detector, optimizer, scaler, batches, **settings)


@pytest.fixture
def bits(tiny_config: Callable[..., TrainConfig]) -> Iterator[Any]:
    torch.manual_seed(0)
    detector = build(tiny_config({"model.image_size": 64}).model, classes=2)
    set_depth(detector, detector.stages, 2)
    yield detector


def state_of(detector: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in detector.parameters()]


def equal(before: list[Tensor], after: list[Tensor]) -> bool:
    pairs = zip(before, after, strict=True)
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs)


def test_losses_are_means_over_the_steps() -> None:
    toy = Toy(lambda w, x: {"a": x.mean() + 0 * w.sum(), "b": 2 * x.mean() + 0 * w.sum()})
    assert epoch(toy, [batch(1), batch(2), batch(6)]) == pytest.approx({"a": 3.0, "b": 6.0})


def test_set_step_is_called_before_every_step() -> None:
    seen: list[int] = []
    epoch(Toy(lambda w, x: {"a": w.sum()}), [batch()] * 3, set_step=seen.append)
    assert seen == [0, 1, 2]


def test_gradients_are_clipped_to_the_norm() -> None:
    toy = Toy(lambda w, x: {"a": 1e6 * w.sum()}, start=0.0)
    epoch(toy, [batch()], clip_norm=0.25)
    assert toy.weight.item() == pytest.approx(-0.25)


def test_gradients_do_not_add_up_over_steps() -> None:
    toy = Toy(lambda w, x: {"a": w.sum()}, start=0.0)
    epoch(toy, [batch()] * 3)
    assert toy.weight.item() == pytest.approx(-3.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_ends_the_epoch_before_the_step(value: float) -> None:
    toy = Toy(lambda w, x: {"fine": w.sum(), "bad": value * w.sum()})
    before = state_of(toy)
    with pytest.raises(DivergedError, match=r"epoch 5, step 0: fine 1, bad (nan|-?inf)"):
        epoch(toy, [batch()], epoch=4)
    assert equal(before, state_of(toy))


def test_a_gradient_that_is_not_finite_ends_the_epoch_before_the_step() -> None:
    toy = Toy(lambda w, x: {"root": w.sqrt().sum()}, start=0.0)  # 0, with a slope of infinity
    before = state_of(toy)
    with pytest.raises(DivergedError, match="gradient"):
        epoch(toy, [batch()])
    assert equal(before, state_of(toy))


def test_a_detector_that_diverges_keeps_every_weight(bits: Any) -> None:
    optimizer = build_optimizer(bits, TrainConfig().train)
    with torch.no_grad():
        next(bits.neck.parameters())[0] = float("nan")
    before = state_of(bits)
    with pytest.raises(DivergedError):
        epoch(bits, [empty_batch()], optimizer=optimizer)
    assert equal(before, state_of(bits))
    assert not optimizer.state


def test_the_scaler_skips_a_step_of_infinite_gradient() -> None:
    toy = Toy(lambda w, x: {"root": w.sqrt().sum()}, start=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    epoch(toy, [batch()], scaler=scaler)
    assert toy.weight.item() == 0.0
    assert scaler.get_scale() < 8.0


def test_a_gradient_that_no_scale_makes_finite_ends_the_epoch() -> None:
    toy = Toy(lambda w, x: {"root": w.sqrt().sum()}, start=0.0)
    scaler = torch.amp.GradScaler("cpu")
    summary = trained(toy, [batch()] * 10, scaler=scaler)
    assert summary.skipped == 10 and scaler.get_scale() == 2.0**6
    with pytest.raises(
        DivergedError, match=r"epoch 2, step 7, in fp16 with the loss scaled by 0\.5"
    ):
        trained(toy, [batch()] * 10, scaler=scaler, epoch=1)
    assert toy.weight.item() == 0.0


def test_skipped_steps_are_counted_and_the_others_taken() -> None:
    toy = Toy(lambda w, x: {"a": (w if x.any() else w.sqrt()).sum()}, start=0.0)
    summary = trained(toy, [batch(0), batch(1)], scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    assert summary.skipped == 1 and toy.weight.item() == pytest.approx(-1.0)


def test_a_loss_that_is_not_finite_ends_the_epoch_with_a_scaler_too() -> None:
    toy = Toy(lambda w, x: {"bad": float("inf") * w.sum()})
    with pytest.raises(DivergedError, match="the loss is not finite"):
        epoch(toy, [batch()], scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    assert toy.weight.item() == 1.0


def test_pictures_without_boxes_train(bits: Any) -> None:
    optimizer = torch.optim.SGD(bits.parameters(), lr=1e-3)
    before = state_of(bits.head)
    losses = epoch(bits, [empty_batch()], optimizer=optimizer)
    assert all(torch.isfinite(torch.tensor(loss)) for loss in losses.values())
    assert not equal(before, state_of(bits.head))


def drawn(seed: int, epoch: int, step: int) -> list[float]:
    seed_step(seed, epoch, step)
    return torch.rand(4).tolist()


def test_the_randomness_of_a_step_depends_only_on_its_place() -> None:
    first = drawn(1, 2, 3)
    torch.manual_seed(99)
    torch.rand(7)
    assert drawn(1, 2, 3) == first
    others = [drawn(*place) for place in [(0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 3, 2), (3, 2, 1)]]
    assert all(other != first for other in others)


def test_the_samples_of_a_detector_depend_only_on_the_place() -> None:
    """Faster R-CNN draws the boxes it learns from at random."""
    torch.manual_seed(0)
    detector = build(Model(detector="faster_rcnn", weights="none", image_size=64), classes=2)
    set_depth(detector, detector.stages, 0)
    boxes = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    pictures = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    still = torch.optim.SGD(detector.parameters(), lr=0.0)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(epoch(detector, [Batch(pictures, [boxes])], optimizer=still, epoch=5))
    assert losses[0] == losses[1]


def test_the_dropout_of_an_epoch_depends_only_on_its_place() -> None:
    def noisy() -> dict[str, float]:
        return epoch(Toy(lambda w, x: {"a": (w * torch.rand(1)).sum()}), [batch()] * 3, epoch=5)

    torch.manual_seed(1)
    first = noisy()
    torch.manual_seed(2)
    assert noisy() == first
