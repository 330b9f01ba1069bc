"""The configuration that one trial trained with."""

from collections.abc import Callable
from typing import Any

from search.exports.trial_config import config_of

Make = Callable[..., Any]


def test_a_trials_values_precision_and_seed_are_in_its_config(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"train.seed": 3})
    record = make_record(0, [], parameters={"train.unfreeze.lr": 0.01})
    trial = config_of(config, record, "bf16")
    assert (trial.train.unfreeze.lr, trial.train.precision, trial.train.seed) == (0.01, "bf16", 3)
    record.seed = 4
    assert config_of(config, record, "bf16").train.seed == 4
