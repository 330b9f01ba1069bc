"""Confirming: the best configurations and the baseline are trained again with other seeds.

The best of many runs is partly the luckiest. So the best few configurations run again, and the one
with the best mean of these fresh runs wins. The baseline, which is the configuration in
search.yaml, runs again as often, so that the winner can be compared with it: see `gain`.
"""

from collections.abc import Callable

from ..space.config import SearchConfig
from ..study.search_state import SearchState
from ..study.study import Study
from .contenders import leaders, to_confirm


def missing_runs(config: SearchConfig, study: Study) -> list[tuple[int, int]]:
    """The confirming runs that are not in the study: number of the trial to confirm, and seed."""
    confirm = config.search.confirm
    if confirm == "off":
        return []
    best = to_confirm(config, study.records.values())
    known = {(record.confirms, record.seed) for record in study.records.values()}
    first = config.train.seed + 1
    wanted = [
        (record.number, seed)
        for seed in range(first, first + confirm.seeds)  # runs of one seed share its head phase
        for record in best
    ]
    return [run for run in wanted if run not in known]


def enqueue(
    config: SearchConfig, study: Study, say: Callable[[str], None] = lambda line: None
) -> bool:
    """Queue the missing confirming runs in the study, and say which; False when none is missing."""
    runs = missing_runs(config, study)
    if runs:
        best = {record.number for record in leaders(config, study.records.values())}
        names = [
            f"#{number}" + ("" if number in best else " (the baseline)")
            for number in dict.fromkeys(number for number, _ in runs)
        ]
        say(f"run again with other seeds, to be confirmed: {', '.join(names)}")
    for number, seed in runs:
        parameters = study.records[number].parameters
        study.enqueue(parameters, f"confirms #{number}", confirms=number, seed=seed)
    return bool(runs)


def is_complete(config: SearchConfig, study: Study) -> bool:
    """Whether the search has all its trials, the confirming ones included, and all have ended.

    Earlier versions did not confirm the baseline. A search that such a version ended stays
    complete, so showing its result again trains nothing. When more trials or seeds are asked for,
    the baseline is confirmed too.
    """
    unconfirmed = {number for number, _ in missing_runs(config, study)}
    if study.state == SearchState.DONE:
        unconfirmed &= {record.number for record in leaders(config, study.records.values())}
    return (
        len(study.searched()) >= config.search.trials
        and len(study.ended()) == len(study.records)
        and not unconfirmed
    )
