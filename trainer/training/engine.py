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


class DivergedError(Exception):
    """A loss or gradient is not finite. The optimizer step was not taken."""


MIN_LOSS_SCALE = 1.0
"""The fp16 loss scale starts at 65536 and halves at each infinite gradient. A gradient that is
infinite with a smaller scale than this has another cause."""


@dataclass(frozen=True)
class TrainingSummary:
    """Losses of one epoch of training."""

    losses: dict[str, float]
    """Mean of each loss over the epoch."""
    skipped: int
    """Steps that were skipped because their fp16 gradient was infinite."""


def train_one_epoch(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[Batch],
    *,
    set_step: Callable[[int], None],
    after_step: Callable[[int], None] = lambda step: None,
    precision: str,
    clip_norm: float,
    seed: int,
    epoch: int,
) -> TrainingSummary:
    """Train on every batch once.

    `set_step` gets each step's number before it, `after_step` after it. The scaler is enabled in
    fp16 only. `epoch` counts from 0. Raises DivergedError before NaN or infinity spoils weights.
    """
    device = detector.mean.device
    trained = [p for p in detector.parameters() if p.requires_grad]
    # a fused optimizer skips a bad step on the GPU: the host can check it one step later
    asynchronous = device.type == "cuda" and bool(optimizer.defaults.get("fused"))
    sums: dict[str, float] = defaultdict(float)
    skipped = 0
    pending: deque[_StepResult] = deque()
    for step, batch in enumerate(batches):
        # 1. Seed and set the learning rates.
        seed_step(seed, epoch, step)
        set_step(step)
        # 2. Compute the losses.
        with autocast(device, precision):
            losses = detector(*batch.to(device))
        total = torch.stack(list(losses.values())).sum()
        # 3. Compute the gradient and clip it.
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        # 4. Check the step, or on a GPU the step before.
        pending.append(_StepResult(f"at epoch {epoch + 1}, step {step}", losses, total, norm))
        if len(pending) > int(asynchronous):
            skipped += _add(sums, pending.popleft(), scaler)
        # 5. Update the weights, and their average.
        if asynchronous and not scaler.is_enabled():
            _skip_if_not_finite(optimizer, total + norm)
        scaler.step(optimizer)  # skips a step of infinite fp16 gradient
        scaler.update()
        after_step(step)
    skipped += sum(_add(sums, last, scaler) for last in pending)
    return TrainingSummary({name: value / (step + 1) for name, value in sums.items()}, skipped)


def _skip_if_not_finite(optimizer: torch.optim.Optimizer, value: Tensor) -> None:
    """Let a fused optimizer skip its next step on the GPU, as an enabled scaler does."""
    optimizer.found_inf = 1 - torch.isfinite(value).float()  # type: ignore[attr-defined]


class _StepResult:
    """Losses and gradient norm of a step, on their way to the host without blocking a GPU."""

    def __init__(self, place: str, losses: dict[str, Tensor], total: Tensor, norm: Tensor) -> None:
        self.place = place
        self.names = list(losses)
        values = torch.stack([total.detach(), norm, *[loss.detach() for loss in losses.values()]])
        self.host_values = values.to("cpu", non_blocking=True)
        self.copied = torch.cuda.Event() if values.is_cuda else None  # type: ignore[no-untyped-call]
        if self.copied:
            self.copied.record()

    def losses(self, scaler: torch.amp.GradScaler) -> tuple[dict[str, float], bool]:
        """Each loss, and whether the step was skipped. Raises DivergedError."""
        if self.copied:
            self.copied.synchronize()
        total, norm, *values = self.host_values.tolist()
        losses = dict(zip(self.names, values, strict=True))
        if not isfinite(total):
            parts = ", ".join(f"{name} {loss:g}" for name, loss in losses.items())
            raise DivergedError(f"the loss is not finite {self.place}: {parts}")
        skipped = not isfinite(norm)
        if skipped and not scaler.is_enabled():
            raise DivergedError(f"the gradient is {norm} {self.place}")
        if skipped and (scale := scaler.get_scale()) < MIN_LOSS_SCALE:
            raise DivergedError(
                f"the gradient is {norm} {self.place}, in fp16 with the loss scaled by {scale:g}"
            )
        return losses, skipped


def _add(sums: dict[str, float], step: _StepResult, scaler: torch.amp.GradScaler) -> int:
    """Add the losses of a step to the sums; returns 1 if the step was skipped, else 0."""
    losses, skipped = step.losses(scaler)
    for name, loss in losses.items():
        sums[name] += loss
    return int(skipped)


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's generators, so that the randomness of a step depends only on its place."""
    torch.manual_seed(int(generator(seed, epoch, step, 1).integers(2**63)))
