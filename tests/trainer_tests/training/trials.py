"""Trials of a few epochs, and the comparison of what they leave in their folders."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

from torch import Tensor

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.model.checkpoint import BEST, LAST, load
from trainer.training.fit import Result, fit
from trainer.training.phase_cache import PhaseCache

EPOCHS = 5


TIMED = {"seconds", "images_per_second", "system", "forked"}


class Unbroken:
    """A trial that ran from start to end, and its folder as it was after each epoch."""

    def __init__(self, config: TrainConfig, data: Splits, place: Path) -> None:
        self.cache = PhaseCache(place / "phases")
        self.reports: list[EpochReport] = []

        def report(epoch: EpochReport) -> bool:
            self.reports.append(epoch)
            copytree(place / "trial", place / f"after {epoch.epoch}")
            return True

        self.place = place
        self.result = fit(config, data, place / "trial", report, self.cache)

    def after(self, epoch: int) -> Path:
        return self.place / f"after {epoch}"


def train_until(
    config: TrainConfig,
    data: Splits,
    folder: Path,
    until: int = EPOCHS,
    reports: list[EpochReport] | None = None,
    reuse: PhaseCache | None = None,
) -> Result:
    def report(epoch: EpochReport) -> bool:
        if reports is not None:
            reports.append(epoch)
        return epoch.epoch < until

    return fit(config, data, folder, report, reuse)


def with_phases_until(epoch: int, cache: PhaseCache, place: Path) -> PhaseCache:
    """A copy of a cache with the phases that end by this epoch."""
    copy = PhaseCache(copytree(cache.folder, place))
    for entry in copy.folder.iterdir():
        if len(load(entry / LAST)["reports"]) > epoch:
            rmtree(entry)
    return copy


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from flat(inner, f"{path}/{key}")
    else:
        yield path, value.numpy().tobytes() if isinstance(value, Tensor) else value


def assert_same(one: Path, other: Path) -> None:
    """Weights, optimizer, scaler, averages and figures of two trials are the same bits."""
    first, second = load(one / LAST), load(other / LAST)
    for part in ("model", "average", "optimizer", "scaler"):
        assert dict(flat(first[part])) == dict(flat(second[part])), part
    assert [figures(raw) for raw in first["reports"]] == [figures(raw) for raw in second["reports"]]
    best = [load(folder / BEST) for folder in (one, other)]
    assert dict(flat(best[0]["model"])) == dict(flat(best[1]["model"]))
    assert figures(best[0]["report"]) == figures(best[1]["report"])


def figures(raw: dict[str, Any]) -> dict[str, Any]:
    """A report without its timings and its origin."""
    return {k: v for k, v in raw.items() if k not in TIMED}
