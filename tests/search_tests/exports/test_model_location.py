"""MODEL on the command line, and which file of its folder is opened."""

import json
from pathlib import Path
from typing import Any

import pytest

from search.exports.evaluate import evaluate_model
from search.exports.export_model import export_model
from search.exports.model_location import find_model, name_of
from search.exports.predict import predict_pictures
from trainer.config import Data, InputError
from trainer.export import conversion
from trainer.export.bundle import load_export, open_export, write_digest
from trainer.model.weights import read

from ..conftest import Trained

OUT = Path("out")


def test_a_model_is_a_folder_or_a_searchs_winner(trained: Trained) -> None:
    storage = trained.config.storage
    assert find_model(str(trained.winner), Path("nowhere")) == trained.winner
    assert find_model("once", storage) == trained.winner
    assert find_model(str(trained.winner / "model.safetensors"), storage).parent == trained.winner
    assert name_of(str(trained.winner)) == "once"


def test_an_unknown_model_is_refused_with_the_places_searched(trained: Trained) -> None:
    with pytest.raises(InputError, match="nope: neither an exported folder nor a search in "):
        find_model("nope", trained.config.storage)
    (Path("searches") / "young").mkdir(parents=True)
    with pytest.raises(InputError, match=r"young: the search in .* has no winner yet"):
        find_model("young", Path("searches"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_file_with_other_bytes_than_were_exported_is_damaged(model: Path, name: str) -> None:
    file = model / name
    if name == "model.onnx":
        file.write_bytes(b"as exported")
        write_digest(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is damaged: its SHA-256"):
        open_export(model)


def test_weights_of_a_damaged_export_are_not_trained_on(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"model\.safetensors is damaged: its SHA-256"):
        read(model, "")


def test_an_export_of_the_first_version_has_no_digest_to_compare(model: Path) -> None:
    spec = json.loads((model / "spec.json").read_text())
    (model / "spec.json").write_text(json.dumps({k: v for k, v in spec.items() if k != "sha256"}))
    load_export(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "its spec.json holds no mapping"),
        (b"\xff\xfe", "it has no readable spec.json"),
        (b"[" * 100_000, "it has no readable spec.json"),
    ],
)
def test_a_damaged_spec_is_refused(model: Path, content: bytes, message: str) -> None:
    (model / "spec.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_export(model)


def test_a_spec_with_a_field_of_another_type_is_refused(model: Path) -> None:
    spec = json.loads((model / "spec.json").read_text())
    (model / "spec.json").write_text(json.dumps({**spec, "thresholds": [0.5]}))
    with pytest.raises(InputError, match=r"spec\.json is damaged"):
        open_export(model)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the one-file models that were opened; none of them is run."""
    files: list[str] = []

    def never(file: Path) -> Any:
        files.append(file.name)
        raise RuntimeError("opened")

    for format in ("onnx", "pt2"):
        monkeypatch.setitem(conversion.OPENERS, format, never)
    return files


@pytest.mark.parametrize("beside", ["pt2", "onnx"])
def test_of_a_folder_with_weights_nothing_else_is_opened(
    model: Path, tiny_data: Data, opened: list[str], beside: str
) -> None:
    (model / f"model.{beside}").write_bytes(b"hostile")
    picture = tiny_data.train.parent / "images" / "val-00.png"
    predict_pictures(str(model), [picture], Path(), OUT, 0.5)
    evaluate_model(str(model / "model.safetensors"), tiny_data.train.parent, "val", Path(), None)
    export_model(str(model), None, "safetensors", Path(), Path("copy"))
    assert read(model, "").state
    assert opened == []


@pytest.mark.parametrize(
    ("files", "named", "first"),
    [
        (["model.pt2", "model.onnx"], ".", "model.onnx"),
        (["model.pt2", "model.safetensors"], "model.pt2", "model.pt2"),
        (["model.pt2", "model.onnx"], "model.onnx", "model.onnx"),
    ],
)
def test_a_pt2_is_opened_only_by_the_path_of_its_file(
    model: Path, opened: list[str], files: list[str], named: str, first: str
) -> None:
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_bytes(b"any")
    with pytest.raises(InputError, match="cannot be read: opened"):
        open_export(find_model(str(model / named), Path()))
    assert opened == [first]


def test_a_folder_with_a_pt2_alone_says_how_to_open_it(model: Path, opened: list[str]) -> None:
    (model / "model.safetensors").rename(model / "model.pt2")
    with pytest.raises(
        InputError, match=r"may run code as it is opened: give .*model\.pt2, if you"
    ):
        open_export(model)
    assert opened == []
