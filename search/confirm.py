"""Confirming: the best configurations are trained again with other seeds.

The best of many runs is partly the luckiest. So the first few are run again, and the one with the
best mean wins.
"""

from collections.abc import Callable

from .config import SearchConfig
from .results import to_confirm
from .study import Study


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
        best = ", ".join(f"#{number}" for number in dict.fromkeys(number for number, _ in runs))
        say(f"the best so far run again with other seeds, to be confirmed: {best}")
    for number, seed in runs:
        parameters = study.records[number].parameters
        study.enqueue(parameters, f"confirms #{number}", confirms=number, seed=seed)
    return bool(runs)


def is_complete(config: SearchConfig, study: Study) -> bool:
    """Whether the search has all its trials, confirming ones too, and each has an end."""
    return (
        len(study.searched()) >= config.search.trials
        and len(study.ended()) == len(study.records)
        and not missing(config, study)
    )
