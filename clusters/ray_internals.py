"""The private parts of Ray that joining and starting a Ray relies on.

Ray has no public setting for any of these:

- `local_ray_on_loopback`: `ray_constants.ENABLE_RAY_CLUSTER` is Ray's switch for macOS and Windows,
  where a node's address is 127.0.0.1. An address of loopback that is given to `ray.init` is
  replaced by that of the network.
- `forget_token`: Ray reads its token once per process, and a later one only after this.
- `offer_token`: to a cluster given by its address, Ray shows a token only if RAY_AUTH_MODE says so.
- `asks_for_token`: whether the Ray of this node refuses those who show no token.
- `is_node`: whether this machine is one of a cluster's nodes. Without this check `ray.init` tries
  for minutes.
- `pod_resources`: what Ray's autoscaler for Kubernetes counts in a pod.
- `process_groups`: Ray starts its processes in the process group of the driver.
- `STARTED_TOO_SLOWLY`: the text of a bare Exception, which `ray.init` raises when a raylet takes
  more than 30 s to start. That limit is a constant inside Ray.

`tests/clusters_tests/test_ray_internals.py` fails first when an upgrade changes one of them.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ray._private import ray_constants, services
from ray._private.authentication import authentication_token_setup, authentication_utils
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationTokenLoader,
    GcsClient,
    NodeID,
)
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import (  # type: ignore[attr-defined]
    GetAllNodeInfoRequest,
)

STARTED_TOO_SLOWLY = "The current node timed out during startup."


@contextlib.contextmanager
def local_ray_on_loopback() -> Iterator[None]:
    """Have a Ray that is started meanwhile listen on 127.0.0.1 alone."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def forget_token() -> None:
    """Have Ray read its token again."""
    AuthenticationTokenLoader.instance().reset_cache()


def offer_token() -> None:
    """Have Ray show this account's token, if there is one, to the cluster that it joins."""
    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def asks_for_token() -> bool:
    """Whether the Ray of this node refuses those who do not show its token."""
    return bool(authentication_utils.is_token_auth_enabled())


def is_node(address: str, timeout: float) -> bool:
    """Whether a Ray on this machine belongs to the cluster whose head listens at an address.

    It asks the head, for an address has many spellings. Raises RayError if the head does not
    answer within `timeout` seconds, or refuses our token.
    """
    local = services.find_node_ids()  # type: ignore[no-untyped-call]
    if not local:
        return False
    selectors = [
        GetAllNodeInfoRequest.NodeSelector(node_id=NodeID.from_hex(node).binary()) for node in local
    ]
    return bool(
        GcsClient(address=address).get_all_node_info(
            timeout=timeout, node_selectors=selectors, state_filter=GcsNodeInfo.GcsNodeState.ALIVE
        )
    )


def pod_resources(group: dict[str, Any]) -> dict[str, int]:
    """What Ray's autoscaler counts in a pod of a group of workers of a RayCluster, by resource.

    Raises ValueError, TypeError or LookupError for a group that it cannot count.
    """
    resources: dict[str, int] = autoscaling_config._get_ray_resources_from_group_spec(
        group, is_head=False
    )
    return resources


def is_slow_start(error: BaseException) -> bool:
    """Whether `ray.init` gave up because Ray's processes took too long to start."""
    return STARTED_TOO_SLOWLY in str(error)


_starting_ray = False


@contextlib.contextmanager
def process_groups() -> Iterator[None]:
    """Have each process that Ray starts meanwhile lead a process group.

    Batch systems send SIGTERM to the driver's group. Ray must survive it, for the driver still
    needs Ray to end the search in order.
    """
    global _starting_ray
    _starting_ray = True
    try:
        yield
    finally:
        _starting_ray = False


def _lead_a_group() -> None:
    if _starting_ray:
        os.setpgid(0, 0)


# Ray starts its processes with a `preexec_fn`, so Python forks and calls this in the child.
os.register_at_fork(after_in_child=_lead_a_group)
