"""What one trial gets of the cluster, and how many run at once."""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from clusters import connect
from clusters.definitions import Node
from trainer.config import BadInput, TrainConfig

from ..space.config import KIND, Resources, SearchConfig
from ..space.space import Space, Values, apply, flat

log = logging.getLogger(__name__)

FILLED = 0.9
"""Share of a GPU's memory that its trials may take together, beside what CUDA has for each."""
MOST = 4
"""Trials on one GPU."""


def share_of_a_trial(config: SearchConfig) -> Resources:
    """What one trial gets on the cluster that is connected. Raises BadInput when it never could."""
    machines = connect.nodes() + connect.may_have(config.cluster)
    share = config.resources
    if share == "auto":
        share = _share(machines, config.search.trials)
    elif not share.gpus_per_trial and any(node.gpus for node in machines):
        log.warning("resources.gpus_per_trial is 0: the cluster's GPUs stay unused")
    if not at_once(share, machines):
        raise BadInput([f"resources: {_refusal(share, machines)}"])
    return share


def _refusal(share: Resources, machines: list[Node]) -> str:
    offered = sorted({name for node in machines for name in node.others})
    for name in share.others:
        if name not in offered:
            there = ", ".join(offered) or "none"
            return f"a trial wants {name}, which no node has or will have (there: {there})"
    wanted = [f"{n:g} {name}" for name, n in share.custom_per_trial.items()]
    largest = max(machines, key=lambda node: (node.gpus, node.cpus), default=Node(0, 0))
    return (
        f"a trial wants {share.cpus_per_trial:g} CPUs and {share.gpus_per_trial:g} GPUs"
        f"{''.join(f', {w}' for w in wanted)}, more than any node has or will have (legal: at most "
        f"{largest.cpus:g} and {largest.gpus:g})"
    )


def largest_trial(config: SearchConfig, space: Space) -> TrainConfig | None:
    """The configuration of a space that takes the most memory to train; None where it compares
    models, of which nobody knows before."""
    values: Values = {}
    for dimension in flat(space):
        name = dimension.name
        if name.startswith("model.") and name != "model.image_size":
            return None
        if name == "train.optimizer":
            values[name] = "adamw"  # two moments a parameter
        elif name.endswith((".batch_size", ".image_size", ".depth")):
            most = dimension.choices or (dimension.high,)
            values[name] = max([*most, values.get(name, 0)], key=_number)
    return apply(config, values)


def _number(value: Any) -> float:
    return float("inf") if value == "all" else float(value)


def divided(
    config: SearchConfig, share: Resources, taken: float, machines: list[Node], later: list[Node]
) -> Resources:
    """What a trial gets when its GPU has room for more: the largest takes this share of its memory,
    0 where nobody knows. At most a quarter of the search's trials run at once, as on CPUs. `later`
    are the machines that autoscaling may make, those of `machines` among them."""
    gpus = max(sum(node.gpus for node in nodes) for nodes in (machines, later))
    kinds = {_kind(node) for node in [*machines, *later] if node.gpus}
    if not taken or not gpus or len(kinds) > 1:
        return share  # measured was one kind
    count = int(min(FILLED / taken, MOST, share.cpus_per_trial, config.search.trials // 4 // gpus))
    if count < 2:
        return share
    return Resources(
        cpus_per_trial=share.cpus_per_trial // count,
        gpus_per_trial=round(1 / count, 4),  # as Ray counts
    )


def _kind(node: Node) -> str:
    return next((name for name in node.others if name.startswith(KIND)), "unknown")


def here(config: SearchConfig) -> tuple[Resources, list[Node]]:
    """What a trial would get on this machine alone, and this machine."""
    gpus = torch.cuda.device_count()
    machine = Node(float(len(os.sched_getaffinity(0))), float(gpus))
    share = config.resources
    if share == "auto":
        share = _share([machine], config.search.trials)
    return share, [machine]


def threads_of(share: Resources) -> int:
    """Threads that a trial computes with."""
    return int(max(1, share.cpus_per_trial))


def _share(machines: list[Node], trials: int) -> Resources:
    with_gpus = [node for node in machines if node.gpus >= 1]
    if with_gpus:
        cpus = min(node.cpus // node.gpus for node in with_gpus)
        return Resources(cpus_per_trial=max(1, cpus), gpus_per_trial=1)
    # small trials side by side use cores best, but a search learns only from trials that ended
    cores = [int(node.cpus) for node in machines if node.cpus >= 1]
    if not cores:
        return Resources()
    at_once = max(1, min(sum(cores), trials // 4))
    return Resources(cpus_per_trial=max(1, min(max(cores), sum(cores) // at_once)))


AT_ONCE = " at once, "
"""In the line with which a search begins."""


def describe_slots(share: Resources, cluster: str = "local") -> str:
    """`8 trials at once, 1 GPU each (4 nodes)`."""
    machines, later = connect.nodes(), connect.may_have(cluster)
    count = at_once(share, machines)
    unit, amount = (
        ("GPU", share.gpus_per_trial) if share.gpus_per_trial else ("CPU", share.cpus_per_trial)
    )
    more = at_once(share, later)
    growing = f"; up to {more} when the cluster has grown" if more > count else ""
    return (
        f"{_count(count, 'trial')}{AT_ONCE}{amount:g} {unit}{'s' if amount > 1 else ''} each "
        f"({_count(len(machines), 'node')}{growing})"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def slots(share: Resources, later: list[Node]) -> int:
    """How many trials of this size may be handed out now: what the cluster holds, or the nodes that
    it grows to, for it grows only while some wait."""
    return max(at_once(share, connect.nodes()), at_once(share, later))


def every_second(count: Callable[[], int]) -> Callable[[], int]:
    """The same, asked once a second at most: Ray takes milliseconds to list its nodes, and Tune's
    loop wants to know at every step."""
    known, until = 0, 0.0

    def counted() -> int:
        nonlocal known, until
        if time.monotonic() >= until:
            known, until = count(), time.monotonic() + 1
        return known

    return counted


def at_once(share: Resources, machines: list[Node]) -> int:
    """How many trials of this size these machines hold, whatever else they do."""
    return connect.slots(machines, share.cpus_per_trial, share.gpus_per_trial, share.others)
