"""What one trial gets of the cluster."""

from collections.abc import Callable
from typing import Any

import pytest

from clusters.definitions import nodes_after_growth
from clusters.nodes import Node, nodes
from search.running.trial_resources import (
    largest_config,
    num_threads,
    resources_on_shared_gpu,
    trial_resources,
)
from search.running.trials_at_once import describe_slots, slots
from search.space.config import TrialResources
from search.space.space import read_space
from trainer.config import InputError

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("machines", "trials", "expected"),
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
def test_auto_is_a_gpu_or_without_any_a_part_of_the_cores(
    cluster: Callable[..., None],
    make_search: Make,
    machines: list[tuple[float, float]],
    trials: int,
    expected: tuple[float, float],
) -> None:
    cluster(*machines)
    resources = trial_resources(make_search({"search.trials": trials}))
    assert (resources.cpus_per_trial, resources.gpus_per_trial) == expected
    assert slots(resources, []) >= 1


@pytest.mark.parametrize(
    ("machine", "taken", "trials", "expected"),
    [
        ((16, 1), 0.1, 32, (4, 0.25)),  # at most four, even if the memory holds more
        ((16, 1), 0.28, 32, (5, 0.3333)),
        ((16, 1), 0.42, 32, (8, 0.5)),
        ((16, 1), 0.46, 32, (16, 1)),  # two of them would fill it completely
        ((16, 1), 1.0, 32, (16, 1)),
        ((16, 1), 0.0, 32, (16, 1)),  # not measured
        ((16, 1), 0.1, 12, (5, 0.3333)),  # few trials teach too little if many run at once
        ((16, 4), 0.1, 32, (2, 0.5)),
        ((16, 4), 0.1, 12, (4, 1)),
        ((2, 1), 0.1, 32, (1, 0.5)),  # a core for each
    ],
)
def test_several_trials_get_a_gpu_if_its_memory_holds_them(
    cluster: Callable[..., None],
    make_search: Make,
    machine: tuple[float, float],
    taken: float,
    trials: int,
    expected: tuple[float, float],
) -> None:
    cluster(machine)
    config = make_search({"search.trials": trials})
    resources = resources_on_shared_gpu(config, trial_resources(config), taken, nodes(), [])
    assert (resources.cpus_per_trial, resources.gpus_per_trial) == expected
    assert slots(resources, []) == machine[1] * int(1 / expected[1])


def test_gpus_of_several_kinds_are_not_divided(make_search: Make) -> None:
    a10, h100 = (Node(8, 1, {f"accelerator_type:{kind}": 1}) for kind in ("A10G", "H100"))
    full = TrialResources(cpus_per_trial=8, gpus_per_trial=1)
    config = make_search({"search.trials": 32})
    assert resources_on_shared_gpu(config, full, 0.1, [a10, h100], []) == full
    assert (
        resources_on_shared_gpu(config, full, 0.1, [a10], [Node(8, 1)]) == full
    )  # its kind is unknown
    assert (
        resources_on_shared_gpu(config, full, 0.1, [a10, Node(8, 0)], [a10]).gpus_per_trial == 0.25
    )


def test_existing_machines_are_not_counted_again_as_future_ones(make_search: Make) -> None:
    full = TrialResources(cpus_per_trial=8, gpus_per_trial=1)
    config = make_search({"search.trials": 16})
    for now in ([], [Node(8, 1)], [Node(8, 1)] * 2):
        resources = resources_on_shared_gpu(config, full, 0.1, now, [Node(8, 1)] * 2)
        assert resources.gpus_per_trial == 0.5


def test_the_largest_trial_takes_the_most_memory(make_search: Make) -> None:
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
    resources = largest_config(config, read_space(config.space))
    assert resources is not None
    assert resources.model.image_size == 128
    assert resources.train.optimizer == "adamw"
    assert resources.train.head.batch_size == 8
    unfreeze = resources.train.unfreeze
    assert (unfreeze.batch_size, unfreeze.depth, unfreeze.lr) == (16, "all", 1e-3)


def test_of_several_models_the_largest_is_unknown(make_search: Make) -> None:
    backbones = {"choice": ["tf_efficientnet_lite0", "resnet50"]}
    config = make_search({"space": {"model.backbone": backbones}})
    assert largest_config(config, read_space(config.space)) is None


