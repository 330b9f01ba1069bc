"""The file of a study has only finished steps, whatever happens to its driver or its disk."""

import errno
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from search.space.config_file import RESTORE_HINT
from search.space.space import read_space
from search.study.journal import JOURNAL
from search.study.record import End
from search.study.storage import open_study, read_study
from search.study.study import Study
from trainer.config import InputError

from ..conftest import SPACE

Make = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / JOURNAL


def open_tiny(file: Path) -> Study:
    """The study of this test, as a new driver opens it."""
    return open_study(file.parent, "tiny", trials=6)


def open_elsewhere(file: Path) -> optuna.Study:
    """The same study as another program has it, a dashboard."""
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name="tiny", storage=storage)


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def content(study: Study | optuna.Study) -> Any:
    trials = (study.optuna if isinstance(study, Study) else study).get_trials(deepcopy=False)
    return [(t.number, t.state, t.params, t.user_attrs, t.intermediate_values) for t in trials]


@pytest.fixture
def run(make_search: Make, make_reports: Make) -> Callable[[Study], int]:
    """Have one trial run in a study, from its start to its end; returns its number."""

    def run(study: Study) -> int:
        number, _ = study.ask(read_space(SPACE), make_search())
        for report in make_reports([0.1, 0.2, 0.3]):
            study.record(number, report)
        study.end(number, End.FINISHED)
        return number

    return run


# -- several logs as one step ---------------------------------------------------------------------


def test_a_step_is_written_at_its_end(file: Path, run: Make) -> None:
    study = open_tiny(file)
    before = file.read_bytes()
    with study.one_step():
        with study.one_step():
            run(study)
        assert file.read_bytes() == before
        assert study.records[0].end is End.FINISHED
    assert content(open_tiny(file)) == content(study)


def test_a_step_waits_for_the_disk_once(
    file: Path, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, synced = open_tiny(file), []
    sync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    run(study)
    # handed out, three reports, ended
    assert len(synced) == 5 < len(lines(file)) / 2


def test_writes_of_another_program_are_read_in_the_order_of_the_file(file: Path, run: Make) -> None:
    study = open_tiny(file)
    dashboard = open_elsewhere(file)
    for note in ("first", "second", "third"):
        run(study)
        dashboard.set_user_attr(note, note)
        with study.one_step():
            run(study)
    assert len(study.records) == 6
    assert study.optuna.user_attrs == dashboard.user_attrs
    assert content(study) == content(dashboard) == content(read_study(file.parent, "tiny"))


def test_no_other_program_writes_within_a_step(file: Path, run: Make) -> None:
    study = open_tiny(file)
    with study.one_step():
        run(study)
        assert Path(f"{file}.lock").is_symlink()
    assert not Path(f"{file}.lock").is_symlink()
    open_elsewhere(file).set_user_attr("note", "text")
    assert content(study) == content(open_elsewhere(file))


# -- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda logs: [*logs[:2], logs[2][:9] + b"\n", *logs[3:]], " in line 3"),
        (lambda logs: [*logs[:1], b"\xff\xfe\n", *logs[1:]], " in line 2"),
        (lambda logs: [b'{"op_code": 4}\n', *logs[1:]], ""),
        (lambda logs: [*logs[:4], b"7\n", *logs[4:]], ""),
    ],
)
def test_the_error_of_a_damaged_journal_names_it_and_what_to_do(
    file: Path, run: Make, damage: Any, place: str
) -> None:
    run(open_tiny(file))
    file.write_bytes(b"".join(damage(file.read_bytes().splitlines(keepends=True))))
    for read in (partial(read_study, file.parent, "tiny"), partial(open_tiny, file)):
        with pytest.raises(InputError) as raised:
            read()
        assert raised.value.errors == [f"{file} is damaged{place}; {RESTORE_HINT}"]


def test_an_empty_journal_cannot_be_read(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    with pytest.raises(InputError, match=r"study\.journal is damaged \(it is empty\); restore it"):
        read_study(file.parent, "tiny")


@pytest.mark.parametrize("torn", [b'{"op_code": 8, "wor', b"{", b'{"op_code": 1}'])
def test_a_torn_last_line_is_cut(file: Path, run: Make, torn: bytes) -> None:
    study = open_tiny(file)
    run(study)
    with file.open("ab") as end:
        end.write(torn)
    again = open_tiny(file)
    assert content(again) == content(study)
    number = run(again)
    assert open_tiny(file).records.keys() == {0, number}
    assert lines(file)


def test_an_empty_journal_is_a_new_study(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"op_code": 0, "stu')
    assert open_tiny(file).records == {}


def test_a_full_disk_leaves_no_half_line_and_loses_nothing(
    file: Path, run: Make, make_search: Make, make_reports: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_tiny(file)
    run(study)
    before, (_, report) = file.read_bytes(), make_reports([0.4, 0.5])
    number, _ = study.ask(read_space(SPACE), make_search())
    after = file.read_bytes()
    assert after.startswith(before)

    def full(descriptor: int) -> None:
        written = file.read_bytes()
        assert written.count(b"\n") == after.count(b"\n") + 2
        os.ftruncate(descriptor, len(written) - 9)  # one line had room, and most of the other
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        study.record(number, report)
    assert file.read_bytes() == after
    assert not study.records[number].reports  # another try is not taken for a second report

    study.record(number, report)
    study.end(number, End.FINISHED)
    run(study)
    assert content(open_tiny(file)) == content(study)
    assert open_tiny(file).records[number].reports == {report.epoch: report}


def test_the_lock_of_a_killed_driver_delays_nobody(file: Path, run: Make) -> None:
    run(open_tiny(file))
    JournalFileSymlinkLock(str(file)).acquire()
    started = time.monotonic()
    run(open_tiny(file))
    assert time.monotonic() - started < 10
