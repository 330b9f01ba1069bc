"""What won, by how much over the baseline, and how far to trust it: the report's first lines."""

from ..ranking.gain_sentence import describe_gain
from ..ranking.results import SearchResult
from ..study.search_state import SearchState
from .formatting import cost_sentences, show_settings, trial_name


def verdict(result: SearchResult) -> list[str]:
    """What won, by how much over the baseline, how far to trust it, and what it cost."""
    row = result.winner
    if row is None or row.map is None:
        return ["No trial has come to a result yet."]
    lines = []
    if result.state != SearchState.DONE:
        searched = [row for row in result.rows if row.record.confirms is None]
        ended = sum(row.record.end is not None for row in searched)
        lines.append(f"{ended} of {result.config.search.trials} trials have ended: {result.state}.")
    settings = show_settings(row, result.space)
    won = "won" if result.metrics else "leads so far"
    lines.append(f"Trial {trial_name(row)} {won}" + (f": {settings}." if settings else "."))
    lines += _measured(result, row.map)
    lines.append(describe_gain(result.config, result.rows, row))
    lines.append(cost_sentences(result.costs))
    return list(filter(None, lines))


def _measured(result: SearchResult, training_map: float) -> list[str]:
    """The winner's AP on val and on test, measured from its export; before that, of training."""
    val, test = (
        result.metrics.get(split, {}).get("figures", {}).get("map") for split in ("val", "test")
    )
    if val is None:
        return [f"Its best val AP during training is {training_map:.3f}."]
    lines = [f"Measured from its export, its val AP is {val:.3f}."]
    if test is not None:
        looks = result.metrics["test"].get("looks", 1)
        difference = f"{abs(test - val):.3f} {'below' if test < val else 'above'} val"
        times = "once" if looks == 1 else f"{looks} times, so its AP there is optimistic"
        lines.append(
            f"On test, which did not choose the winner, it is {test:.3f}: {difference}. Test was "
            f"evaluated {times}."
        )
    return lines
