"""What trials held of the cluster."""

from pathlib import Path

import pytest

from search.space.config import Resources
from search.study import allocation as shares
from search.study.allocation import held, note_share
from search.study.storage import open_study


def test_each_epoch_counts_with_the_share_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path, "tiny")
    for at, share in (
        (10.0, Resources(cpus_per_trial=4)),
        (20.0, Resources(cpus_per_trial=1, gpus_per_trial=0.5)),
    ):
        monkeypatch.setattr(shares.time, "time", lambda at=at: at)
        note_share(study, share)
    study = open_study(tmp_path, "tiny")  # as another driver finds it
    assert held(study, [(11.0, 2.0), (19.0, 1.0), (20.0, 3.0)]) == (3 * 4 + 3, 1.5)


def test_of_an_old_study_an_epoch_held_one_core(tmp_path: Path) -> None:
    assert held(open_study(tmp_path, "tiny"), [(1.0, 5.0)]) == (5.0, 0.0)
