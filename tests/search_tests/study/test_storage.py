"""Opening and reading a study, in a journal file or a database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.space.space import read_space
from search.study.journal import JOURNAL
from search.study.record import End
from search.study.storage import open_study, read_study
from search.study.study import Study
from trainer.config import InputError

from ..conftest import SPACE

Make = Callable[..., Any]
FOLDER = Path("kept")


def content(study: Study) -> dict[int, Any]:
    return {
        n: (r.origin, r.parameters, r.reports, r.end, r.text, r.stopped_at, r.times)
        for n, r in study.records.items()
    }


def test_reading_a_study_writes_nothing(make_search: Make, make_reports: Make) -> None:
    study = open_study(FOLDER, "tiny")
    study.ask(read_space(SPACE), make_search())
    study.record(0, make_reports([0.1])[0])
    before = (FOLDER / JOURNAL).read_bytes()
    assert content(read_study(FOLDER, "tiny")) == content(study)
    assert (FOLDER / JOURNAL).read_bytes() == before
    assert [file.name for file in FOLDER.iterdir()] == [JOURNAL]


def test_reading_the_study_of_a_killed_driver_leaves_it_usable(
    make_search: Make, make_reports: Make
) -> None:
    study, config = open_study(FOLDER, "tiny"), make_search()
    study.ask(read_space(SPACE), config)
    for report in make_reports([0.1, 0.2]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    with (FOLDER / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    assert content(read_study(FOLDER, "tiny")) == content(study)
    again = open_study(FOLDER, "tiny")
    again.ask(read_space(SPACE), config)
    assert open_study(FOLDER, "tiny").records.keys() == {0, 1}


def test_reading_a_study_that_does_not_exist_raises() -> None:
    with pytest.raises(FileNotFoundError, match="no search in kept"):
        read_study(FOLDER, "tiny")
    assert not FOLDER.exists()


def test_a_database_that_cannot_be_opened_is_bad_input(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/none/studies.db"
    with pytest.raises(InputError, match=r"study: sqlite:.* cannot be opened: ") as raised:
        open_study(FOLDER, "tiny", uri)
    assert "\n" not in str(raised.value)
