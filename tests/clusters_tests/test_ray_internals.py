"""What joining and starting a Ray relies on inside Ray: these fail first after an upgrade."""

import inspect
import os
import subprocess
import sys

import pytest
import ray
from ray._private import node, ray_constants, services
from ray._private.authentication import authentication_token_setup, authentication_utils

from clusters import ray_internals
from clusters.connect import connected
from clusters.definitions import ClusterConnectionError
from clusters.ray_internals import (
    STARTED_TOO_SLOWLY,
    is_node,
    is_slow_start,
    local_ray_on_loopback,
)


def test_rays_switch_for_loopback_is_still_used() -> None:
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    assert "ENABLE_RAY_CLUSTER" in inspect.getsource(services)
    before = ray_constants.ENABLE_RAY_CLUSTER
    with local_ray_on_loopback():
        assert ray_constants.ENABLE_RAY_CLUSTER is False
    assert ray_constants.ENABLE_RAY_CLUSTER is before


def test_the_private_functions_take_what_they_are_given() -> None:
    offer = authentication_token_setup.maybe_enable_token_auth_if_token_available
    assert "warn_if_disabled" in inspect.signature(offer).parameters
    asks = inspect.signature(authentication_utils.is_token_auth_enabled).parameters
    nodes = inspect.signature(services.find_node_ids).parameters
    assert all(p.default is not p.empty for p in (*asks.values(), *nodes.values()))
    ray_internals.forget_token()


def test_a_machine_is_a_node_of_the_cluster_that_its_ray_belongs_to_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connected("local", []):
        address = ray.get_runtime_context().gcs_address
        assert is_node(address, timeout=30)
        monkeypatch.setattr(services, "find_node_ids", lambda: {"ab" * 28})  # of another cluster
        assert not is_node(address, timeout=30)
        refused = pytest.raises(ClusterConnectionError, match="this machine is none of its nodes")
        with refused, connected(address, []):
            pass
        monkeypatch.setattr(services, "find_node_ids", set)  # no Ray runs here
        assert not is_node(address, timeout=30)


def test_ray_still_gives_up_a_slow_start_with_these_words() -> None:
    assert f'"{STARTED_TOO_SLOWLY}' in inspect.getsource(node.Node.__init__)
    assert is_slow_start(Exception(f"{STARTED_TOO_SLOWLY} This could happen because ..."))
    assert not is_slow_start(RuntimeError("another"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
def test_what_ray_starts_meanwhile_leads_a_process_group() -> None:
    assert "preexec_fn=" in inspect.getsource(services.start_ray_process)
    code = "import os; print(os.getpgid(0) == os.getpid())"

    def leads_a_group() -> bool:
        line = [sys.executable, "-c", code]
        done = subprocess.run(line, preexec_fn=os.getpid, capture_output=True, check=True)
        return done.stdout == b"True\n"

    assert not leads_a_group()
    with ray_internals.process_groups():
        assert leads_a_group()
