"""What each trial was allocated over time, from which costs follow."""

import time
from collections.abc import Iterable

from ..space.config import TrialResources
from .study import Study


def record_allocation(study: Study, resources: TrialResources) -> None:
    """Record the resources that each trial has from now on."""
    study.allocations = [*study.allocations, [time.time(), resources.model_dump()]]


def allocated_seconds(study: Study, trained: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """CPU-seconds and GPU-seconds that trials had allocated.

    Args:
        study: Holds the allocations. Before the first one a trial had one CPU.
        trained: For each epoch its end, in seconds since 1970, and how many seconds it took.
    """
    allocations = [(since, TrialResources.model_validate(raw)) for since, raw in study.allocations]
    cpu_seconds = gpu_seconds = 0.0
    for end, seconds in trained:
        earlier = (resources for since, resources in reversed(allocations) if since <= end)
        resources = next(earlier, TrialResources())
        cpu_seconds += seconds * resources.cpus_per_trial
        gpu_seconds += seconds * resources.gpus_per_trial
    return cpu_seconds, gpu_seconds
