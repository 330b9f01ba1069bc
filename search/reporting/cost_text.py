"""What a search cost and saved, in words."""

from trainer.text.counts import counted

from ..ranking.costs import Costs


def cost_lines(spent: Costs) -> str:
    """What a search cost, in lines for a terminal."""
    hours = f"{spent.cpu_hours:.2f} CPU-hours"
    if spent.gpu_hours:
        hours = f"{spent.gpu_hours:.2f} GPU-hours"
    trials = counted(spent.trials, "trial")
    line = f"{trials}; {spent.epochs_run} epochs trained in {hours}, {spent.epochs_forked} forked"
    if spent.epochs_not_run:
        line += f", {spent.epochs_not_run} not run since ASHA stopped their trials"
    lines = [line]
    if spent.images_from_cache:
        lines.append(
            f"frozen stages read from files for {spent.images_from_cache:,} pictures, not run again"
        )
    lines += filter(None, [time_saved(spent)])
    return "\n".join(lines)


def cost_sentences(spent: Costs) -> str:
    """What a search cost, in sentences for the report; empty before its first epoch."""
    if not spent.epochs_run + spent.epochs_forked + spent.epochs_not_run:
        return ""
    text = (
        f"Its {spent.trials} trial{'s' * (spent.trials > 1)} trained {spent.epochs_run} epochs; "
        f"{spent.epochs_forked} were forked, which means taken over from another trial"
    )
    if spent.epochs_not_run:
        text += f", and {spent.epochs_not_run} were not run, since ASHA had stopped their trials"
    text += "."
    if spent.images_from_cache:
        pictures = f"{spent.images_from_cache:,} pictures"
        text += f" For {pictures} the frozen stages were read from files, not run."
    line = time_saved(spent)
    return text + (f" {line[0].upper()}{line[1:]}." if line else "")


def time_saved(spent: Costs) -> str:
    """`training took 3 min of trials' time; without forks and stops about 6 min`.

    Empty where nothing was saved.
    """
    if spent.seconds_without_savings <= spent.seconds:
        return ""
    what = "forks, stops and cached features" if spent.counts_cached_features else "forks and stops"
    return (
        f"training took {duration(spent.seconds)} of trials' time; without {what} about "
        f"{duration(spent.seconds_without_savings)}"
    )


def duration(seconds: float) -> str:
    """`40 s`, `14 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
