"""Reading an existing search from its folder."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from search.exports.export_model import export_model
from search.exports.retention import clean
from search.reporting.progress import Lines
from search.reporting.report import read_result, write_report
from search.running.single import train
from search.space.config_file import read_config
from search.space.validation import checked_config
from search.study.lock import is_held, locked
from search.study.reading import load_study, read_search_config
from search.study.search_state import SearchState
from trainer.config import InputError

from ..conftest import Trained


def test_a_moved_search_can_be_read(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    config = read_search_config("once", Path("moved"))
    assert config.folder == tmp_path / "moved" / "once"
    assert config.train == trained.config.train
    with pytest.raises(InputError, match=r"no search twice in .*; its searches: once"):
        read_search_config("twice", Path("moved"))


@pytest.fixture
def storage(trained: Trained, tmp_path: Path) -> Path:
    """A folder of one finished search, under the name it started with."""
    shutil.copytree(trained.config.storage, tmp_path / "searches")
    return tmp_path / "searches"


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_changes_of_a_copy_leave_the_original(storage: Path) -> None:
    shutil.copytree(storage / "once", storage / "copy")
    before = files(storage / "once")
    config = read_search_config("copy", storage)
    assert config.folder == storage / "copy"
    study = load_study(config)
    assert clean(config, study) > 0
    assert write_report(read_result(config, study), study) == storage / "copy" / "report.html"
    with locked(config.folder):
        assert not is_held(read_search_config("once", storage).folder)
    assert files(storage / "once") == before
    assert not list((storage / "copy" / "phases").rglob("*.pt"))


def test_a_renamed_search_continues(trained: Trained, storage: Path, tmp_path: Path) -> None:
    (storage / "once").rename(storage / "renamed")
    raw = {**trained.raw, "name": "renamed", "storage": str(storage), "tracking": "off"}
    for _ in range(2):
        result = train(checked_config(raw, tmp_path), Lines(Console(file=io.StringIO())))
        assert result.metrics == trained.result.metrics
        config = read_search_config("renamed", storage)
        assert load_study(config).state == SearchState.DONE
    export_model("renamed", 0, "safetensors", storage, tmp_path / "model")
    assert (tmp_path / "model" / "spec.json").is_file()
    assert [place.name for place in storage.iterdir()] == ["renamed"]
    assert str(storage) not in (storage / "renamed" / "search.yaml").read_text()


def test_the_yaml_in_a_searchs_folder_has_the_folders_name_and_storage(
    storage: Path, tmp_path: Path
) -> None:
    (storage / "once").rename(storage / "renamed")
    raw = read_config(storage / "renamed" / "search.yaml", {})
    assert (raw["name"], raw["storage"]) == ("renamed", str(storage))
    assert read_config(storage / "renamed" / "search.yaml", {}, "new")["name"] == "new"
    shutil.copy(storage / "renamed" / "search.yaml", tmp_path)  # the file alone is a config
    assert read_config(tmp_path / "search.yaml", {})["name"] == "once"
    assert "storage" not in read_config(tmp_path / "search.yaml", {})


@pytest.mark.parametrize("name", ["", ".", "..", "searches/once", "../searches/once"])
def test_a_path_is_not_the_name_of_a_search(storage: Path, name: str) -> None:
    (storage.parent / "search.yaml").write_text("name: mine\n")
    with pytest.raises(InputError, match=r"no search .* in .*searches; its searches: once"):
        read_search_config(name, storage)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged (has no keys); restore it from a copy, or"),
        (b"name: once\nspace: {", "is damaged (line 2: "),
        (b"\xff\xfe\x00", "is damaged (is not UTF-8 text); restore it"),
        (b"name: once\nsearch: {trials: 0}\n", ": search.trials: "),
    ],
)
def test_the_error_of_a_damaged_config_names_it_and_what_to_do(
    storage: Path, content: bytes, reason: str
) -> None:
    file = storage / "once" / "search.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_search_config("once", storage)
    assert all(line.startswith(str(file)) for line in raised.value.errors)
    assert reason in raised.value.errors[-1]


def test_a_search_without_its_study_is_an_error(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    assert load_study(read_search_config("once", Path("moved"))).state == SearchState.DONE
    (tmp_path / "moved" / "once" / "study.journal").unlink()
    with pytest.raises(InputError, match=r"no search in .*moved/once"):
        load_study(read_search_config("once", Path("moved")))
