"""The private parts of Ray Tune that a search relies on, and the settings that keep Tune silent.

Tune has no public setting for two things:

- `RayActorManager._actor_task_failed`: Tune 2.60 ends the search with "Caught unexpected exception"
  when Ray kills a worker for memory or declares its node dead. Here these errors become a
  `RayActorError`, which Tune handles like the death of any worker.
- `class_cache.ENV_VARS_TO_PROPAGATE`: Tune copies AWS's keys into the runtime environment, which
  Ray writes into its logs.

`tests/search_tests/running/tune/test_internals.py` fails first when an upgrade changes them.
"""

import logging
import os
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import class_cache

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # No limit: the searcher hands out as many trials as the cluster holds. With a searcher, Tune's
    # default limit is one pending trial, so workers would start, and a cluster grow, one by one.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_WARN_THRESHOLD_S": "30",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # pages of traceback; the searcher logs one line
    "RAY_AIR_NEW_OUTPUT": "0",  # only the old output is silent at verbose=0
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
"""Environment variables of Tune."""


def configure_tune() -> None:
    """Reduce Tune to a scheduler of trials: no loggers, no snapshots, no folders."""
    os.environ.update(SETTINGS)
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It lists each Tune trial whose worker died, even if another worker continued the trial.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    RayActorManager._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]
    # Workers have AWS's keys from the environment in which their Ray was started.
    kept = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if n.startswith(("RAY_", "TUNE_"))}
    class_cache.ENV_VARS_TO_PROPAGATE = kept


_tune_task_failed = RayActorManager._actor_task_failed


def _actor_task_failed(
    self: RayActorManager, tracked_actor_task: Any, exception: Exception
) -> None:
    """Report a worker that Ray killed for memory, or whose node is dead, as a dead worker."""
    if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
        exception = RayActorError(error_msg=str(exception))
    _tune_task_failed(self, tracked_actor_task, exception)
