"""Searches whose configurations were confirmed, for the tests of the gain."""

from collections.abc import Callable
from typing import Any

import pytest

from search.ranking.ranking import rank
from search.space.config import SearchConfig
from search.study.record import End

Make = Callable[..., Any]


@pytest.fixture
def made(make_search: Make, make_record: Make) -> Callable[..., tuple[SearchConfig, Any]]:
    """The rows of a search whose configurations came to these APs.

    `runs` are the APs of each configuration's runs, first the run that it was chosen by.
    """

    def make(
        *runs: list[float], top: int = 2, ends: dict[int, End] | None = None
    ) -> tuple[SearchConfig, Any]:
        config = make_search({"search.confirm": {"top": top, "seeds": 1}})
        records = []
        for number, (first, *_) in enumerate(runs):
            origin = "sampled" if number else "as written"
            end = (ends or {}).get(number, End.FINISHED)
            maps = [0.1, first] if end is End.PRUNED else [0.1] + [first] * 9
            given = {"origin": origin, "end": end, "parameters": {"n": number}}
            records.append(make_record(number, maps, **given))
        for number, (_, *fresh) in enumerate(runs):
            for seed, value in enumerate(fresh, start=1):
                record = make_record(len(records), [0.1] + [value] * 9, end=End.FINISHED)
                record.confirms, record.seed = number, seed
                if value < 0:
                    record.reports, record.end = {}, End.DIVERGED
                records.append(record)
        return config, rank(config, records)

    return make
