"""What MLflow shows of a trial: its name, its parameters, its rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from search.space.space import values_by_field
from search.tracking.description import flat_metrics

Make = Callable[..., Any]


def test_metrics_group_by_what_they_are(make_reports: Make) -> None:
    rows = flat_metrics(make_reports([0.1, 0.3, 0.2])[2])
    assert rows == {
        "val/map": 0.2,
        "val/map_50": 0.4,
        "val/map_75": 0.1,
        "best_map": 0.3,
        "phase/depth": 2,
        "phase/unfreeze_epoch": 2,
        "time/seconds": 2.0,
        "time/images_per_second": 50.0,
        "train/classification": pytest.approx(1 / 3),
        "lr/stage5": 1e-4,
        "lr/head": 1e-3,
        "trainable/stage5": 15,
        "trainable/head": 100,
        "weight_decay/stage5": 1e-4,
        "weight_decay/head": 1e-4,
    }
    assert all(type(value) is float for value in rows.values())


def test_parameters_go_by_dotted_field(make_record: Make) -> None:
    # MLflow refuses a name with the branch in it
    record = make_record(7, [], parameters={"train.unfreeze.lr (train.optimizer=sgd)": 0.1})
    assert values_by_field(record.parameters) == {"train.unfreeze.lr": 0.1}


def test_system_metrics_are_a_separate_group(make_reports: Make) -> None:
    report = replace(make_reports([0.1])[0], system={"cpu_cores": 0.9})
    assert flat_metrics(report)["system/cpu_cores"] == 0.9
