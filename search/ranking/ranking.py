"""The ranked table of a search, and which configuration wins."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

from ..space.config import SearchConfig
from ..space.space import values_by_field
from ..study.record import End, TrialRecord
from .contenders import leaders, to_confirm
from .row import Row
from .trial_order import CAN_WIN, best_map, highest_rung, sort_trials


def rank(config: SearchConfig, records: Iterable[TrialRecord]) -> list[Row]:
    """All trials in order of their configurations; the runs that confirm one come right behind it.

    The order is that of `sort_trials`. Once all confirming runs have ended, the confirmed
    configurations come first, by the mean AP of their fresh runs.
    """
    records = list(records)
    confirming = _confirming(records)
    fresh = _fresh(confirming)
    searched = sort_trials(config, (record for record in records if record.confirms is None))
    if _is_confirmed(config, records, confirming):
        # sorting is stable: those without fresh runs keep their order
        searched.sort(key=lambda record: _mean_map(fresh.get(record.number, ())), reverse=True)
    rows = []
    for place, first in enumerate(searched, start=1):
        for record in (first, *sorted(confirming[first.number], key=lambda run: run.number)):
            values = values_by_field(record.parameters)
            rung = highest_rung(config, record)
            rows.append(Row(place, record, values, rung, fresh.get(record.number, ())))
    return rows


def winner(rows: list[Row]) -> Row | None:
    """The first row whose trial can win, None where none can."""
    return next(
        (row for row in rows if row.record.end in CAN_WIN and row.map is not None),
        None,
    )


def _confirming(records: list[TrialRecord]) -> defaultdict[int, list[TrialRecord]]:
    """The trials that confirm each trial, by its number."""
    runs = defaultdict(list)
    for record in records:
        if record.confirms is not None:
            runs[record.confirms].append(record)
    return runs


def _fresh(confirming: dict[int, list[TrialRecord]]) -> dict[int, tuple[TrialRecord, ...]]:
    """The finished runs of each configuration whose confirming runs have all ended."""
    return {
        number: finished
        for number, runs in confirming.items()
        if all(run.end is not None for run in runs)
        and (finished := tuple(run for run in runs if run.end is End.FINISHED))
    }


def _mean_map(runs: tuple[TrialRecord, ...]) -> float:
    return mean(map(best_map, runs)) if runs else -1.0


def _is_confirmed(
    config: SearchConfig,
    records: list[TrialRecord],
    confirming: defaultdict[int, list[TrialRecord]],
) -> bool:
    """Whether each leader has confirming runs, and all runs that confirm have ended."""
    best = leaders(config, records)
    runs = [run for first in to_confirm(config, records) for run in confirming[first.number]]
    all_ended = all(run.end is not None for run in runs)
    return bool(best) and all_ended and all(confirming[record.number] for record in best)
