"""By how much the winner beats the configuration as written, and whether that may be luck.

Only fresh runs count, with seeds that chose nothing. The run that a configuration was chosen by is
the luckiest of many: with it in the winner's mean, every fifth search among equal configurations
would be said to gain. `tests/search_tests/test_gain.py` simulates such searches.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import variance

from ..space.config import SearchConfig
from ..study.study import End
from .results import Row

LEVEL = 0.95
"""Of the interval: of searches among equal configurations it is above zero in at most 2.5 %."""
MORE_SEEDS = "set search.confirm.seeds to {seeds} and give the same line again"


@dataclass(frozen=True)
class Gain:
    """The winner against the configuration as written, in val AP."""

    difference: float
    """Between the means of their fresh runs."""
    interval: tuple[float, float] | None
    """What the difference may be but for luck; None where no configuration has two fresh runs."""
    choices: int
    """Configurations that the winner was the best of, which the interval allows for."""

    @property
    def is_clear(self) -> bool:
        """Whether it is more than luck."""
        return self.interval is not None and self.interval[0] > 0


def gain(rows: list[Row], row: Row) -> Gain | None:
    """The gain of a row over the configuration as written; None without fresh runs of both.

    The interval is Student's for two means, with the variance pooled over all confirmed
    configurations, since each has few runs, or over these two where they vary more. The winner is
    the best of several, each compared with the one as written, so the level is Bonferroni's for so
    many comparisons (Montgomery, Design and Analysis of Experiments, 8th edition, 3.5).

    Measured on 3000 simulated searches among equal configurations, the best 1, 2 or 5 confirmed
    with 2, 3 or 5 seeds: above zero in 1 to 3 %; without Bonferroni in 4 % (best 2) and 8 % (best
    5). Where one configuration is four times as noisy as all others, in 6 % at most (best 5, 2
    seeds), else under 5 %. A gain of four standard deviations of a run is clear in 55 % of
    searches (best 2, 2 seeds) and 93 % (3 seeds); by Welch's interval, which pools nothing, in 17
    and 76 %. Runs of one seed share a head: then differences are smaller, and the interval is too
    wide rather than too narrow. Who looks again with ever more seeds until it is clear is wrong
    more often: after 2 looks in 4 %, after 3 in 5 %.
    """
    from scipy.special import stdtrit  # which takes a while, and every command imports this file

    written = written_row(rows)
    if written is None or not written.fresh or not row.fresh or _same(row, written):
        return None
    confirmed = [one for one in rows if one.fresh]
    difference = sum(row.maps) / len(row.maps) - sum(written.maps) / len(written.maps)
    choices = sum(one is not written for one in confirmed)
    pooled, free = _pooled(confirmed)
    if not free:
        return Gain(difference, None, choices)
    noise = max(pooled, _pooled([row, written])[0])
    error = sqrt(noise * (1 / len(row.maps) + 1 / len(written.maps)))
    half = float(stdtrit(free, 1 - (1 - LEVEL) / 2 / choices)) * error
    return Gain(difference, (difference - half, difference + half), choices)


def _pooled(rows: list[Row]) -> tuple[float, int]:
    """Variance of val AP between runs that differ in their seed alone, and its degrees of
    freedom."""
    many = [row.maps for row in rows if len(row.maps) > 1]
    free = sum(len(maps) - 1 for maps in many)
    return sum(variance(m) * (len(m) - 1) for m in many) / free if free else 0.0, free


def gain_metrics(rows: list[Row], row: Row) -> dict[str, float]:
    """The same for MLflow, as far as it is known."""
    found = gain(rows, row)
    if found is None:
        return {}
    low_high = zip(("gain/low", "gain/high"), found.interval or (), strict=False)
    return {"gain/difference": found.difference, **dict(low_high)}


def written_row(rows: list[Row]) -> Row | None:
    """The row of the configuration as written."""
    return next((row for row in rows if row.record.origin == "as written"), None)


def describe_gain(config: SearchConfig, rows: list[Row], row: Row) -> str:
    """In words that stand alone: what the winner gains, from how many fresh runs, and whether that
    can be told from luck. The report, the commands, MLflow and the export's card all say this.

    Empty where one configuration was trained.
    """
    written = written_row(rows)
    if written is None or written.map is None:
        return "The configuration as written has no result, so there is no gain over it to tell."
    if _same(row, written):
        return _is_as_written(rows, row)
    found = gain(rows, row)
    if found is None:
        return _without_fresh_runs(config, rows, row, written)
    said = (
        f"With other seeds the winner came to {_fresh(rows, row)} and the configuration as written "
        f"to {_fresh(rows, written)}: {found.difference:+.3f}"
    )
    more = MORE_SEEDS.format(seeds=max(3, 2 * max(len(one.fresh) for one in rows)))
    if found.interval is None:
        return f"{said}. From one run each that cannot be told from luck; {more}."
    low, high = found.interval
    chosen = f", the winner being the best of {found.choices}" if found.choices > 1 else ""
    said += f" (95 % interval {low:+.3f} to {high:+.3f}{chosen})."
    if found.is_clear:
        return f"{said} That is more than luck."
    return f"{said} That cannot be told from luck; for a narrower interval, {more}."


def _is_as_written(rows: list[Row], row: Row) -> str:
    others = [r for r in rows if r.record.confirms is None and not _same(r, row)]
    if not others:
        return ""
    confirmed = [r for r in others if r.fresh]
    if row.fresh and confirmed:
        best = max(confirmed, key=lambda r: r.mean or 0.0)
        return (
            f"The configuration as written won: with other seeds it came to {_fresh(rows, row)} "
            f"and the best of the others to {_fresh(rows, best)}."
        )
    if not any(r.rung >= row.rung and r.map is not None for r in others):
        return (
            "The configuration as written won; no other trial was given as many epochs, so whether "
            "one of them is better is not known."
        )
    return "The configuration as written won: nothing that was tried beat it."


def _without_fresh_runs(config: SearchConfig, rows: list[Row], row: Row, written: Row) -> str:
    if written.record.end not in {End.FINISHED, End.PRUNED, None}:
        return (
            f"The configuration as written ended as {written.state}, so there is no gain over it "
            "to tell."
        )
    apart = (
        f"During training the winner came to {row.map:.3f} val AP and the configuration as written "
        f"to {written.map:.3f}"
    )
    if written.rung < row.rung:
        apart += f" in {written.record.unfreeze_epoch} unfreeze epochs only"
    if config.search.confirm == "off":
        then = "search.confirm trains both again with other seeds"
    elif row.fresh and not _again(rows, written):  # of a version that confirmed the best alone
        then = MORE_SEEDS.format(seeds=max(3, 1 + len(row.fresh))) + ", which trains it again too"
    else:
        then = "that takes runs of both with other seeds, which have not all finished"
    return (
        f"{apart}. The winner was chosen by that run, so the difference cannot be told from luck; "
        f"{then}."
    )


def _same(one: Row, other: Row) -> bool:
    return one.record.number == other.record.number


def _fresh(rows: list[Row], row: Row) -> str:
    """`0.551 val AP (mean of 2 runs, 1 more did not finish)`."""
    count = len(row.fresh)
    what = "one run" if count == 1 else f"mean of {count} runs"
    failed = len(_again(rows, row)) - count
    return f"{row.mean:.3f} val AP ({what}{f', {failed} more did not finish' if failed else ''})"


def _again(rows: list[Row], row: Row) -> list[Row]:
    """The runs that confirm a configuration, or were to."""
    return [one for one in rows if one.record.confirms == row.record.number]
