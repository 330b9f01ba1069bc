"""What one trial gets of the cluster: CPU cores, and a GPU or a fraction of one."""

import logging
import os
from typing import TYPE_CHECKING, Any

import ray
import torch

from clusters.definitions import nodes_after_growth
from clusters.nodes import Node, nodes
from trainer.config import InputError, TrainConfig
from trainer.data.dataset import Splits
from trainer.training.probe import gpu_memory_fraction

from ..space.config import ACCELERATOR_PREFIX, SearchConfig, TrialResources
from ..space.space import Space, Values, all_dimensions, with_values
from .trials_at_once import trials_at_once

if TYPE_CHECKING:  # it imports Optuna, which a worker does without
    from ..reporting.progress import Progress

log = logging.getLogger(__name__)

USABLE_GPU_MEMORY = 0.9
"""Fraction of a GPU's memory that its trials may use together. CUDA's context of each comes on top
of it."""
MAX_TRIALS_PER_GPU = 4


def trial_resources(config: SearchConfig) -> TrialResources:
    """What one trial gets on the connected cluster. Raises InputError if no node has that much."""
    machines = nodes() + nodes_after_growth(config.cluster)
    resources = config.resources
    if resources == "auto":
        resources = _auto_resources(machines, config.search.trials)
    elif not resources.gpus_per_trial and any(node.gpus for node in machines):
        log.warning("resources.gpus_per_trial is 0: the cluster's GPUs stay unused")
    if not trials_at_once(resources, machines):
        raise InputError([f"resources: {_too_large(resources, machines)}"])
    return resources


def _auto_resources(machines: list[Node], trials: int) -> TrialResources:
    """A GPU per trial if there are GPUs; else cores, so that a quarter of the trials run at once.

    Small trials side by side use cores best, but a search learns only from trials that ended.
    """
    with_gpus = [node for node in machines if node.gpus >= 1]
    if with_gpus:
        cpus = min(node.cpus // node.gpus for node in with_gpus)
        return TrialResources(cpus_per_trial=max(1, cpus), gpus_per_trial=1)
    cores = [int(node.cpus) for node in machines if node.cpus >= 1]
    if not cores:
        return TrialResources()
    parallel = max(1, min(sum(cores), trials // 4))
    return TrialResources(cpus_per_trial=max(1, min(max(cores), sum(cores) // parallel)))


def _too_large(resources: TrialResources, machines: list[Node]) -> str:
    """Why no machine can hold a trial, with what the machines offer."""
    offered = sorted({name for node in machines for name in node.others})
    for name in resources.others:
        if name not in offered:
            names = ", ".join(offered) or "none"
            return f"a trial wants {name}, which no node has or will have (legal: {names})"
    custom = [f", {n:g} {name}" for name, n in resources.custom_per_trial.items()]
    largest = max(machines, key=lambda node: (node.gpus, node.cpus), default=Node(0, 0))
    return (
        f"a trial wants {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} GPUs"
        f"{''.join(custom)}, more than any node has or will have (legal: at most "
        f"{largest.cpus:g} and {largest.gpus:g})"
    )


def resources_of_this_machine(config: SearchConfig) -> tuple[TrialResources, list[Node]]:
    """What a trial would get on this machine alone, and this machine."""
    machine = Node(float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count()))
    resources = config.resources
    if resources == "auto":
        resources = _auto_resources([machine], config.search.trials)
    return resources, [machine]


def num_threads(resources: TrialResources) -> int:
    """How many threads a trial computes with."""
    return int(max(1, resources.cpus_per_trial))


# -- several trials on one GPU --------------------------------------------------------------------


def with_measured_gpus(
    config: SearchConfig,
    space: Space,
    data: Splits,
    resources: TrialResources,
    progress: "Progress",
) -> TrialResources:
    """Reduce the GPU of a trial that is `auto` to the fraction that the largest trial needs.

    Measures it on a worker each time a driver starts, for the GPUs may be others than before.
    """
    largest = largest_config(config, space) if config.resources == "auto" else None
    if not resources.gpus_per_trial or largest is None:
        return resources
    # max_calls: the worker keeps that memory, so it ends with this call
    measure = ray.remote(max_calls=1)(gpu_memory_fraction).options(
        num_cpus=resources.cpus_per_trial,
        num_gpus=resources.gpus_per_trial,
        resources=resources.others,
    )
    with progress.step("measuring how much of a GPU's memory the largest trial takes"):
        fraction = ray.get(measure.remote(largest, data, num_threads(resources)))
    later = nodes_after_growth(config.cluster)
    return resources_on_shared_gpu(config, resources, fraction, nodes(), later)


def largest_config(config: SearchConfig, space: Space) -> TrainConfig | None:
    """The configuration of a space that needs the most memory to train.

    None if the space compares models: which of them needs most is not known in advance.
    """
    values: Values = {}
    for dimension in all_dimensions(space):
        name = dimension.name
        if name.startswith("model.") and name != "model.image_size":
            return None
        if name == "train.optimizer":
            values[name] = "adamw"  # it keeps two moments for each parameter
        elif name.endswith((".batch_size", ".image_size", ".depth")):
            candidates = dimension.choices or (dimension.high,)
            values[name] = max([*candidates, values.get(name, 0)], key=_number)
    return with_values(config, values)


def _number(value: Any) -> float:
    return float("inf") if value == "all" else float(value)


def resources_on_shared_gpu(
    config: SearchConfig,
    resources: TrialResources,
    taken: float,
    machines: list[Node],
    later: list[Node],
) -> TrialResources:
    """What a trial gets if several fit on one GPU; at most a quarter of all trials run at once.

    Args:
        config: The search; its number of trials limits how many run at once.
        resources: What a trial gets with a full GPU.
        taken: Fraction of its GPU's memory that the largest trial takes, 0 to 1; 0 if unknown.
        machines: The nodes of the cluster.
        later: All nodes that autoscaling may make, including those that exist already.
    """
    gpus = max(sum(node.gpus for node in group) for group in (machines, later))
    kinds = {_gpu_kind(node) for node in [*machines, *later] if node.gpus}
    if not taken or not gpus or len(kinds) > 1:  # the memory was measured on one kind
        return resources
    trials_per_gpu = config.search.trials // 4 // gpus
    count = int(
        min(USABLE_GPU_MEMORY / taken, MAX_TRIALS_PER_GPU, resources.cpus_per_trial, trials_per_gpu)
    )
    if count < 2:
        return resources
    return TrialResources(
        cpus_per_trial=resources.cpus_per_trial // count,
        gpus_per_trial=round(1 / count, 4),  # Ray counts in steps of 0.0001
    )


def _gpu_kind(node: Node) -> str:
    return next((name for name in node.others if name.startswith(ACCELERATOR_PREFIX)), "unknown")
