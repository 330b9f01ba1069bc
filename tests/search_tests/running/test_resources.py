"""What one trial gets of a cluster."""

from collections.abc import Callable
from typing import Any

import pytest
import ray

from clusters import connect
from clusters.definitions import Node
from search.running.resources import (
    describe_slots,
    divided,
    every_second,
    largest_trial,
    share_of_a_trial,
    slots,
    threads_of,
)
from search.space.config import Resources
from search.space.space import read_space
from trainer.config import BadInput

Make = Callable[..., Any]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Ray say that its nodes are these, each (CPUs, GPUs) and what all have besides."""

    def make(*machines: tuple[float, float], **others: float) -> None:
        nodes = [{"Alive": True, "Resources": {"CPU": c, "GPU": g, **others}} for c, g in machines]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)

    return make


@pytest.mark.parametrize(
    ("machines", "trials", "share"),
    [
        ([(2, 0)], 32, (1, 0)),
        ([(2, 0)], 4, (2, 0)),
        ([(2, 0)], 1, (2, 0)),
        ([(16, 0)], 8, (8, 0)),
        ([(16, 0)], 32, (2, 0)),
        ([(4, 0)] * 3, 32, (1, 0)),
        ([(4, 0)] * 3, 4, (4, 0)),
        ([(16, 1)], 32, (16, 1)),
        ([(16, 4)], 32, (4, 1)),
        ([(2, 4)], 32, (1, 1)),
        ([(16, 0), (8, 2), (32, 4)], 32, (4, 1)),
    ],
)
def test_auto_is_a_gpu_where_there_are_some_else_a_share_of_the_cores(
    cluster: Callable[..., None],
    make_search: Make,
    machines: list[tuple[float, float]],
    trials: int,
    share: tuple[float, float],
) -> None:
    cluster(*machines)
    found = share_of_a_trial(make_search({"search.trials": trials}))
    assert (found.cpus_per_trial, found.gpus_per_trial) == share
    assert slots(found, []) >= 1


@pytest.mark.parametrize(
    ("machine", "taken", "trials", "share"),
    [
        ((16, 1), 0.1, 32, (4, 0.25)),  # at most four, whatever the memory has room for
        ((16, 1), 0.28, 32, (5, 0.3333)),
        ((16, 1), 0.42, 32, (8, 0.5)),
        ((16, 1), 0.46, 32, (16, 1)),  # two of them would fill it to the brim
        ((16, 1), 1.0, 32, (16, 1)),
        ((16, 1), 0.0, 32, (16, 1)),  # nobody measured
        ((16, 1), 0.1, 12, (5, 0.3333)),  # a search of few trials learns nothing from many at once
        ((16, 4), 0.1, 32, (2, 0.5)),
        ((16, 4), 0.1, 12, (4, 1)),
        ((2, 1), 0.1, 32, (1, 0.5)),  # a core for each
    ],
)
def test_a_gpu_is_shared_as_far_as_its_memory_goes(
    cluster: Callable[..., None],
    make_search: Make,
    machine: tuple[float, float],
    taken: float,
    trials: int,
    share: tuple[float, float],
) -> None:
    cluster(machine)
    config = make_search({"search.trials": trials})
    found = divided(config, share_of_a_trial(config), taken, connect.nodes(), [])
    assert (found.cpus_per_trial, found.gpus_per_trial) == share
    assert slots(found, []) == machine[1] * int(1 / share[1])


def test_gpus_of_several_kinds_are_given_whole(make_search: Make) -> None:
    a10, h100 = (Node(8, 1, {f"accelerator_type:{kind}": 1}) for kind in ("A10G", "H100"))
    whole = Resources(cpus_per_trial=8, gpus_per_trial=1)
    config = make_search({"search.trials": 32})
    assert divided(config, whole, 0.1, [a10, h100], []) == whole
    assert divided(config, whole, 0.1, [a10], [Node(8, 1)]) == whole  # nobody knows its kind
    assert divided(config, whole, 0.1, [a10, Node(8, 0)], [a10]).gpus_per_trial == 0.25


def test_machines_that_are_there_are_not_counted_again_as_those_to_come(make_search: Make) -> None:
    whole = Resources(cpus_per_trial=8, gpus_per_trial=1)
    config = make_search({"search.trials": 16})
    for there in ([], [Node(8, 1)], [Node(8, 1)] * 2):
        found = divided(config, whole, 0.1, there, [Node(8, 1)] * 2)
        assert found.gpus_per_trial == 0.5


def test_the_largest_of_a_space_is_what_takes_most_memory(make_search: Make) -> None:
    schedules = {"at_once": {"train.unfreeze.batch_size": {"int": [1, 16]}}, "gradual": None}
    space = {
        "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
        "train.head.batch_size": {"choice": [2, 8, 4]},
        "train.unfreeze.depth": {"choice": [1, "all", 3]},
        "train.unfreeze.schedule": {"choice": schedules},
        "model.image_size": {"choice": [96, 128]},
        "train.optimizer": {"choice": ["sgd", "adamw"]},
    }
    config = make_search({"space": space, "train.unfreeze.lr": 1e-3, "train.unfreeze.depth": 3})
    found = largest_trial(config, read_space(config.space))
    assert found is not None
    assert found.model.image_size == 128
    assert found.train.optimizer == "adamw"
    assert found.train.head.batch_size == 8
    unfreeze = found.train.unfreeze
    assert (unfreeze.batch_size, unfreeze.depth, unfreeze.lr) == (16, "all", 1e-3)


def test_of_several_models_nobody_knows_which_is_largest(make_search: Make) -> None:
    backbones = {"choice": ["tf_efficientnet_lite0", "resnet50"]}
    config = make_search({"space": {"model.backbone": backbones}})
    assert largest_trial(config, read_space(config.space)) is None


def test_what_is_written_is_taken(cluster: Callable[..., None], make_search: Make) -> None:
    cluster((8, 2), (4, 0))
    wanted = {"cpus_per_trial": 2, "gpus_per_trial": 0.5}
    share = share_of_a_trial(make_search({"resources": wanted, "cluster": "auto"}))
    assert share == Resources(cpus_per_trial=2, gpus_per_trial=0.5)
    assert slots(share, []) == 4


def test_a_cluster_without_cpus_holds_no_trial(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((0, 0))
    with pytest.raises(BadInput, match=r"a trial wants 1 CPUs and 0 GPUs.*at most 0 and 0"):
        share_of_a_trial(make_search({"cluster": "auto"}))


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (2.5, 2), (8, 8)])
def test_a_trial_computes_with_its_whole_cpus_and_one_at_least(cpus: float, threads: int) -> None:
    assert threads_of(Resources(cpus_per_trial=cpus)) == threads


@pytest.mark.parametrize(
    "wanted", [{"cpus_per_trial": 16}, {"cpus_per_trial": 1, "gpus_per_trial": 1}]
)
def test_a_trial_that_no_node_could_hold_is_refused_with_what_one_has(
    cluster: Callable[..., None], make_search: Make, wanted: dict[str, float]
) -> None:
    cluster((8, 0), (4, 0))
    with pytest.raises(BadInput, match=r"resources: .*legal: at most 8 and 0"):
        share_of_a_trial(make_search({"resources": wanted, "cluster": "auto"}))


def test_idle_gpus_are_told(
    cluster: Callable[..., None], make_search: Make, caplog: pytest.LogCaptureFixture
) -> None:
    cluster((8, 2))
    share_of_a_trial(make_search({"resources": {"cpus_per_trial": 1}}))
    assert "the cluster's GPUs stay unused" in caplog.text


@pytest.mark.parametrize(
    ("machines", "share", "line"),
    [
        ([(2, 0)], (2, 0), "1 trial at once, 2 CPUs each (1 node)"),
        ([(2, 0)], (1, 0), "2 trials at once, 1 CPU each (1 node)"),
        ([(8, 2)] * 4, (4, 1), "8 trials at once, 1 GPU each (4 nodes)"),
        ([(8, 2)], (1, 0.5), "4 trials at once, 0.5 GPU each (1 node)"),
    ],
)
def test_the_first_line_says_what_a_trial_gets(
    cluster: Callable[..., None],
    machines: list[tuple[float, float]],
    share: tuple[float, float],
    line: str,
) -> None:
    cluster(*machines)
    assert describe_slots(Resources(cpus_per_trial=share[0], gpus_per_trial=share[1])) == line


def test_what_is_neither_cpu_nor_gpu_is_asked_for_under_rays_names(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((8, 2), (8, 2), **{"accelerator_type:L4": 1.0, "licence": 3.0})
    wanted: dict[str, Any] = {
        "cpus_per_trial": 2,
        "gpus_per_trial": 0.5,
        "accelerator_type": "L4",
        "custom_per_trial": {"licence": 1},
    }
    share = share_of_a_trial(make_search({"resources": wanted, "cluster": "auto"}))
    assert share.others == {"accelerator_type:L4": 0.001, "licence": 1}
    assert slots(share, []) == 6  # of 8 by their GPUs; the licences decide


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"gpus_per_trial": 1, "accelerator_type": "H100"}, "accelerator_type:H100, which no node"),
        ({"custom_per_trial": {"licence": 1}}, "licence, which no node"),
    ],
)
def test_what_no_node_is_called_is_refused_with_what_there_is(
    cluster: Callable[..., None], make_search: Make, wanted: dict[str, Any], told: str
) -> None:
    cluster((8, 2), **{"accelerator_type:L4": 1.0})
    with pytest.raises(BadInput, match=told) as raised:
        share_of_a_trial(make_search({"resources": wanted, "cluster": "auto"}))
    assert "there: accelerator_type:L4" in str(raised.value)


def test_more_of_a_custom_resource_than_a_node_has_is_refused(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((8, 0), licence=1.0)
    with pytest.raises(BadInput, match="1 CPUs and 0 GPUs, 2 licence, more than any node"):
        wanted = {"custom_per_trial": {"licence": 2}}
        share_of_a_trial(make_search({"resources": wanted, "cluster": "auto"}))


def test_a_gpu_that_autoscaling_may_bring_counts(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((0, 0))  # a head alone
    share = share_of_a_trial(make_search({"cluster": "aws"}))
    assert share == Resources(cpus_per_trial=8, gpus_per_trial=1)
    assert slots(share, connect.may_have("aws")) == 4 and slots(share, []) == 0
    assert describe_slots(share, "aws") == (
        "0 trials at once, 1 GPU each (1 node; up to 4 when the cluster has grown)"
    )


def test_nodes_are_counted_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, counts = [100.0], iter([4, 8])
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    counted = every_second(lambda: next(counts))
    assert [counted(), counted()] == [4, 4]
    now[0] += 1
    assert [counted(), counted()] == [8, 8]


def test_a_cpu_node_never_gets_a_gpu_trial(cluster: Callable[..., None], make_search: Make) -> None:
    cluster((64, 0), (8, 1))
    assert slots(Resources(cpus_per_trial=1, gpus_per_trial=0.5), []) == 2
