"""What the tests of running share: a made-up cluster."""

from collections.abc import Callable

import pytest
import ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Ray list these nodes, each as (CPUs, GPUs), all with the same `others`."""

    def make(*machines: tuple[float, float], **others: float) -> None:
        nodes = [{"Alive": True, "Resources": {"CPU": c, "GPU": g, **others}} for c, g in machines]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)

    return make
