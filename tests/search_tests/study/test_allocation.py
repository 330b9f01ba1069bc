"""The CPU- and GPU-seconds that trials had allocated."""

import time
from pathlib import Path

import pytest

from search.space.config import TrialResources
from search.study.allocation import allocated_seconds, record_allocation
from search.study.storage import open_study


def test_each_epoch_counts_with_the_allocation_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path, "tiny")
    for at, resources in (
        (10.0, TrialResources(cpus_per_trial=4)),
        (20.0, TrialResources(cpus_per_trial=1, gpus_per_trial=0.5)),
    ):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        record_allocation(study, resources)
    study = open_study(tmp_path, "tiny")  # as another driver reads it
    assert allocated_seconds(study, [(11.0, 2.0), (19.0, 1.0), (20.0, 3.0)]) == (3 * 4 + 3, 1.5)


def test_an_epoch_before_the_first_allocation_had_one_cpu(tmp_path: Path) -> None:
    assert allocated_seconds(open_study(tmp_path, "tiny"), [(1.0, 5.0)]) == (5.0, 0.0)
