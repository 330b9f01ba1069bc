"""The clusters that are defined in files: where their head is, and how far they may grow."""

import math
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from .nodes import Node, node_with

HERE = Path(__file__).parent
SHIPPED = {
    "onprem": HERE / "onprem.yaml",
    "aws": HERE / "aws.yaml",
    "kuberay": HERE / "kuberay" / "raycluster.yaml",
}
PORT = 6379
"""Where the head listens in every definition; nodes and drivers join it there."""
JOBS = "http://127.0.0.1:8265"
"""Ray's Jobs API: it listens on the head's loopback alone, and is reached through a tunnel."""
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its definition on a head."""

QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<suffix>[numkMGTPE]?|[KMGTPE]i)",
    re.ASCII,
)
"""A quantity in Kubernetes' notation."""
POWERS = {"n": -3, "u": -2, "m": -1, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
"""First letter of a suffix: the power of 1000, or with an `i` behind it of 1024."""


class ClusterConnectionError(Exception):
    """No Ray cluster answers there."""


def find_definition(cluster: str) -> Path | None:
    """The file that defines a cluster; None for `local`, an address, or `auto` on any other node.

    Raises ClusterConnectionError for a name without a definition.
    """
    if cluster == "slurm":
        script = HERE / "slurm" / "search.sbatch"
        raise ClusterConnectionError(
            f"cluster: slurm: start the search with `sbatch {script} FILE`"
        )
    if cluster == "auto":
        return BOOTSTRAP.expanduser() if BOOTSTRAP.expanduser().is_file() else None
    if cluster == "local" or ":" in cluster:
        return None
    file = SHIPPED.get(cluster, Path(cluster).expanduser())
    if not file.is_file():
        raise ClusterConnectionError(
            f"cluster: {cluster}: no definition of this name, and no file (legal: local, auto, a "
            f"head's address HOST:{PORT}, {', '.join(SHIPPED)}, or a definition's file)"
        )
    return file


def head_address(file: Path) -> str:
    """Where the head of a defined cluster listens for drivers. Raises ClusterConnectionError."""
    raw = read_definition(file)
    if raw.get("kind") == "RayCluster":
        space = raw["metadata"].get("namespace", "default")
        return f"{raw['metadata']['name']}-head-svc.{space}.svc:{PORT}"
    if raw["provider"]["type"] == "local":
        return f"{raw['provider']['head_ip']}:{PORT}"
    from ray.autoscaler.sdk import get_head_node_ip

    try:
        return f"{get_head_node_ip(str(file))}:{PORT}"
    except Exception as error:  # each cloud raises other exceptions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterConnectionError(
            f"cluster: {file}: it has no head now ({reason}); start it with `ray up`"
        ) from error


def growth(file: Path) -> list[Node]:
    """Every node that a defined cluster may grow to by autoscaling; empty if it does not grow."""
    raw = read_definition(file)
    if raw.get("kind") == "RayCluster":
        groups = raw["spec"].get("workerGroupSpecs", [])
        return [
            node for group in groups for node in [_pod(file, group)] * int(group["maxReplicas"])
        ]
    return [
        node_with(kind["resources"])
        for name, kind in raw.get("available_node_types", {}).items()
        if kind.get("resources")
        for _ in range(1 if name == raw["head_node_type"] else int(kind.get("max_workers", 0)))
    ]


def nodes_after_growth(cluster: str) -> list[Node]:
    """The same for a cluster by its name, address or file."""
    file = find_definition(cluster)
    return growth(file) if file else []


def read_definition(file: Path) -> dict[str, Any]:
    """The values of a definition. Raises ClusterConnectionError if the file is no definition."""
    try:
        raw = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise ClusterConnectionError(f"cluster: {file}: {str(error).splitlines()[0]}") from error
    if not isinstance(raw, dict) or not ("provider" in raw or raw.get("kind") == "RayCluster"):
        raise ClusterConnectionError(
            f"cluster: {file}: it is neither a definition for `ray up` nor a RayCluster"
        )
    return raw


def jobs_address() -> str:
    """Where this machine reaches Ray's Jobs API."""
    return os.environ.get("RAY_API_SERVER_ADDRESS", JOBS)


def _pod(file: Path, group: dict[str, Any]) -> Node:
    """What a pod of a group of workers offers, counted as Ray's autoscaler counts it.

    CPUs come from the group's `resources`, its `rayStartParams`, the limits of the Ray container,
    or its requests, in this order; GPUs likewise. Parts of a CPU are rounded up.
    Raises ClusterConnectionError.
    """
    container = group["template"]["spec"]["containers"][0].get("resources") or {}
    offered = (container.get("requests") or {}) | (container.get("limits") or {})
    params, resources = group.get("rayStartParams") or {}, group.get("resources") or {}
    gpus = [amount for name, amount in offered.items() if name.endswith("gpu")]
    given = {
        "CPU": [resources.get("CPU"), params.get("num-cpus"), offered.get("cpu")],
        "GPU": [resources.get("GPU"), params.get("num-gpus"), *gpus, 0],
    }
    where = f"cluster: {file}: workers {group.get('groupName', '')}:"
    counts = {}
    for name, amounts in given.items():
        amount = next((amount for amount in amounts if amount is not None), None)
        if amount is None:
            raise ClusterConnectionError(f"{where} no limit of cpu; give the container one")
        try:
            counts[name] = math.ceil(quantity(amount))
        except ValueError:
            raise ClusterConnectionError(
                f"{where} {name} is {amount} (legal: a quantity of Kubernetes, as 4, 1.5 or 500m)"
            ) from None
    return Node(counts["CPU"], counts["GPU"])


def quantity(text: str | float) -> Decimal:
    """A quantity in Kubernetes' notation: `4`, `1.5`, `1e3`, `500m`, `512M`, `2Gi`.

    Raises:
        ValueError: It is not one.
    """
    match = QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(text)
    suffix = match["suffix"]
    base = 1024 if suffix.endswith("i") else 1000
    return Decimal(match["number"]) * Decimal(base) ** POWERS.get(suffix[:1], 0)
