"""The nodes of a cluster, and how many trials they hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ROUNDING = 1e-6
"""Added before a count of trials is rounded down: three times 0.1 is a bit more than 0.3."""


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    others: dict[str, float] = field(default_factory=dict)
    """Accelerator types and custom resources, under Ray's names."""


def node_with(resources: Mapping[str, float]) -> Node:
    """A node with these resources, under Ray's names."""
    builtin = ("CPU", "GPU", "memory", "object_store_memory")
    others = {
        name: amount
        for name, amount in resources.items()
        if name not in builtin and not name.startswith("node:")
    }
    return Node(resources.get("CPU", 0), resources.get("GPU", 0), others)


def nodes() -> list[Node]:
    """The nodes of the connected cluster that are alive now."""
    import ray  # takes seconds, and reading a definition does without

    return [
        node_with(node["Resources"])
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def slots(
    machines: list[Node], cpus: float, gpus: float, others: Mapping[str, float] | None = None
) -> int:
    """How many trials these machines hold at once, each with so many CPUs, GPUs and `others`."""
    return sum(_slots_of(node, cpus, gpus, others or {}) for node in machines)


def _slots_of(node: Node, cpus: float, gpus: float, others: Mapping[str, float]) -> int:
    counts = [int(node.others.get(name, 0) / n + ROUNDING) for name, n in others.items()]
    if cpus:
        counts.append(int(node.cpus / cpus + ROUNDING))
    if 0 < gpus < 1:
        # A fraction stays on one device: three trials of 0.4 need two GPUs.
        counts.append(int(node.gpus) * int(1 / gpus + ROUNDING))
    elif gpus:
        counts.append(int(node.gpus / gpus + ROUNDING))
    return min(counts, default=10**6)
