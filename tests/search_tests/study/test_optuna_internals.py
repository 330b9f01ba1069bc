"""The parts of Optuna that are not public still exist, and work as this project needs them."""

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from search.study.journal import Journal
from search.study.optuna_internals import (
    BaseJournalFileLock,
    enqueued_parameters,
    lock_file,
    trial_id,
)


def test_the_lock_of_a_journal_is_where_optuna_puts_it(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    lock = JournalFileSymlinkLock(str(journal))
    assert isinstance(lock, BaseJournalFileLock)
    lock.acquire()
    assert [file.name for file in tmp_path.iterdir()] == [lock_file(journal).name]
    lock.release()
    assert not lock_file(journal).is_symlink()


def test_a_storage_knows_a_trial_by_its_id(tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/studies.db")
    for name in ("first", "second"):
        study = optuna.create_study(storage=storage, study_name=name)
        asked = study.ask()
        (frozen,) = study.get_trials(deepcopy=False)
        assert trial_id(asked) == trial_id(frozen)
        assert storage.get_trial(trial_id(frozen)).number == frozen.number == 0
        optuna.Trial(study, trial_id(frozen)).set_user_attr("end", "finished")
        assert study.trials[0].user_attrs == {"end": "finished"}


def test_an_enqueued_trial_has_its_parameters_before_it_is_asked() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"lr": 0.1})
    (trial,) = study.get_trials(deepcopy=False)
    assert trial.params == {}
    assert enqueued_parameters(trial) == {"lr": 0.1}
    study.ask()  # takes the enqueued trial
    study.ask()
    assert enqueued_parameters(study.get_trials(deepcopy=False)[1]) == {}


def test_the_journal_shares_no_attribute_with_its_base_class(tmp_path: Path) -> None:
    base = JournalFileBackend(str(tmp_path / "base"))
    journal = Journal(tmp_path / "study.journal")
    added = {"_journal", "_write_lock", "_unwritten", "_replayed", "_read"}
    assert vars(journal).keys() == vars(base).keys() | added
    assert vars(base).keys().isdisjoint(added)


def test_a_journal_is_read_from_a_number_on(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(storage=storage)
    for note in ("a", "b", "c"):
        study.set_user_attr(note, note)
    backend = JournalFileBackend(str(file))
    every = list(backend.read_logs(0))
    assert list(backend.read_logs(2)) == every[2:]
    study.set_user_attr("d", "d")
    assert len(list(backend.read_logs(len(every)))) == 1
