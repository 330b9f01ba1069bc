"""Named checks that run on every node of the connected cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SECONDS = 120.0
"""How long the checks of a node may take, with the start of its worker."""


@dataclass(frozen=True)
class Check:
    """Something that must hold on a node."""

    name: str
    ask: Callable[[], str]
    """Says what is wrong there, and how to fix it; an empty string if all is well."""


def failed_checks(checks: list[Check]) -> list[str]:
    """What is wrong on any node: `storage: ... (on 10.0.0.2, 10.0.0.3)`, one line per problem."""
    run = ray.remote(_run)
    asked = {
        # num_cpus=0: the node may be busy
        run.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)
        ).remote(checks): node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    addresses: dict[str, list[str]] = {}
    for answer, address in asked.items():
        for line in _lines(answer):
            addresses.setdefault(line, []).append(address)
    return [f"{line} (on {', '.join(nodes)})" for line, nodes in addresses.items()]


def _run(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {wrong}" for check in checks if (wrong := check.ask())]


def _lines(answer: Any) -> list[str]:
    """What the checks of one node said, or why they said nothing."""
    try:
        lines: list[str] = ray.get(answer, timeout=0)
        return lines
    except ray.exceptions.GetTimeoutError:
        return [f"node: does not answer within {SECONDS:g} s; see `ray status`"]
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        return [f"node: cannot run the checks: {last}; is Unfreeze's environment installed there?"]
