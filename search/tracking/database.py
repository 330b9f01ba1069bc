"""MLflow's store where it is a SQLite file: its tables are complete, or the file does not exist.

MLflow makes the tables in dozens of steps. It never opens a file again if it was killed between
two of them. So they are made in another file, which is then renamed.
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
"""What SQLite appends to a database's name for the files that belong to it."""


class UnusableDatabaseError(Exception):
    """A file that MLflow will never open."""


def open_store(uri: str) -> MlflowClient:
    """MLflow's client of a store; a SQLite file gets its tables first.

    Raises like `ensure_tables`, and whatever MLflow raises.
    """
    if uri.startswith(SQLITE):
        ensure_tables(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(uri)


def ensure_tables(file: Path) -> None:
    """Make a file with MLflow's tables, if it is missing, or incomplete and without rows.

    Raises:
        UnusableDatabaseError: The file has rows in incomplete tables, or is no database; the
            message says what to do.
    """
    if _may_be_opened(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not _may_be_opened(file):  # else another process has just made it
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
    except sqlite3.OperationalError:  # another process uses it, or it may not be read
        raise
    except sqlite3.DatabaseError as error:
        raise UnusableDatabaseError(
            f"{file} is no database that can be read: move it away"
        ) from error
    if half_changed:
        raise UnusableDatabaseError(
            f"{file} was left half changed by an upgrade that was killed: move it away"
        )
    return True  # of an earlier MLflow: the new one upgrades it, or says what to do


def _holds_rows(store: sqlite3.Connection, table: str) -> bool:
    """Whether a table has more rows than MLflow puts into it at first."""
    if table in {"alembic_version", "workspaces"}:
        return False
    added = " where experiment_id != 0" if table.endswith("experiments") else ""
    return store.execute(f'select 1 from "{table}"{added} limit 1').fetchone() is not None


def _make(file: Path) -> None:
    for left in file.parent.glob(f".{file.name}.*.part*"):
        left.unlink()  # by a killed process: no other has the lock
    half_made = file.is_file()
    # a new name each time: MLflow keeps open stores by name
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    MlflowClient(f"{SQLITE}{part}")
    if half_made:
        part.replace(file)
        return
    for suffix in BESIDE:  # of a deleted file: SQLite would apply them to the new one
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)
    try:
        os.link(part, file)  # unlike a rename it never replaces what MLflow's server just made
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        part.rename(file)
    part.unlink(missing_ok=True)
