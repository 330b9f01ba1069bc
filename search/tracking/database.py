"""MLflow's store where it is a SQLite file: its tables are made aside, whole or not at all.

MLflow makes them in dozens of steps, and opens no file again in which it was killed between two.
"""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from filelock import FileLock
from mlflow.store.db.utils import _get_latest_schema_revision
from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
HALF_CHANGED = "_alembic_tmp_"
"""Begins the name of a table that MLflow was changing when it was killed."""
BESIDE = ("-journal", "-wal", "-shm")
"""What SQLite appends to a file's name for those that belong to it."""


class Unusable(Exception):
    """A file that MLflow will never open."""


def open_store(uri: str) -> MlflowClient:
    """MLflow's client of a store, of a SQLite file with its tables. Raises like `make_ready`, and
    whatever MLflow raises."""
    if uri.startswith(SQLITE):
        make_ready(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(uri)


def make_ready(file: Path) -> None:
    """Have a file hold MLflow's tables where it is not there, or was left half made without a row.

    Raises Unusable, saying what to do, where it has rows in half changed tables, or is no database.
    """
    if _may_be_opened(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not _may_be_opened(file):  # else another process has made it
            _make(file)


def _may_be_opened(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with closing(sqlite3.connect(file)) as store:
            tables = [
                n for (n,) in store.execute("select name from sqlite_master where type='table'")
            ]
            half_changed = any(name.startswith(HALF_CHANGED) for name in tables)
            if not half_changed and "alembic_version" in tables:
                newest = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
                if store.execute("select * from alembic_version").fetchall() == [(newest,)]:
                    return True
            if not any(_holds_rows(store, name) for name in tables):
                return False
    except sqlite3.OperationalError:  # another process has it, or it may not be read
        raise
    except sqlite3.DatabaseError as error:
        raise Unusable(f"{file} is no database that can be read: move it away") from error
    if half_changed:
        raise Unusable(f"{file} was left half changed by an upgrade that was killed: move it away")
    return True  # an earlier MLflow's, which it upgrades, or says what to do


def _holds_rows(store: sqlite3.Connection, table: str) -> bool:
    """Whether a table has what MLflow did not put there when it made it."""
    if table in {"alembic_version", "workspaces"}:
        return False
    made = " where experiment_id != 0" if table.endswith("experiments") else ""
    return store.execute(f'select 1 from "{table}"{made} limit 1').fetchone() is not None


def _make(file: Path) -> None:
    for left in file.parent.glob(f".{file.name}.*.part*"):
        left.unlink()  # of a process that was killed: the lock is ours
    half_made = file.is_file()
    # each time another, for MLflow keeps what it has open by name
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    MlflowClient(f"{SQLITE}{part}")
    if half_made:
        part.replace(file)
        return
    for suffix in BESIDE:  # SQLite would take back from the new file what an old one had begun
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)
    try:
        os.link(part, file)  # never in place of what MLflow's server may have made meanwhile
    except FileExistsError:
        pass
    except OSError:  # a disk without second names
        part.rename(file)
    part.unlink(missing_ok=True)
