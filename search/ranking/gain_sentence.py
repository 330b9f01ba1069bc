"""The gain of the winner over the baseline, in a sentence that stands alone."""

from ..space.config import SearchConfig
from ..study.record import End
from .gain import Gain, are_same_heads, baseline_row, gain, is_same, is_same_head, same_head_seeds
from .row import Row

THE_BASELINE = "the baseline (the configuration in search.yaml)"
NOT_COMPARED = "Unfreezing improved neither, so these runs do not compare the configurations."
MORE_SEEDS = "set search.confirm.seeds to {seeds} and give the same command again"


def describe_gain(config: SearchConfig, rows: list[Row], winner: Row) -> str:
    """What the winner gains, from how many fresh runs, and whether that may be luck.

    The report, the commands, MLflow and the export's card show these sentences. They are empty
    where one configuration was trained.
    """
    baseline = baseline_row(rows)
    if baseline is None or baseline.map is None:
        return f"{_capitalized(THE_BASELINE)} has no result, so the gain over it is not known."
    if is_same(winner, baseline):
        return _baseline_won(rows, winner)
    if winner.fresh and are_same_heads(winner, baseline):
        return (
            f"With other seeds the winner and {THE_BASELINE} came to the same best epochs, of the "
            f"head phases that they share: {_mean(rows, winner)}. {NOT_COMPARED}"
        )
    result = gain(rows, winner)
    if result is None:
        return _without_fresh_runs(config, rows, winner, baseline)
    return _with_fresh_runs(rows, winner, baseline, result) + _shared_heads(winner, baseline)


def _with_fresh_runs(rows: list[Row], winner: Row, baseline: Row, result: Gain) -> str:
    comparison = (
        f"With other seeds the winner came to {_mean(rows, winner)} and {THE_BASELINE} to "
        f"{_mean(rows, baseline)}: {result.difference:+.3f}"
    )
    more = MORE_SEEDS.format(seeds=max(3, 2 * max(len(row.fresh) for row in rows)))
    if result.interval is None:
        return f"{comparison}. With one run each this may be luck; {more}."
    low, high = result.interval
    chosen = f", the winner being the best of {result.choices}" if result.choices > 1 else ""
    comparison += f" (95 % interval {low:+.3f} to {high:+.3f}{chosen})."
    if result.is_clear:
        return f"{comparison} That is more than luck."
    return f"{comparison} That may be luck; for a narrower interval, {more}."


def _baseline_won(rows: list[Row], baseline: Row) -> str:
    others = [row for row in rows if row.record.confirms is None and not is_same(row, baseline)]
    if not others:
        return ""
    won = f"{_capitalized(THE_BASELINE)} won"
    confirmed = [row for row in others if row.fresh]
    if baseline.fresh and confirmed:
        best = max(confirmed, key=lambda row: row.mean or 0.0)
        if are_same_heads(baseline, best):
            return (
                f"{won}: with other seeds it and the best of the others came to the same best "
                f"epochs, of the head phases that they share: {_mean(rows, baseline)}. "
                f"{NOT_COMPARED}"
            )
        return (
            f"{won}: with other seeds it came to {_mean(rows, baseline)} and the best of the "
            f"others to {_mean(rows, best)}.{_shared_heads(baseline, best)}"
        )
    if not any(row.rung >= baseline.rung and row.map is not None for row in others):
        return (
            f"{won}; no other trial trained as many epochs, so whether one of them is better is "
            "not known."
        )
    return f"{won}: nothing that was tried beat it."


def _without_fresh_runs(config: SearchConfig, rows: list[Row], winner: Row, baseline: Row) -> str:
    if baseline.record.end not in {End.FINISHED, End.PRUNED, None}:
        return (
            f"{_capitalized(THE_BASELINE)} ended as {baseline.state}, so the gain over it is not "
            "known."
        )
    if not winner.fresh and is_same_head(winner.record, baseline.record):
        return (
            f"During training the winner and {THE_BASELINE} came to the same best epoch, of the "
            f"head phase that they share: {winner.map:.3f} val AP. {NOT_COMPARED}"
        )
    comparison = (
        f"During training the winner came to {winner.map:.3f} val AP and {THE_BASELINE} to "
        f"{baseline.map:.3f}"
    )
    if baseline.rung < winner.rung:
        comparison += f", after {baseline.record.unfreeze_epoch} unfreeze epochs only"
    return (
        f"{comparison}. The winner was chosen by that run, so the difference may be "
        f"luck; {_next_step(config, rows, winner, baseline)}."
    )


def _shared_heads(one: Row, other: Row) -> str:
    """For how many seeds two configurations have the same best epoch, empty for none."""
    shared = same_head_seeds(one, other)
    if not shared:
        return ""
    seeds = f"{shared} of {max(len(one.fresh), len(other.fresh))} seeds"
    return f" For {seeds} both have the same best epoch, of the head phase that they share."


def _next_step(config: SearchConfig, rows: list[Row], winner: Row, baseline: Row) -> str:
    """What it takes to compare the winner and the baseline by fresh runs."""
    if config.search.confirm == "off":
        return "search.confirm trains both again with other seeds"
    if winner.fresh and not _confirming(rows, baseline):  # earlier versions did not confirm it
        more = MORE_SEEDS.format(seeds=max(3, 1 + len(winner.fresh)))
        return f"{more}, which trains the baseline again too"
    return "that takes runs of both with other seeds, which have not all finished"


def _mean(rows: list[Row], row: Row) -> str:
    """`0.551 val AP (mean of 2 runs, 1 more did not finish)`."""
    count = len(row.fresh)
    runs = "one run" if count == 1 else f"mean of {count} runs"
    failed = len(_confirming(rows, row)) - count
    return f"{row.mean:.3f} val AP ({runs}{f', {failed} more did not finish' if failed else ''})"


def _confirming(rows: list[Row], row: Row) -> list[Row]:
    """The rows of the runs that confirm a configuration, finished or not."""
    return [other for other in rows if other.record.confirms == row.record.number]


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
