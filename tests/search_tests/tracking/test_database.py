"""MLflow's SQLite file: complete tables or none, and what happens to an incomplete file."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.tracking import database as store
from search.tracking.database import SQLITE, UnusableDatabaseError, ensure_tables, open_store
from search.tracking.ui import serve
from trainer.config import InputError

RUN = "insert into runs (run_uuid, experiment_id) values ('a', 0)"
FILE = Path("mlflow.db")


@pytest.fixture
def making(tables: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that tables are made in: copies, since making tables takes seconds."""
    made: list[Path] = []

    def make(uri: str) -> None:
        made.append(Path(uri.removeprefix(SQLITE)))
        shutil.copy(tables, made[-1])

    monkeypatch.setattr(store, "MlflowClient", make)
    return made


def write_changed(tables: Path, *statements: str) -> None:
    """Write MLflow's tables to FILE and change them."""
    shutil.copy(tables, FILE)
    with closing(sqlite3.connect(FILE)) as file, file:
        for statement in statements:
            file.execute(statement)


def versions(file: Path = FILE) -> list[str]:
    with closing(sqlite3.connect(file)) as opened:
        return [version for (version,) in opened.execute("select * from alembic_version")]


def test_tables_are_made_aside(making: list[Path], tables: Path) -> None:
    ensure_tables(Path("new") / FILE)
    assert (Path("new") / FILE).read_bytes() == tables.read_bytes()
    assert [part.parent for part in making] == [Path("new")] and making[0].name != FILE.name
    assert {file.name for file in Path("new").iterdir()} == {FILE.name, f".{FILE}.lock"}
    ensure_tables(Path("new") / FILE)
    assert len(making) == 1


def test_a_process_killed_in_between_leaves_no_store(
    tables: Path, monkeypatch: pytest.MonkeyPatch, making: list[Path]
) -> None:
    def die(uri: str) -> None:
        Path(uri.removeprefix(SQLITE)).write_bytes(tables.read_bytes()[:5000])
        Path(f"{uri.removeprefix(SQLITE)}-journal").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "MlflowClient", die)
        ensure_tables(FILE)
    assert not FILE.exists()
    ensure_tables(FILE)
    assert {file.name for file in Path().iterdir()} == {FILE.name, f".{FILE}.lock"}


@pytest.mark.parametrize(
    "statements",
    [
        [
            "update alembic_version set version_num = '3500859a5d39'"
        ],  # the last step is not recorded
        ["alter table experiments rename to _alembic_tmp_experiments"],
        ["drop table alembic_version", "drop table workspaces"],
    ],
)
def test_an_incomplete_file_without_a_row_is_made_again(
    tables: Path, making: list[Path], statements: list[str]
) -> None:
    write_changed(tables, *statements)
    ensure_tables(FILE)
    assert FILE.read_bytes() == tables.read_bytes()
    assert len(making) == 1


def test_an_empty_file_is_made_again(tables: Path, making: list[Path]) -> None:
    FILE.touch()
    ensure_tables(FILE)
    assert FILE.read_bytes() == tables.read_bytes()


def test_a_half_changed_file_with_rows_is_named_with_what_to_do(
    tables: Path, making: list[Path]
) -> None:
    write_changed(tables, RUN, "create table _alembic_tmp_experiments (experiment_id int)")
    before = FILE.read_bytes()
    with pytest.raises(
        UnusableDatabaseError, match=r"mlflow\.db was left half changed .*: move it away"
    ):
        ensure_tables(FILE)
    with pytest.raises(InputError, match="move it away"):
        serve(f"{SQLITE}{FILE}", 5000)
    assert FILE.read_bytes() == before and not making


def test_a_file_that_is_no_database_is_named_with_what_to_do(making: list[Path]) -> None:
    FILE.write_bytes(b"no database" * 1000)
    with pytest.raises(UnusableDatabaseError, match=r"mlflow\.db is no database .*: move it away"):
        ensure_tables(FILE)
    assert not making


def test_a_file_of_an_earlier_mlflow_is_left_to_mlflow(tables: Path, making: list[Path]) -> None:
    write_changed(tables, RUN, "update alembic_version set version_num = '3500859a5d39'")
    ensure_tables(FILE)
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
    write_changed(tables, row, "update alembic_version set version_num = '3500859a5d39'")
    before = FILE.read_bytes()
    ensure_tables(FILE)
    assert FILE.read_bytes() == before and not making


def test_a_file_that_a_server_makes_meanwhile_is_kept(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(uri: str) -> None:
        shutil.copy(tables, uri.removeprefix(SQLITE))
        FILE.write_bytes(b"the server's")

    monkeypatch.setattr(store, "MlflowClient", make)
    ensure_tables(FILE)
    assert FILE.read_bytes() == b"the server's"


def test_a_journal_of_an_earlier_file_is_deleted(making: list[Path]) -> None:
    journal = Path(f"{FILE}-journal")
    journal.write_bytes(b"pages of a file that was deleted")
    ensure_tables(FILE)
    assert FILE.is_file() and not journal.exists()


def test_mlflow_opens_the_file(tables: Path) -> None:
    write_changed(tables)
    client = open_store(f"{SQLITE}{FILE.resolve()}")
    assert isinstance(client, MlflowClient)
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
