"""How many trials run at once."""

import time
from collections.abc import Callable

from clusters import nodes
from clusters.definitions import nodes_after_growth
from clusters.nodes import Node
from trainer.text.counts import counted

from ..space.config import TrialResources

SLOTS_MARK = " at once, "
"""Part of the line that `describe_slots` makes. With it a search says that its checks passed."""


def trials_at_once(resources: TrialResources, machines: list[Node]) -> int:
    """How many trials of this size these machines hold, whatever else they do."""
    return nodes.slots(
        machines, resources.cpus_per_trial, resources.gpus_per_trial, resources.others
    )


def slots(resources: TrialResources, later: list[Node]) -> int:
    """How many trials of this size may be handed out now.

    As many as the cluster holds, or as the nodes hold that it may grow to, listed in `later`: a
    cluster grows only while trials wait.
    """
    return max(trials_at_once(resources, nodes.nodes()), trials_at_once(resources, later))


def cached_for_a_second(count: Callable[[], int]) -> Callable[[], int]:
    """Call `count` at most once a second, and repeat its last result in between.

    Ray takes milliseconds to list its nodes, and Tune's loop asks at every step.
    """
    last, until = 0, 0.0

    def counted() -> int:
        nonlocal last, until
        if time.monotonic() >= until:
            last, until = count(), time.monotonic() + 1
        return last

    return counted


def describe_slots(resources: TrialResources, cluster: str = "local") -> str:
    """Such as `8 trials at once, 1 GPU each (4 nodes)`."""
    machines, later = nodes.nodes(), nodes_after_growth(cluster)
    now, grown = trials_at_once(resources, machines), trials_at_once(resources, later)
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    unit, amount = ("GPU", gpus) if gpus else ("CPU", cpus)
    growth = f"; up to {grown} when the cluster has grown" if grown > now else ""
    return (
        f"{counted(now, 'trial')}{SLOTS_MARK}{counted(amount, unit)} each "
        f"({counted(len(machines), 'node')}{growth})"
    )
