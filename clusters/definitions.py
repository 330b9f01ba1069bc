"""The clusters that are defined in files: where their head is, and how far they may grow."""

import os
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
    """What a pod of a group of workers offers. Raises ClusterConnectionError."""
    from .ray_internals import pod_resources  # imports Ray, which the other functions do not need

    try:
        counts = pod_resources(group)
    except (ValueError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise ClusterConnectionError(
            f"cluster: {file}: workers {group.get('groupName', '')}: Ray cannot count their CPUs "
            f"and GPUs ({reason}); give the container limits"
        ) from error
    return Node(counts["CPU"], counts.get("GPU", 0))
