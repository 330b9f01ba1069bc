"""The configuration that one trial trained with."""

from trainer.config import TrainConfig

from ..space.config import SearchConfig
from ..space.space import values_by_field, with_values
from ..study.record import TrialRecord


def config_of(config: SearchConfig, record: TrialRecord, precision: str) -> TrainConfig:
    """The search's configuration with a trial's values, seed and precision in it.

    Args:
        config: The search.
        record: The trial.
        precision: The precision that `auto` was resolved to, as the study records it.
    """
    values = values_by_field(record.parameters) | {"train.precision": precision}
    if record.seed is not None:
        values["train.seed"] = record.seed
    return with_values(config, values)
