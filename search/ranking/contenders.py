"""Which trials are confirmed, and which of them can still become the winner."""

from collections.abc import Iterable

from trainer.epoch_report import EpochReport

from ..space.config import SearchConfig
from ..space.space import Values, values_by_field
from ..study.record import End, TrialRecord
from .trial_order import CAN_WIN, sort_trials

BASELINE = "as written"
"""Origin, as studies store it, of the trial that trains the configuration in search.yaml."""

UNFREEZE = "train.unfreeze."
"""Begins the names of the fields that the head phase does not depend on."""


def baseline_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial of the baseline, which is the configuration in search.yaml."""
    return next((record for record in records if record.origin == BASELINE), None)


def leaders(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The best configurations that trained all their epochs, `search.confirm.top` of them.

    Each is given by one trial. For a configuration that was sampled twice that is the better
    trial, for the baseline it is the baseline's trial. Of trials whose best epoch is the same
    epoch of the same head phase only the first counts: their checkpoints are the same weights.
    """
    confirm = config.search.confirm
    if confirm == "off":
        return []
    records = list(records)
    # earlier versions confirmed trials with the same head epoch; their searches stay complete
    confirmed = {record.confirms for record in records}
    searched = [record for record in records if record.confirms is None]
    baseline = baseline_trial(searched)
    epochs: list[tuple[int, Values]] = []
    seen = [baseline.parameters] if baseline else []
    best: list[TrialRecord] = []
    for record in sort_trials(config, searched):
        if record.end is not End.FINISHED or record.best is None:
            continue
        epoch = _head_epoch(record, record.best)
        is_new = epoch is None or epoch not in epochs or record.number in confirmed
        if record is baseline or (record.parameters not in seen and is_new):
            seen.append(record.parameters)
            epochs += [epoch] if epoch else []
            best.append(record)
    return best[: confirm.top]


def _head_epoch(record: TrialRecord, best: EpochReport) -> tuple[int, Values] | None:
    """What the weights of a best epoch in the head phase depend on; None for a later epoch."""
    if best.unfreeze_epoch:
        return None
    values = values_by_field(record.parameters).items()
    return best.epoch, {name: value for name, value in values if not name.startswith(UNFREEZE)}


def to_confirm(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The leaders, and the baseline that they are compared with.

    The baseline is confirmed when ASHA stopped it too, but not when it failed.
    """
    records = list(records)
    best = leaders(config, records)
    baseline = baseline_trial(records)
    if best and baseline and baseline not in best and baseline.end in {End.FINISHED, End.PRUNED}:
        best.append(baseline)
    return best


def may_win(config: SearchConfig, records: Iterable[TrialRecord]) -> set[int]:
    """Numbers of the trials that have, or may yet have, the winner's checkpoint.

    These are the first trial in order, the first that has ended (a running one may yet diverge),
    all trials to confirm, and all runs of a configuration that was confirmed.
    """
    records = list(records)
    searched = sort_trials(config, (record for record in records if record.confirms is None))
    ended = [record for record in searched if record.end in CAN_WIN - {None}]
    numbers = {record.number for record in (*searched[:1], *ended[:1])}
    numbers |= {record.number for record in to_confirm(config, records)}
    for record in records:
        if record.confirms is not None:
            numbers |= {record.number, record.confirms}
    return numbers
