"""The clusters defined in files: where their head is, and what they may grow to."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

HERE = Path(__file__).parent
SHIPPED = {
    "onprem": HERE / "onprem.yaml",
    "aws": HERE / "aws.yaml",
    "kuberay": HERE / "kuberay" / "raycluster.yaml",
}
PORT = 6379
"""Of the head, in every definition; nodes and drivers join it there."""
JOBS = "http://127.0.0.1:8265"
"""Ray's Jobs API: on the head's loopback alone, and here through a tunnel."""
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its definition on a head."""


class CannotConnect(Exception):
    """No Ray cluster answers there."""


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    others: dict[str, float] = field(default_factory=dict)
    """Accelerator types and custom resources, under Ray's names."""


def find(cluster: str) -> Path | None:
    """The file that defines a cluster; None for `local`, an address, or `auto` off a head.

    Raises CannotConnect for a name that nothing is known by.
    """
    if cluster == "slurm":
        script = HERE / "slurm" / "search.sbatch"
        raise CannotConnect(f"cluster: slurm: it comes with the search; sbatch {script} FILE")
    if cluster == "auto":
        return BOOTSTRAP.expanduser() if BOOTSTRAP.expanduser().is_file() else None
    if cluster == "local" or ":" in cluster:
        return None
    file = SHIPPED.get(cluster, Path(cluster).expanduser())
    if not file.is_file():
        raise CannotConnect(
            f"cluster: {cluster}: no definition of this name, and no file (legal: local, auto, a "
            f"head's address HOST:{PORT}, {', '.join(SHIPPED)}, or a definition's file)"
        )
    return file


def head_address(file: Path) -> str:
    """Where the head of a defined cluster listens to drivers. Raises CannotConnect."""
    raw = read(file)
    if raw.get("kind") == "RayCluster":
        space = raw["metadata"].get("namespace", "default")
        return f"{raw['metadata']['name']}-head-svc.{space}.svc:{PORT}"
    if raw["provider"]["type"] == "local":
        return f"{raw['provider']['head_ip']}:{PORT}"
    from ray.autoscaler.sdk import get_head_node_ip

    try:
        return f"{get_head_node_ip(str(file))}:{PORT}"
    except Exception as error:  # the cloud's own, of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CannotConnect(f"cluster: {file}: has no head now ({reason}); `ray up` it") from error


def growth(file: Path) -> list[Node]:
    """Every node that autoscaling may make of a defined cluster; empty where nothing says so."""
    raw = read(file)
    if raw.get("kind") == "RayCluster":
        groups = raw["spec"].get("workerGroupSpecs", [])
        return [
            _pod(group["template"]) for group in groups for _ in range(int(group["maxReplicas"]))
        ]
    return [
        _node(kind["resources"])
        for name, kind in raw.get("available_node_types", {}).items()
        if kind.get("resources")
        for _ in range(1 if name == raw["head_node_type"] else int(kind.get("max_workers", 0)))
    ]


def read(file: Path) -> dict[str, Any]:
    """A definition as plain values. Raises CannotConnect when it is none."""
    try:
        raw = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise CannotConnect(f"cluster: {file}: {str(error).splitlines()[0]}") from error
    if not isinstance(raw, dict) or not ("provider" in raw or raw.get("kind") == "RayCluster"):
        raise CannotConnect(
            f"cluster: {file}: is neither a definition for `ray up` nor a RayCluster"
        )
    return raw


def jobs_address() -> str:
    """Where Ray's Jobs API is reached from here."""
    return os.environ.get("RAY_API_SERVER_ADDRESS", JOBS)


def _node(resources: dict[str, float]) -> Node:
    others = {name: n for name, n in resources.items() if name not in {"CPU", "GPU", "memory"}}
    return Node(resources.get("CPU", 0), resources.get("GPU", 0), others)


def _pod(template: dict[str, Any]) -> Node:
    limits = template["spec"]["containers"][0]["resources"]["limits"]
    return Node(float(limits["cpu"]), float(limits.get("nvidia.com/gpu", 0)))
