"""What a search relies on inside Ray Tune: these fail first when an upgrade changes it."""

import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.air.constants import AIR_ENV_VARS
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError
from ray.train.constants import ENABLE_V2_MIGRATION_WARNINGS_ENV_VAR
from ray.tune.constants import TUNE_ENV_VARS
from ray.tune.execution import class_cache

from search.running.tune import internals

UNHANDLED: list[RayError] = [
    OutOfMemoryError("low on memory"),  # type: ignore[no-untyped-call]
    NodeDiedError("gone"),  # type: ignore[no-untyped-call]
]


class Manager:
    """All that Tune's handler uses of its actor manager."""

    def __init__(self) -> None:
        self._failed_actor_ids: set[int] = set()

    def _cleanup_actor(self, tracked_actor: Any) -> None: ...


def failed(error: Exception, handle: Any) -> list[Exception]:
    """The errors that Tune is called back with when a worker's task fails with this one."""
    errors: list[Exception] = []

    def on_error(tracked_actor: Any, error: Exception) -> None:
        errors.append(error)

    actor = SimpleNamespace(actor_id=1, _on_error=None)
    handle(Manager(), SimpleNamespace(_tracked_actor=actor, _on_error=on_error), error)
    return errors


@pytest.mark.parametrize("error", UNHANDLED)
def test_tune_itself_does_not_handle_these_errors(error: RayError) -> None:
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        failed(error, internals._tune_task_failed)


@pytest.mark.parametrize("error", UNHANDLED)
def test_tune_gets_them_as_the_death_of_a_worker(error: RayError) -> None:
    (passed,) = failed(error, internals._actor_task_failed)
    assert isinstance(passed, RayActorError) and str(passed) == str(error)


@pytest.mark.parametrize("error", UNHANDLED)
def test_an_error_that_tune_does_not_handle_is_passed_on_as_a_dead_worker(
    monkeypatch: pytest.MonkeyPatch, error: RayError
) -> None:
    passed: list[Exception] = []
    monkeypatch.setattr(internals, "_tune_task_failed", lambda *words: passed.append(words[-1]))
    internals._actor_task_failed(cast("Any", None), None, error)
    (one,) = passed
    assert isinstance(one, RayActorError) and str(one) == str(error)
    internals._actor_task_failed(cast("Any", None), None, one)
    assert passed[1] is one


def test_the_private_names_are_those_that_tune_uses() -> None:
    handler = inspect.signature(internals._tune_task_failed).parameters
    assert list(handler) == ["self", "tracked_actor_task", "exception"]
    assert "in ENV_VARS_TO_PROPAGATE" in inspect.getsource(class_cache._ActorClassCache.get)


def test_tune_knows_each_setting() -> None:
    known = {*TUNE_ENV_VARS, *AIR_ENV_VARS, ENABLE_V2_MIGRATION_WARNINGS_ENV_VAR}
    assert internals.SETTINGS.keys() <= known
