"""Confirming: the best configurations, and the one as written, are trained again with other seeds.

The best of many runs is partly the luckiest. So the first few are run again, and the one with the
best mean of these fresh runs wins. The one as written runs again as often, so that the two can be
compared: see `gain`.
"""

from collections.abc import Callable

from ..space.config import SearchConfig
from ..study.study import Study
from .results import leaders, to_confirm


def missing(config: SearchConfig, study: Study) -> list[tuple[int, int]]:
    """The runs that are still to be begun: number of the trial to confirm, and seed."""
    confirm = config.search.confirm
    if confirm == "off":
        return []
    best = to_confirm(config, study.records.values())
    known = {(r.confirms, r.seed) for r in study.records.values()}
    first = config.train.seed + 1
    wanted = [
        (record.number, seed)
        for seed in range(first, first + confirm.seeds)  # a seed's runs share its head phase
        for record in best
    ]
    return [run for run in wanted if run not in known]


def enqueue(
    config: SearchConfig, study: Study, say: Callable[[str], None] = lambda line: None
) -> bool:
    """Make the missing runs wait for their turn, and say so; False when there are none."""
    runs = missing(config, study)
    if runs:
        wanted = dict.fromkeys(number for number, _ in runs)
        best = {record.number for record in leaders(config, study.records.values())}
        say(
            "run again with other seeds, to be confirmed: "
            + ", ".join(f"#{n}" + ("" if n in best else " (as written)") for n in wanted)
        )
    for number, seed in runs:
        parameters = study.records[number].parameters
        study.enqueue(parameters, f"confirms #{number}", confirms=number, seed=seed)
    return bool(runs)


def is_complete(config: SearchConfig, study: Study) -> bool:
    """Whether the search has all its trials, confirming ones too, and each has an end.

    One that was done before the configuration as written was confirmed too stays done: to show it
    again trains nothing. Further trials or seeds, once asked for, bring these runs along.
    """
    left = {number for number, _ in missing(config, study)}
    if study.get("state") == "done":
        left &= {record.number for record in leaders(config, study.records.values())}
    return (
        len(study.searched()) >= config.search.trials
        and len(study.ended()) == len(study.records)
        and not left
    )
