"""Named checks, run on every node of the cluster that is connected."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SECONDS = 120.0
"""That the checks of a node may take, its worker's start included."""


@dataclass(frozen=True)
class Check:
    """A question to a node."""

    name: str
    ask: Callable[[], str]
    """Says what is wrong there, and how to mend it; nothing when all is well."""


def failures(checks: list[Check]) -> list[str]:
    """What is wrong on any node: `storage: ... (on 10.0.0.2, 10.0.0.3)`, a line each."""
    run = ray.remote(_run)
    asked = {
        # takes no share of the node, which may be busy
        run.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)
        ).remote(checks): node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
    found: dict[str, list[str]] = {}
    for answer, address in asked.items():
        for line in _lines(answer):
            found.setdefault(line, []).append(address)
    return [f"{line} (on {', '.join(addresses)})" for line, addresses in found.items()]


def _run(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {wrong}" for check in checks if (wrong := check.ask())]


def _lines(answer: Any) -> list[str]:
    try:
        lines: list[str] = ray.get(answer, timeout=0)
        return lines
    except ray.exceptions.GetTimeoutError:
        return [f"node: does not answer within {SECONDS:g} s; `ray status` says what it does"]
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        return [f"node: could not run the checks: {last}; is Unfreeze's environment there?"]
