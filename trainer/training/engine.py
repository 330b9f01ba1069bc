"""One epoch of training, in the order things happen."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..data.batches import Batch, generator
from ..model.detectors import Detector
from ..precision import autocast


class Diverged(Exception):
    """A loss or gradient is not finite; the step was not taken."""


LEAST_SCALE = 1.0
"""Of a loss in fp16, which begins with 65536 and halves at each infinite gradient: one that is
infinite with less is not so because of the scale."""


@dataclass(frozen=True)
class Trained:
    """What an epoch of training came to."""

    losses: dict[str, float]
    """The mean of each."""
    skipped: int
    """Steps that were not taken, since in fp16 their gradient was infinite."""


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
) -> Trained:
    """Train on every batch once.

    `set_step(i)` sets the learning rates of the i-th step of this epoch. Raises Diverged; the step
    that would spoil the weights is not taken.
    """
    where = detector.mean.device
    trained = [p for p in detector.parameters() if p.requires_grad]
    # a GPU is asked how a step went when it has the next one to do, and skips a bad one by itself
    late = where.type == "cuda" and bool(optimizer.defaults.get("fused"))
    sums: dict[str, float] = defaultdict(float)
    skipped = 0
    waiting: deque[_Step] = deque()
    for step, batch in enumerate(batches):
        seed_step(seed, epoch, step)
        set_step(step)
        with autocast(where, precision):
            losses = detector(*batch.to(where))
        total = torch.stack(list(losses.values())).sum()

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        waiting.append(_Step(f"at epoch {epoch}, step {step}", losses, total, norm))
        if len(waiting) > late:
            skipped += _add(sums, waiting.popleft(), scaler)
        if late and not scaler.is_enabled():  # which tells the optimizer of gradients
            optimizer.found_inf = 1 - torch.isfinite(total + norm).float()  # type: ignore[attr-defined]
        scaler.step(optimizer)  # with fp16 it skips steps of infinite gradient and scales down
        scaler.update()
    for left in waiting:
        skipped += _add(sums, left, scaler)
    return Trained({name: value / (step + 1) for name, value in sums.items()}, skipped)


class _Step:
    """How a step went, as the host is told: by a CPU at once, by a GPU when it comes to it."""

    def __init__(self, place: str, losses: dict[str, Tensor], total: Tensor, norm: Tensor) -> None:
        self.place = place
        self.names = list(losses)
        told = torch.stack([total.detach(), norm, *[loss.detach() for loss in losses.values()]])
        self.told = told.to("cpu", non_blocking=True)
        self.there = torch.cuda.Event() if told.is_cuda else None  # type: ignore[no-untyped-call]
        if self.there:
            self.there.record()

    def losses(self, scaler: torch.amp.GradScaler) -> tuple[dict[str, float], bool]:
        """Each loss, and whether the step was skipped. Raises Diverged."""
        if self.there:
            self.there.synchronize()
        total, norm, *values = self.told.tolist()
        found = dict(zip(self.names, values, strict=True))
        if not isfinite(total):
            parts = ", ".join(f"{name} {loss:g}" for name, loss in found.items())
            raise Diverged(f"the loss is not finite {self.place}: {parts}")
        skipped = not isfinite(norm)
        if skipped and not scaler.is_enabled():
            raise Diverged(f"the gradient is {norm} {self.place}")
        if skipped and (scale := scaler.get_scale()) < LEAST_SCALE:
            raise Diverged(
                f"the gradient is {norm} {self.place}, in fp16 with the loss scaled by {scale:g}"
            )
        return found, skipped


def _add(sums: dict[str, float], step: _Step, scaler: torch.amp.GradScaler) -> int:
    """Add a step's losses; 1 where it was skipped."""
    losses, skipped = step.losses(scaler)
    for name, loss in losses.items():
        sums[name] += loss
    return int(skipped)


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's generators so that a step's randomness depends on its place alone."""
    torch.manual_seed(int(generator(seed, epoch, step, 1).integers(2**63)))
