"""A search that was begun, read from its folder."""

import shutil
from pathlib import Path

import pytest

from search.begun import begun_study, read_search
from trainer.config import BadInput

from .conftest import Trained


def test_a_search_is_read_wherever_it_lies_now(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    found = read_search("once", Path("moved"))
    assert found.folder == tmp_path / "moved" / "once"
    assert found.train == trained.config.train
    with pytest.raises(BadInput, match="no search twice in .*; there: once"):
        read_search("twice", Path("moved"))


def test_a_search_without_its_study_is_told(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    assert begun_study(read_search("once", Path("moved"))).get("state") == "done"
    (tmp_path / "moved" / "once" / "study.journal").unlink()
    with pytest.raises(BadInput, match="no search in .*moved/once"):
        begun_study(read_search("once", Path("moved")))
