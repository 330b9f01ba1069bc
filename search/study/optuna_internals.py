"""The parts of Optuna used here that its public interface does not have.

An upgrade may change them. The tests of this file fail first then, and this file is the only
place to fix. Written for Optuna 5.0.
"""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal._file import LOCK_FILE_SUFFIX, BaseJournalFileLock
from optuna.trial import FrozenTrial

__all__ = ["BaseJournalFileLock", "enqueued_parameters", "lock_file", "trial_id"]
# BaseJournalFileLock is the type that `JournalFileBackend(lock_obj=...)` takes.


def lock_file(journal: Path) -> Path:
    """The link that exists while a process writes into a journal.

    Optuna waits 30 s for a link that a killed process left; the driver removes it earlier.
    """
    return Path(f"{journal}{LOCK_FILE_SUFFIX}")


def trial_id(trial: FrozenTrial | optuna.Trial) -> int:
    """What a storage calls a trial; in a database it differs from the trial's number."""
    return trial._trial_id


def enqueued_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that `enqueue_trial` gave a trial; `params` lacks them until it is asked."""
    parameters: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return parameters
