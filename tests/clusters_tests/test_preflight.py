"""Checks on every node: each failure is a line."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from clusters.connect import connected
from clusters.preflight import Check, failed_checks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected("local", [ROOT / "clusters"]):
        yield


def test_all_is_well(cluster: None) -> None:
    assert failed_checks([Check("nothing", partial(str, ""))]) == []


def test_each_failure_is_a_line_with_its_name_and_node(cluster: None) -> None:
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    checks = [Check(name, partial(str, text)) for name, text in (("a", "x"), ("b", ""), ("c", "z"))]
    where = f"(on {node['NodeManagerAddress']})"
    assert failed_checks(checks) == [f"a: x {where}", f"c: z {where}"]


def test_a_busy_node_is_checked_too(cluster: None) -> None:
    class Holder:  # defined here, so that it is pickled: workers cannot import the tests
        def ready(self) -> None: ...

    holder: Any = ray.remote(Holder)
    cpus = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
    held = holder.options(num_cpus=cpus).remote()
    ray.get(held.ready.remote())
    assert failed_checks([Check("nothing", partial(str, ""))]) == []
    ray.kill(held)


def test_a_check_that_raises_is_a_line_too(cluster: None) -> None:
    (line,) = failed_checks([Check("broken", cast("Any", partial(int, "no number")))])
    assert line.startswith("node: cannot run the checks: ") and "no number" in line
