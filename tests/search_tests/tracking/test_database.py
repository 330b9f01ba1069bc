"""MLflow's SQLite file: made whole, and what is done about one that was not."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.tracking import database as store
from search.tracking.database import SQLITE, Unusable, make_ready, open_store
from search.tracking.ui import serve
from trainer.config import BadInput

RUN = "insert into runs (run_uuid, experiment_id) values ('a', 0)"
FILE = Path("mlflow.db")


@pytest.fixture
def making(tables: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where tables are made, which takes seconds: here they are copied."""
    made: list[Path] = []

    def make(uri: str) -> None:
        made.append(Path(uri.removeprefix(SQLITE)))
        shutil.copy(tables, made[-1])

    monkeypatch.setattr(store, "MlflowClient", make)
    return made


def changed(tables: Path, *statements: str) -> None:
    """Have FILE hold MLflow's tables, changed."""
    shutil.copy(tables, FILE)
    with closing(sqlite3.connect(FILE)) as file, file:
        for statement in statements:
            file.execute(statement)


def versions(file: Path = FILE) -> list[str]:
    with closing(sqlite3.connect(file)) as opened:
        return [version for (version,) in opened.execute("select * from alembic_version")]


def test_tables_are_made_aside(making: list[Path], tables: Path) -> None:
    make_ready(Path("new") / FILE)
    assert (Path("new") / FILE).read_bytes() == tables.read_bytes()
    assert [part.parent for part in making] == [Path("new")] and making[0].name != FILE.name
    assert {file.name for file in Path("new").iterdir()} == {FILE.name, f".{FILE}.lock"}
    make_ready(Path("new") / FILE)
    assert len(making) == 1


def test_who_dies_meanwhile_leaves_no_store(
    tables: Path, monkeypatch: pytest.MonkeyPatch, making: list[Path]
) -> None:
    def die(uri: str) -> None:
        Path(uri.removeprefix(SQLITE)).write_bytes(tables.read_bytes()[:5000])
        Path(f"{uri.removeprefix(SQLITE)}-journal").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "MlflowClient", die)
        make_ready(FILE)
    assert not FILE.exists()
    make_ready(FILE)
    assert {file.name for file in Path().iterdir()} == {FILE.name, f".{FILE}.lock"}


@pytest.mark.parametrize(
    "statements",
    [
        ["update alembic_version set version_num = '3500859a5d39'"],  # the last step not noted down
        ["alter table experiments rename to _alembic_tmp_experiments"],
        ["drop table alembic_version", "drop table workspaces"],
    ],
)
def test_a_half_made_one_without_a_row_is_made_again(
    tables: Path, making: list[Path], statements: list[str]
) -> None:
    changed(tables, *statements)
    make_ready(FILE)
    assert FILE.read_bytes() == tables.read_bytes()
    assert len(making) == 1


def test_an_empty_one_is_made_again(tables: Path, making: list[Path]) -> None:
    FILE.touch()
    make_ready(FILE)
    assert FILE.read_bytes() == tables.read_bytes()


def test_one_with_rows_that_is_half_changed_is_named_with_what_to_do(
    tables: Path, making: list[Path]
) -> None:
    changed(tables, RUN, "create table _alembic_tmp_experiments (experiment_id int)")
    before = FILE.read_bytes()
    with pytest.raises(Unusable, match=r"mlflow\.db was left half changed .*: move it away"):
        make_ready(FILE)
    with pytest.raises(BadInput, match="move it away"):
        serve(f"{SQLITE}{FILE}", 5000)
    assert FILE.read_bytes() == before and not making


def test_what_is_no_database_is_named_with_what_to_do(making: list[Path]) -> None:
    FILE.write_bytes(b"no database" * 1000)
    with pytest.raises(Unusable, match=r"mlflow\.db is no database .*: move it away"):
        make_ready(FILE)
    assert not making


def test_an_earlier_mlflows_with_rows_is_left_to_mlflow(tables: Path, making: list[Path]) -> None:
    changed(tables, RUN, "update alembic_version set version_num = '3500859a5d39'")
    make_ready(FILE)
    assert versions() == ["3500859a5d39"] and not making


@pytest.mark.parametrize(
    "row",
    [
        RUN,
        "insert into experiments (experiment_id, name) values (7, 'cells')",
        "insert into registered_models (name) values ('cells')",
    ],
)
def test_rows_of_any_kind_are_kept(tables: Path, making: list[Path], row: str) -> None:
    changed(tables, row, "update alembic_version set version_num = '3500859a5d39'")
    before = FILE.read_bytes()
    make_ready(FILE)
    assert FILE.read_bytes() == before and not making


def test_what_a_server_made_meanwhile_is_kept(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(uri: str) -> None:
        shutil.copy(tables, uri.removeprefix(SQLITE))
        FILE.write_bytes(b"the server's")

    monkeypatch.setattr(store, "MlflowClient", make)
    make_ready(FILE)
    assert FILE.read_bytes() == b"the server's"


def test_nothing_of_an_earlier_file_goes_into_the_new_one(making: list[Path]) -> None:
    journal = Path(f"{FILE}-journal")
    journal.write_bytes(b"pages of a file that was deleted")
    make_ready(FILE)
    assert FILE.is_file() and not journal.exists()


def test_mlflow_opens_what_was_made(tables: Path) -> None:
    changed(tables)
    client = open_store(f"{SQLITE}{FILE.resolve()}")
    assert isinstance(client, MlflowClient)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
