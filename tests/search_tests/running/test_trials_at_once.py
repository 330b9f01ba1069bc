"""How many trials run at once."""

from collections.abc import Callable
from typing import Any

import pytest

from search.running.trials_at_once import cached_for_a_second, describe_slots, slots
from search.space.config import TrialResources

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("machines", "size", "line"),
    [
        ([(2, 0)], (2, 0), "1 trial at once, 2 CPUs each (1 node)"),
        ([(2, 0)], (1, 0), "2 trials at once, 1 CPU each (1 node)"),
        ([(8, 2)] * 4, (4, 1), "8 trials at once, 1 GPU each (4 nodes)"),
        ([(8, 2)], (1, 0.5), "4 trials at once, 0.5 GPU each (1 node)"),
    ],
)
def test_the_first_line_says_what_each_trial_gets(
    cluster: Callable[..., None],
    machines: list[tuple[float, float]],
    size: tuple[float, float],
    line: str,
) -> None:
    cluster(*machines)
    assert describe_slots(TrialResources(cpus_per_trial=size[0], gpus_per_trial=size[1])) == line


def test_nodes_are_counted_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, counts = [100.0], iter([4, 8])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    counted = cached_for_a_second(lambda: next(counts))
    assert [counted(), counted()] == [4, 4]
    now[0] += 1
    assert [counted(), counted()] == [8, 8]


def test_a_cpu_node_never_gets_a_gpu_trial(cluster: Callable[..., None], make_search: Make) -> None:
    cluster((64, 0), (8, 1))
    assert slots(TrialResources(cpus_per_trial=1, gpus_per_trial=0.5), []) == 2
