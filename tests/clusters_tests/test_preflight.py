"""Checks on every node: run there, told in a line each."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from clusters.connect import connected
from clusters.preflight import Check, failures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected("local", [ROOT / "clusters"]):
        yield


def test_all_is_well(cluster: None) -> None:
    assert failures([Check("nothing", partial(str, ""))]) == []


def test_each_failure_is_a_line_with_its_name_and_node(cluster: None) -> None:
    (node,) = ray.nodes()
    checks = [Check(name, partial(str, text)) for name, text in (("a", "x"), ("b", ""), ("c", "z"))]
    where = f"(on {node['NodeManagerAddress']})"
    assert failures(checks) == [f"a: x {where}", f"c: z {where}"]


def test_it_takes_no_share_of_a_busy_node(cluster: None) -> None:
    class Holder:  # in here, so that it goes to the worker itself: it has no tests to import from
        def ready(self) -> None: ...

    holder: Any = ray.remote(Holder)
    cpus = ray.cluster_resources()["CPU"]
    held = holder.options(num_cpus=cpus).remote()
    ray.get(held.ready.remote())
    assert failures([Check("nothing", partial(str, ""))]) == []
    ray.kill(held)


def test_a_check_that_breaks_is_told_too(cluster: None) -> None:
    (line,) = failures([Check("broken", partial(int, "no number"))])
    assert line.startswith("node: could not run the checks: ") and "no number" in line