def test_configured_resources_are_used_as_they_are(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((8, 2), (4, 0))
    wanted = {"cpus_per_trial": 2, "gpus_per_trial": 0.5}
    resources = trial_resources(make_search({"resources": wanted, "cluster": "auto"}))
    assert resources == TrialResources(cpus_per_trial=2, gpus_per_trial=0.5)
    assert slots(resources, []) == 4


def test_a_cluster_without_cpus_holds_no_trial(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((0, 0))
    with pytest.raises(InputError, match=r"a trial wants 1 CPUs and 0 GPUs.*at most 0 and 0"):
        trial_resources(make_search({"cluster": "auto"}))


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (2.5, 2), (8, 8)])
def test_a_trial_has_a_thread_per_full_cpu_and_at_least_one(cpus: float, threads: int) -> None:
    assert num_threads(TrialResources(cpus_per_trial=cpus)) == threads


@pytest.mark.parametrize(
    "wanted", [{"cpus_per_trial": 16}, {"cpus_per_trial": 1, "gpus_per_trial": 1}]
)
def test_a_trial_that_fits_no_node_is_refused_with_the_limits(
    cluster: Callable[..., None], make_search: Make, wanted: dict[str, float]
) -> None:
    cluster((8, 0), (4, 0))
    with pytest.raises(InputError, match=r"resources: .*legal: at most 8 and 0"):
        trial_resources(make_search({"resources": wanted, "cluster": "auto"}))


def test_a_warning_names_idle_gpus(
    cluster: Callable[..., None], make_search: Make, caplog: pytest.LogCaptureFixture
) -> None:
    cluster((8, 2))
    trial_resources(make_search({"resources": {"cpus_per_trial": 1}}))
    assert "the cluster's GPUs stay unused" in caplog.text


def test_other_resources_go_by_rays_names(cluster: Callable[..., None], make_search: Make) -> None:
    cluster((8, 2), (8, 2), **{"accelerator_type:L4": 1.0, "licence": 3.0})
    wanted: dict[str, Any] = {
        "cpus_per_trial": 2,
        "gpus_per_trial": 0.5,
        "accelerator_type": "L4",
        "custom_per_trial": {"licence": 1},
    }
    resources = trial_resources(make_search({"resources": wanted, "cluster": "auto"}))
    assert resources.others == {"accelerator_type:L4": 0.001, "licence": 1}
    assert slots(resources, []) == 6  # of 8 by their GPUs; the licences decide


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"gpus_per_trial": 1, "accelerator_type": "H100"}, "accelerator_type:H100, which no node"),
        ({"custom_per_trial": {"licence": 1}}, "licence, which no node"),
    ],
)
def test_an_unknown_resource_is_refused_with_those_that_exist(
    cluster: Callable[..., None], make_search: Make, wanted: dict[str, Any], message: str
) -> None:
    cluster((8, 2), **{"accelerator_type:L4": 1.0})
    with pytest.raises(InputError, match=message) as raised:
        trial_resources(make_search({"resources": wanted, "cluster": "auto"}))
    assert "legal: accelerator_type:L4" in str(raised.value)


def test_more_of_a_custom_resource_than_a_node_has_is_refused(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((8, 0), licence=1.0)
    with pytest.raises(InputError, match="1 CPUs and 0 GPUs, 2 licence, more than any node"):
        wanted = {"custom_per_trial": {"licence": 2}}
        trial_resources(make_search({"resources": wanted, "cluster": "auto"}))


def test_a_gpu_that_autoscaling_may_bring_counts(
    cluster: Callable[..., None], make_search: Make
) -> None:
    cluster((0, 0))  # nothing but a head
    resources = trial_resources(make_search({"cluster": "aws"}))
    assert resources == TrialResources(cpus_per_trial=8, gpus_per_trial=1)
    assert slots(resources, nodes_after_growth("aws")) == 4 and slots(resources, []) == 0
    assert describe_slots(resources, "aws") == (
        "0 trials at once, 1 GPU each (1 node; up to 4 when the cluster has grown)"
    )
