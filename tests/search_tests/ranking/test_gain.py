"""The gain over the configuration as written: what is said, and that it is true.

Searches are simulated on the real rules: ASHA stops, the best are confirmed, the best mean wins.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search.ranking.asha import stops
from search.ranking.confirm import missing
from search.ranking.gain import describe_gain, gain, gain_metrics
from search.ranking.results import rank, winner
from search.space.config import SearchConfig
from search.study.study import End, TrialRecord

Make = Callable[..., Any]
CLEAR = "That is more than luck."
UNCLEAR = "cannot be told from luck"
SEARCHES = 300
TRIALS, EPOCHS = 8, 2
NOISE = 0.01
"""Standard deviation between runs that differ in their seed alone."""


class Simulation:
    """A search whose trials reach the APs that `levels` gives their configurations, but for noise
    of the sizes `noises`; runs of one seed share some of it."""

    def __init__(
        self,
        config: SearchConfig,
        reports: Make,
        levels: Any,
        noises: Any,
        shared: float,
        seed: int,
    ) -> None:
        self.config = config
        self.records: dict[int, TrialRecord] = {}
        self._reports = reports
        self._levels, self._noises, self._shared = levels, noises, shared
        self._seed = seed
        self._draw = np.random.default_rng(seed)

    def run(self) -> str:
        """Search, confirm, and say what the gain is."""
        for number in range(TRIALS):
            origin = "sampled" if number else "as written"
            self._train(TrialRecord(number, origin, {"lr": number}), judged=True)
        for number, seed in missing(self.config, SimpleNamespace(records=self.records)):
            record = TrialRecord(len(self.records), f"confirms #{number}", {"lr": number})
            record.confirms, record.seed = number, seed
            self._train(record, judged=False)
        rows = rank(self.config, self.records.values())
        best = winner(rows)
        assert best is not None and best.fresh
        return describe_gain(self.config, rows, best)

    def _train(self, record: TrialRecord, judged: bool) -> None:
        which = record.parameters["lr"]
        of_seed = np.random.default_rng((self._seed, record.seed or 0)).normal(0, self._shared)
        top = self._levels[which] + of_seed + self._draw.normal(0, self._noises[which])
        self.records[record.number] = record
        record.end = End.FINISHED
        for report in self._reports([0.1, 0.9 * top, top]):
            others = self.records.values()
            stop = judged and stops(self.config.search.asha, EPOCHS, record, report, others)
            record.reports[report.epoch] = report
            if stop:
                record.end = End.PRUNED
                return


@pytest.fixture
def simulate(make_search: Make, make_reports: Make) -> Callable[..., list[str]]:
    """What many simulated searches say of their gain."""

    def run(
        top: int,
        seeds: int,
        *,
        gain: float = 0.0,
        noises: Iterable[float] = (NOISE,) * TRIALS,
        shared: float = 0.0,
    ) -> list[str]:
        confirm = {"top": top, "seeds": seeds}
        asha = {"grace_period": 1, "reduction_factor": 2}
        config = make_search(
            {"search.confirm": confirm, "search.asha": asha, "train.unfreeze.epochs": EPOCHS}
        )
        levels = [0.5] + [0.5 + gain * (number % 3 == 0) for number in range(1, TRIALS)]
        sizes = list(noises)
        return [
            Simulation(config, make_reports, levels, sizes, shared, seed).run()
            for seed in range(SEARCHES)
        ]

    return run


@pytest.mark.parametrize(("top", "seeds"), [(1, 2), (2, 2), (2, 3), (4, 2)])
def test_of_equal_configurations_a_gain_is_hardly_ever_claimed(
    simulate: Callable[..., list[str]], top: int, seeds: int
) -> None:
    claims = sum(CLEAR in line for line in simulate(top, seeds))
    assert claims < 0.05 * SEARCHES


@pytest.mark.parametrize("which", [0, 3])
def test_nor_where_one_is_noisier_or_runs_of_a_seed_are_alike(
    simulate: Callable[..., list[str]], which: int
) -> None:
    noises = [3 * NOISE if number == which else NOISE for number in range(TRIALS)]
    for lines in (simulate(2, 3, noises=noises), simulate(2, 2, shared=2 * NOISE)):
        assert sum(CLEAR in line for line in lines) < 0.05 * SEARCHES


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.4), (3, 0.8)])
def test_a_gain_of_four_times_the_noise_is_claimed(
    simulate: Callable[..., list[str]], seeds: int, share: float
) -> None:
    lines = simulate(2, seeds, gain=4 * NOISE)
    assert sum(CLEAR in line for line in lines) > share * SEARCHES
    assert all(CLEAR in line or UNCLEAR in line or "as written won" in line for line in lines)


def test_from_one_run_each_nothing_is_claimed(simulate: Callable[..., list[str]]) -> None:
    lines = simulate(2, 1, gain=10 * NOISE)[:20]
    assert not any(CLEAR in line for line in lines)
    assert any("From one run each that cannot be told from luck" in line for line in lines)


# -- in words -------------------------------------------------------------------------------------


@pytest.fixture
def made(make_search: Make, make_record: Make) -> Callable[..., tuple[SearchConfig, Any]]:
    """The rows of a search; `runs` are the APs of each configuration's runs, the one that it was
    chosen by first."""

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


def said(config: SearchConfig, rows: Any) -> str:
    best = winner(rows)
    assert best is not None
    return describe_gain(config, rows, best)


def test_a_gain_is_told_with_its_interval_and_the_runs_it_comes_from(made: Make) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41], [0.2])
    found = gain(rows, winner(rows))
    assert found.difference == pytest.approx(0.1)
    # Student's t of 2 degrees is 4.303; each mean has a variance of 0.00005 / 2
    assert found.interval == pytest.approx(
        (0.1 - 4.303 * 0.00005**0.5, 0.1 + 4.303 * 0.00005**0.5), abs=1e-5
    )
    assert gain_metrics(rows, winner(rows)) == {
        "gain/difference": found.difference,
        "gain/low": found.interval[0],
        "gain/high": found.interval[1],
    }
    assert said(config, rows) == (
        "With other seeds the winner came to 0.405 val AP (mean of 2 runs) and the configuration "
        "as written to 0.305 val AP (mean of 2 runs): +0.100 (95 % interval +0.070 to +0.130). "
        "That is more than luck."
    )


def test_the_more_were_to_choose_from_the_wider_the_interval(made: Make) -> None:
    _, few = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41])
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41], [0.4, 0.34, 0.35])
    narrow, wide = (gain(r, winner(r)) for r in (few, rows))
    # t of 3 degrees at 1 - 0.025 / 2 is 4.177, and more degrees do not make up for it at 2 seeds
    assert wide.interval[0] == pytest.approx(0.1 - 4.177 * 0.00005**0.5, abs=1e-5)
    assert (narrow.choices, wide.choices) == (1, 2)
    assert "+0.130, the winner being the best of 2)" in said(config, rows)


def test_where_the_two_vary_more_than_the_others_their_own_noise_counts(made: Make) -> None:
    _, rows = made([0.3, 0.26, 0.34], [0.5, 0.40, 0.41], [0.4, 0.35, 0.35])
    found = gain(rows, winner(rows))
    half = 4.177 * ((0.0032 + 0.00005) / 2) ** 0.5
    assert found.interval[1] - found.difference == pytest.approx(half, abs=1e-4)


@pytest.mark.parametrize(("lead", "clear"), [(0.029, False), (0.031, True)])
def test_what_does_not_clear_zero_may_be_luck(made: Make, lead: float, clear: bool) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.30 + lead, 0.31 + lead])  # 0.0304 is the half
    line = said(config, rows)
    assert (CLEAR in line, UNCLEAR in line) == (clear, not clear)
    assert ("set search.confirm.seeds to 4" in line) is not clear


def test_the_run_that_chose_the_winner_counts_for_nothing(made: Make) -> None:
    for chosen_by in (0.35, 0.95):
        config, rows = made([0.3, 0.30, 0.31], [chosen_by, 0.31, 0.32])
        assert gain(rows, winner(rows)).difference == pytest.approx(0.01)
        assert UNCLEAR in said(config, rows)


def test_from_one_run_each_no_luck_is_known(made: Make) -> None:
    config, rows = made([0.3, 0.30], [0.5, 0.40])
    assert said(config, rows) == (
        "With other seeds the winner came to 0.400 val AP (one run) and the configuration as "
        "written to 0.300 val AP (one run): +0.100. From one run each that cannot be told from "
        "luck; set search.confirm.seeds to 3 and give the same line again."
    )
    assert gain_metrics(rows, winner(rows)) == {"gain/difference": pytest.approx(0.1)}


def test_a_configuration_as_written_that_asha_stopped_is_compared_by_its_fresh_runs(
    made: Make,
) -> None:
    config, rows = made([0.2, 0.30, 0.31], [0.5, 0.40, 0.41], ends={0: End.PRUNED})
    assert CLEAR in said(config, rows)
    config, rows = made([0.2, 0.50, 0.51], [0.5, 0.40, 0.41], ends={0: End.PRUNED})
    assert said(config, rows) == (
        "The configuration as written won: with other seeds it came to 0.505 val AP (mean of 2 "
        "runs) and the best of the others to 0.405 val AP (mean of 2 runs)."
    )


def test_a_run_that_failed_is_told(made: Make) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, -1])
    assert "0.400 val AP (one run, 1 more did not finish)" in said(config, rows)
    config, rows = made([0.3, -1, -1], [0.5, 0.40, 0.41])
    line = said(config, rows)
    assert "that takes runs of both with other seeds" in line and UNCLEAR in line


@pytest.mark.parametrize(
    ("runs", "ends", "told"),
    [
        (
            ([0.3], [0.5, 0.4]),
            {},
            "set search.confirm.seeds to 3 and give the same line again, which",
        ),
        (([0.3], [0.5, 0.4, 0.4, 0.4]), {}, "set search.confirm.seeds to 4 and give the same line"),
        (([0.3], [0.5]), {}, "that takes runs of both with other seeds, which have not all"),
        (([0.2], [0.5]), {0: End.PRUNED}, "to 0.200 in 1 unfreeze epochs only. The winner was"),
        (([0.3], [0.5, 0.4]), {0: End.DIVERGED}, "ended as diverged, so there is no gain over it"),
        (([0.5], [0.3]), {}, "The configuration as written won: nothing that was tried beat it."),
        (([0.5], [0.3]), {1: End.PRUNED}, "no other trial was given as many epochs"),
    ],
)
def test_without_fresh_runs_of_both_no_gain_is_told(
    made: Make, runs: Any, ends: dict[int, End], told: str
) -> None:
    config, rows = made(*runs, ends=ends)
    assert told in said(config, rows) and gain(rows, winner(rows)) is None
    assert gain_metrics(rows, winner(rows)) == {}


def test_without_confirming_the_way_to_it_is_told(make_search: Make, make_record: Make) -> None:
    records = [
        make_record(0, [0.1] + [0.3] * 9, origin="as written", end=End.FINISHED),
        make_record(1, [0.1] + [0.4] * 9, parameters={"n": 1}, end=End.FINISHED),
    ]
    config = make_search()
    rows = rank(config, records)
    assert said(config, rows) == (
        "During training the winner came to 0.400 val AP and the configuration as written to "
        "0.300. The winner was chosen by that run, so the difference cannot be told from luck; "
        "search.confirm trains both again with other seeds."
    )
    assert describe_gain(config, rows[1:], rows[1]) == ""
    assert "has no result" in describe_gain(config, rows[:1], rows[0])
