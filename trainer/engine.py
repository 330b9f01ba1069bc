"""One epoch of training, in the order things happen."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .data.batches import Batch, generator
from .model.detectors import Detector
from .precision import autocast


class Diverged(Exception):
    """A loss or gradient is not finite; the step was not taken."""


class OutOfMemory(Exception):
    """The device or the machine has too little memory for this configuration."""


def train_one_epoch(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[Batch],
    *,
    set_step: Callable[[int], None],
    precision: str,
    clip_norm: float,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """Train on every batch once and return the mean of each loss.

    `set_step(i)` sets the learning rates of the i-th step of this epoch. Raises Diverged before a
    step that would spoil the weights.
    """
    where = detector.mean.device
    sums: dict[str, Tensor | float] = {}
    steps = 0
    for step, batch in enumerate(batches):
        seed_step(seed, epoch, step)
        set_step(step)
        with autocast(where, precision):
            losses = detector(*batch.to(where))
        total = torch.stack(list(losses.values())).sum()

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(detector.parameters(), clip_norm)
        _require_finite(losses, total, norm, scaler, f"at epoch {epoch}, step {step}")
        scaler.step(optimizer)  # with fp16 it skips steps of infinite gradient and scales down
        scaler.update()

        for name, loss in losses.items():
            # on the device: to ask for each number is to wait for all that came before
            sums[name] = sums.get(name, 0.0) + loss.detach().double()
        steps += 1
    return {name: float(value) / steps for name, value in sums.items()}


def _require_finite(
    losses: dict[str, Tensor], total: Tensor, norm: Tensor, scaler: torch.amp.GradScaler, place: str
) -> None:
    """The one place of a step where the host waits for the device."""
    sound = torch.isfinite(total)
    if not scaler.is_enabled():
        sound = sound & torch.isfinite(norm)
    if sound:
        return
    if torch.isfinite(total):
        raise Diverged(f"the gradient is {norm.item()} {place}")
    parts = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
    raise Diverged(f"the loss is not finite {place}: {parts}")


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's generators so that a step's randomness depends on its place alone."""
    torch.manual_seed(int(generator(seed, epoch, step, 1).integers(2**63)))
