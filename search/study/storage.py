"""Where a study is stored: a journal file in the search's folder, or a database."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from trainer.config import InputError
from trainer.text.redaction import redacted

from .journal import JOURNAL, explain_damage, open_journal
from .study import Study


def open_study(folder: Path, name: str, uri: str | None = None, **settings: Any) -> Study:
    """Open the study of a search for writing; create it if it does not exist.

    Args:
        folder: The search's folder, created if it does not exist.
        name: The study's name.
        uri: URL of a database; None means the journal in the folder.
        settings: `seed` and `trials` of Study.

    Raises:
        InputError: The journal is damaged, or the database cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if uri is not None:
        return Study(_database(uri), name, **settings)
    with explain_damage(folder / JOURNAL):
        journal = open_journal(folder / JOURNAL)
        return Study(JournalStorage(journal), name, one_step=journal.one_step, **settings)


def read_study(folder: Path, name: str, uri: str | None = None) -> Study:
    """The study of a search for reading, from any process; arguments as of `open_study`.

    Raises:
        FileNotFoundError: There is no such study.
        InputError: The journal is damaged, or the database cannot be opened.
    """
    if uri is not None:
        try:
            return Study(_database(uri), name, read_only=True)
        except KeyError as error:  # Optuna raises it where there is no study of this name
            raise FileNotFoundError(f"no study {name} in {redacted(uri)}") from error
    journal = folder / JOURNAL
    if not journal.is_file():
        raise FileNotFoundError(f"no search in {folder}")
    with explain_damage(journal):
        return Study(JournalStorage(JournalFileBackend(str(journal))), name, read_only=True)


def _database(uri: str) -> BaseStorage:
    try:
        return optuna.storages.get_storage(uri)
    except (ImportError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError([f"study: {redacted(uri)} cannot be opened: {reason}"]) from error
