"""The file of a study: whole steps in it, whatever happens to its driver, its disk or beside it."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from search.space.config_file import BRING_BACK
from search.space.space import read_space
from search.study.journal import JOURNAL
from search.study.record import End
from search.study.storage import open_study, read_study
from search.study.study import Study
from trainer.config import BadInput

from ..conftest import SPACE

Make = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / JOURNAL


def opened(file: Path) -> Study:
    """The study of this test, as a new driver opens it."""
    return open_study(file.parent, "tiny", trials=6)


def beside(file: Path) -> optuna.Study:
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


# -- several logs in one go -----------------------------------------------------------------------


def test_a_step_is_written_whole_or_not_at_all(file: Path, run: Make) -> None:
    study = opened(file)
    before = file.read_bytes()
    with study.together():
        with study.together():
            run(study)
        assert file.read_bytes() == before
        assert study.records[0].end is End.FINISHED
    assert content(opened(file)) == content(study)


def test_a_step_waits_for_the_disk_once(
    file: Path, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, synced = opened(file), []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), sync(number)))
    run(study)
    # handed out, three reports, ended
    assert len(synced) == 5 < len(lines(file)) / 2


def test_what_another_program_writes_is_read_in_the_order_of_the_file(
    file: Path, run: Make
) -> None:
    study = opened(file)
    dashboard = beside(file)
    for note in ("first", "second", "third"):
        run(study)
        dashboard.set_user_attr(note, note)
        with study.together():
            run(study)
    assert len(study.records) == 6
    assert study.optuna.user_attrs == dashboard.user_attrs
    assert content(study) == content(dashboard) == content(read_study(file.parent, "tiny"))


def test_no_other_program_writes_within_a_step(file: Path, run: Make) -> None:
    study = opened(file)
    with study.together():
        run(study)
        assert Path(f"{file}.lock").is_symlink()
    assert not Path(f"{file}.lock").is_symlink()
    beside(file).set_user_attr("note", "text")
    assert content(study) == content(beside(file))


# -- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda logs: [*logs[:2], logs[2][:9] + b"\n", *logs[3:]], " in line 3"),
        (lambda logs: [*logs[:1], b"\xff\xfe\n", *logs[1:]], " in line 2"),
        (lambda logs: [b'{"op_code": 4}\n', *logs[1:]], ""),
        (lambda logs: [*logs[:4], b"7\n", *logs[4:]], ""),
    ],
)
def test_a_damaged_one_is_named_with_what_to_do(
    file: Path, run: Make, damage: Any, told: str
) -> None:
    run(opened(file))
    file.write_bytes(b"".join(damage(file.read_bytes().splitlines(keepends=True))))
    for read in (lambda: read_study(file.parent, "tiny"), lambda: opened(file)):
        with pytest.raises(BadInput) as raised:
            read()
        assert raised.value.errors == [f"{file} is damaged{told}; {BRING_BACK}"]


def test_an_empty_one_cannot_be_read(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    with pytest.raises(BadInput, match=r"study\.journal is damaged \(it is empty\); bring it back"):
        read_study(file.parent, "tiny")


@pytest.mark.parametrize("torn", [b'{"op_code": 8, "wor', b"{", b'{"op_code": 1}'])
def test_a_torn_last_line_is_cut(file: Path, run: Make, torn: bytes) -> None:
    study = opened(file)
    run(study)
    with file.open("ab") as end:
        end.write(torn)
    again = opened(file)
    assert content(again) == content(study)
    number = run(again)
    assert opened(file).records.keys() == {0, number}
    assert lines(file)


def test_an_empty_journal_is_a_new_study(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"op_code": 0, "stu')
    assert opened(file).records == {}


def test_a_full_disk_leaves_no_half_line_and_loses_nothing(
    file: Path, run: Make, make_search: Make, make_reports: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(file)
    run(study)
    before, (_, report) = file.read_bytes(), make_reports([0.4, 0.5])
    number, _ = study.ask(read_space(SPACE), make_search())
    after = file.read_bytes()
    assert after.startswith(before)

    def full(descriptor: int) -> None:
        whole = file.read_bytes()
        assert whole.count(b"\n") == after.count(b"\n") + 2
        os.ftruncate(descriptor, len(whole) - 9)  # one line had room, and most of the other
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        study.record(number, report)
    assert file.read_bytes() == after
    assert not study.records[number].reports  # another try is not taken for a second report

    study.record(number, report)
    study.end(number, End.FINISHED)
    run(study)
    assert content(opened(file)) == content(study)
    assert opened(file).records[number].reports == {report.epoch: report}


def test_a_killed_drivers_lock_holds_up_nobody(file: Path, run: Make) -> None:
    run(opened(file))
    JournalFileSymlinkLock(str(file)).acquire()
    started = time.monotonic()
    run(opened(file))
    assert time.monotonic() - started < 10
