"""The gain over the baseline: its interval, and that it is hardly ever claimed without reason.

Searches are simulated with the real rules: ASHA stops, the best are confirmed, the best mean wins.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search.ranking.asha import stops
from search.ranking.confirm import missing_runs
from search.ranking.gain import Gain, gain
from search.ranking.gain_sentence import describe_gain
from search.ranking.ranking import rank, winner
from search.ranking.row import Row
from search.space.config import SearchConfig
from search.study.record import End, TrialRecord

Make = Callable[..., Any]
CLEAR = "That is more than luck."
UNCLEAR = "may be luck"
SEARCHES = 300
TRIALS, EPOCHS = 8, 2
NOISE = 0.01
"""Standard deviation between runs that differ in their seed alone."""


def gain_of_winner(rows: list[Row]) -> Gain:
    """The gain of the rows' winner."""
    best = winner(rows)
    assert best is not None
    result = gain(rows, best)
    assert result is not None
    return result


def interval(rows: list[Row]) -> tuple[float, float]:
    """The interval of that gain."""
    result = gain_of_winner(rows).interval
    assert result is not None
    return result


class Simulation:
    """A search whose trials reach the APs in `levels`, plus noise.

    `noises` are standard deviations by configuration; runs of one seed share noise of the size
    `shared`.
    """

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
        """Search, confirm, and describe the gain."""
        for number in range(TRIALS):
            origin = "sampled" if number else "as written"
            self._train(TrialRecord(number, origin, {"lr": number}), judged=True)
        for number, seed in missing_runs(self.config, self._study()):
            record = TrialRecord(len(self.records), f"confirms #{number}", {"lr": number})
            record.confirms, record.seed = number, seed
            self._train(record, judged=False)
        rows = rank(self.config, self.records.values())
        best = winner(rows)
        assert best is not None and best.fresh
        return describe_gain(self.config, rows, best)

    def _study(self) -> Any:
        return SimpleNamespace(records=self.records)

    def _train(self, record: TrialRecord, judged: bool) -> None:
        which = record.parameters["lr"]
        seed_noise = np.random.default_rng((self._seed, record.seed or 0)).normal(0, self._shared)
        top = self._levels[which] + seed_noise + self._draw.normal(0, self._noises[which])
        self.records[record.number] = record
        record.end = End.FINISHED
        asha = self.config.search.asha
        assert asha != "off"
        for report in self._reports([0.1, 0.9 * top, top]):
            others = self.records.values()
            stop = judged and stops(asha, EPOCHS, record, report, others)
            record.reports[report.epoch] = report
            if stop:
                record.end = End.PRUNED
                return


@pytest.fixture
def simulate(make_search: Make, make_reports: Make) -> Callable[..., list[str]]:
    """Simulates many searches; returns the description of each gain."""

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
def test_among_equal_configurations_a_gain_is_hardly_ever_claimed(
    simulate: Callable[..., list[str]], top: int, seeds: int
) -> None:
    claims = sum(CLEAR in line for line in simulate(top, seeds))
    assert claims < 0.05 * SEARCHES


@pytest.mark.parametrize("which", [0, 3])
def test_nor_where_one_is_noisier_or_runs_of_a_seed_share_noise(
    simulate: Callable[..., list[str]], which: int
) -> None:
    noises = [3 * NOISE if number == which else NOISE for number in range(TRIALS)]
    for lines in (simulate(2, 3, noises=noises), simulate(2, 2, shared=2 * NOISE)):
        assert sum(CLEAR in line for line in lines) < 0.05 * SEARCHES


@pytest.mark.parametrize(("seeds", "fraction"), [(2, 0.4), (3, 0.8)])
def test_a_gain_of_four_times_the_noise_is_claimed(
    simulate: Callable[..., list[str]], seeds: int, fraction: float
) -> None:
    lines = simulate(2, seeds, gain=4 * NOISE)
    assert sum(CLEAR in line for line in lines) > fraction * SEARCHES
    assert all(CLEAR in line or UNCLEAR in line or "search.yaml) won" in line for line in lines)


def test_from_one_run_each_nothing_is_claimed(simulate: Callable[..., list[str]]) -> None:
    lines = simulate(2, 1, gain=10 * NOISE)[:20]
    assert not any(CLEAR in line for line in lines)
    assert any("With one run each this may be luck" in line for line in lines)


def test_the_more_configurations_the_wider_the_interval(made: Make) -> None:
    _, few = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41])
    _, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41], [0.4, 0.34, 0.35])
    narrow, wide = gain_of_winner(few), gain_of_winner(rows)
    # t of 3 degrees at 1 - 0.025 / 2 is 4.177, and more degrees do not make up for it at 2 seeds
    assert interval(rows)[0] == pytest.approx(0.1 - 4.177 * 0.00005**0.5, abs=1e-5)
    assert (narrow.choices, wide.choices) == (1, 2)


def test_where_the_two_vary_more_than_the_others_their_noise_counts(made: Make) -> None:
    _, rows = made([0.3, 0.26, 0.34], [0.5, 0.40, 0.41], [0.4, 0.35, 0.35])
    half = 4.177 * ((0.0032 + 0.00005) / 2) ** 0.5
    assert interval(rows)[1] - gain_of_winner(rows).difference == pytest.approx(half, abs=1e-4)
