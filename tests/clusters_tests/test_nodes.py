"""The nodes of a cluster, and how many trials fit on them."""

import pytest
import ray

from clusters.nodes import Node, node_with, nodes, slots


@pytest.mark.parametrize(
    ("machines", "cpus", "gpus", "count"),
    [
        ([], 1, 0, 0),
        ([Node(2, 0)], 1, 0, 2),
        ([Node(2, 0)], 2, 0, 1),
        ([Node(2, 0)], 3, 0, 0),
        ([Node(2, 0)], 1.5, 0, 1),
        ([Node(1, 0)], 0.1, 0, 10),
        ([Node(3, 0)], 0.3, 0, 10),
        ([Node(3, 0), Node(3, 0)], 2, 0, 2),
        ([Node(8, 2)], 1, 1, 2),
        ([Node(8, 2)], 8, 1, 1),
        ([Node(8, 2)], 1, 0.5, 4),
        ([Node(8, 2)], 1, 0.4, 4),
        ([Node(8, 1)], 1, 0.6, 1),
        ([Node(8, 1)], 1, 0.1, 8),
        ([Node(64, 1)], 1, 0.1, 10),
        ([Node(8, 0), Node(8, 1)], 1, 1, 1),
        ([Node(0, 4)], 1, 1, 0),
    ],
)
def test_slots_are_what_each_node_holds_by_itself(
    machines: list[Node], cpus: float, gpus: float, count: int
) -> None:
    assert slots(machines, cpus, gpus) == count


def test_nodes_are_those_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    assert nodes() == [Node(4, 1), Node(2, 0), Node(0, 0)]


def test_what_is_neither_cpu_nor_gpu_nor_memory_is_kept_by_its_name() -> None:
    resources = {"CPU": 8.0, "memory": 1e9, "node:10.0.0.2": 1.0, "accelerator_type:L4": 1.0}
    assert node_with(resources) == Node(8, 0, {"accelerator_type:L4": 1.0})
