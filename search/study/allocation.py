"""What a trial had of the cluster, as it changed over a search: what the search has cost."""

import time
from collections.abc import Iterable

from ..space.config import Resources
from .study import Study


def note_share(study: Study, share: Resources) -> None:
    """Write what a trial has from now on, for what the search has cost."""
    study.set("shares", [*study.get("shares", []), [time.time(), share.model_dump()]])


def held(study: Study, trained: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """CPU- and GPU-seconds that trials held, of epochs given as when each ended and its seconds."""
    shares = [(since, Resources.model_validate(raw)) for since, raw in study.get("shares", [])]
    cpus = gpus = 0.0
    for at, seconds in trained:
        share = next((own for since, own in reversed(shares) if since <= at), Resources())
        cpus += seconds * share.cpus_per_trial
        gpus += seconds * share.gpus_per_trial
    return cpus, gpus
