"""MODEL on the command line, and what is done with it."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from search.exports.exports import (
    evaluate_model,
    export_model,
    find_model,
    load_data,
    predict_pictures,
)
from trainer.config import BadInput, Data
from trainer.export import conversion as portable_files
from trainer.export.bundle import load_export, open_export, write_digest
from trainer.export.conversion import FILES
from trainer.model.weights import read

from ..conftest import Trained

Make = Callable[..., Any]
OUT = Path("out")


@pytest.fixture
def model(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the winner."""
    shutil.copytree(trained.winner, tmp_path / "model")
    return tmp_path / "model"


# -- MODEL ----------------------------------------------------------------------------------------


def test_a_model_is_a_folder_or_a_searchs_winner(trained: Trained) -> None:
    storage = trained.config.storage
    assert find_model(str(trained.winner), Path("nowhere")) == trained.winner
    assert find_model("once", storage) == trained.winner


def test_an_unknown_model_says_where_was_looked(trained: Trained) -> None:
    with pytest.raises(BadInput, match="nope: neither an exported folder nor a search in "):
        find_model("nope", trained.config.storage)
    (Path("searches") / "young").mkdir(parents=True)
    with pytest.raises(BadInput, match="young: the search in .* has no winner yet"):
        find_model("young", Path("searches"))


# -- export ---------------------------------------------------------------------------------------


def test_export_copies_the_winner(trained: Trained) -> None:
    export_model("once", None, "safetensors", trained.config.storage, OUT / "deep")
    assert load_export(OUT / "deep")[1] == load_export(trained.winner)[1]


def test_export_rebuilds_a_trial_equal_to_the_winner(trained: Trained) -> None:
    export_model("once", 0, "safetensors", trained.config.storage, OUT)
    ours, theirs = (load_file(d / "model.safetensors") for d in (OUT, trained.winner))
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    assert json.loads((OUT / "spec.json").read_text()) == json.loads(
        (trained.winner / "spec.json").read_text()
    )


def test_export_refuses_what_is_not_there_and_what_is(trained: Trained) -> None:
    storage = trained.config.storage
    with pytest.raises(BadInput, match="--trial 7: once has trials 0 to 0"):
        export_model("once", 7, "safetensors", storage, OUT)
    with pytest.raises(BadInput, match="no search twice"):
        export_model("twice", 0, "safetensors", storage, OUT)
    assert not OUT.exists()
    OUT.mkdir()
    for trial in (None, 0):
        with pytest.raises(BadInput, match="out is there already"):
            export_model("once", trial, "safetensors", storage, OUT)
    assert list(OUT.iterdir()) == []


def test_who_is_killed_while_it_replaces_an_export_loses_none(trained: Trained) -> None:
    part = OUT.absolute().with_name(f".{OUT.name}.part")
    shutil.copytree(trained.winner, part / "before")  # taken away, and nothing put there
    with pytest.raises(BadInput, match="is there already; choose another folder, or --force"):
        export_model("once", None, "safetensors", trained.config.storage, OUT)
    assert (OUT / "spec.json").read_bytes() == (trained.winner / "spec.json").read_bytes()


def test_force_replaces_an_export_and_nothing_else(trained: Trained) -> None:
    storage = trained.config.storage
    export_model("once", None, "safetensors", storage, OUT)
    (OUT / "stale").touch()
    export_model("once", None, "safetensors", storage, OUT, force=True)
    assert not (OUT / "stale").exists()
    Path("letters").mkdir()
    Path("letters/dear.txt").touch()
    with pytest.raises(BadInput, match="letters is no export: --force does not replace it"):
        export_model("once", None, "safetensors", storage, Path("letters"), force=True)
    assert sorted(place.name for place in Path().iterdir()) == ["letters", "out"]


def test_a_folder_that_cannot_be_made_is_told(trained: Trained, tiny_data: Data) -> None:
    Path("file").touch()
    with pytest.raises(BadInput, match="--out file/model cannot be written"):
        export_model("once", None, "safetensors", trained.config.storage, Path("file/model"))
    picture = tiny_data.train.parent / "images" / "val-00.png"
    with pytest.raises(BadInput, match="--out file/model cannot be written"):
        predict_pictures(str(trained.winner), [picture], Path(), Path("file/model"), 0.5)


def test_a_trial_without_or_with_a_damaged_checkpoint_leaves_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    best = tmp_path / "moved" / "once" / "trials" / "0" / "best.pt"
    content = best.read_bytes()
    best.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    with pytest.raises(BadInput, match=r"best\.pt is damaged"):
        export_model("once", 0, "safetensors", Path("moved"), OUT)
    best.unlink()
    with pytest.raises(BadInput, match="--trial 0: its checkpoint is gone"):
        export_model("once", 0, "onnx", Path("moved"), OUT)
    assert [place.name for place in tmp_path.iterdir()] == ["moved"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_file_with_other_bytes_than_were_exported_is_damaged(model: Path, name: str) -> None:
    file = model / name
    if name == "model.onnx":
        file.write_bytes(b"as exported")
        write_digest(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name} is damaged: its SHA-256"):
        open_export(model)


def test_weights_of_a_damaged_export_are_not_trained_on(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BadInput, match=r"model\.safetensors is damaged: its SHA-256"):
        read(model, "")


def test_an_export_of_the_first_version_is_not_compared(model: Path) -> None:
    spec = json.loads((model / "spec.json").read_text())
    (model / "spec.json").write_text(json.dumps({k: v for k, v in spec.items() if k != "sha256"}))
    load_export(model)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[1]", "its spec.json holds no mapping"),
        (b"\xff\xfe", "it has no readable spec.json"),
        (b"[" * 100_000, "it has no readable spec.json"),
    ],
)
def test_a_damaged_spec_is_told(model: Path, content: bytes, told: str) -> None:
    (model / "spec.json").write_bytes(content)
    with pytest.raises(BadInput, match=told):
        open_export(model)


def test_a_spec_with_a_field_of_another_type_is_told(model: Path) -> None:
    spec = json.loads((model / "spec.json").read_text())
    (model / "spec.json").write_text(json.dumps({**spec, "thresholds": [0.5]}))
    with pytest.raises(BadInput, match=r"spec\.json is damaged"):
        open_export(model)


@pytest.mark.parametrize("content", ["{bad", "[1]", '{"val": []}'])
def test_damaged_figures_are_told(model: Path, tiny_data: Data, content: str) -> None:
    (model / "metrics.json").write_text(content)
    with pytest.raises(BadInput, match=r"metrics\.json is damaged.*; delete it and evaluate"):
        evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)


def test_an_export_far_from_its_search_asks_for_data(model: Path) -> None:
    with pytest.raises(BadInput, match="lies in no search: give --data DATA"):
        export_model(str(model), None, "onnx", Path(), OUT)
    assert not OUT.exists()


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def portable(
    request: pytest.FixtureRequest,
    trained: Trained,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_data: Data,
) -> Path:
    """The winner as one file, in the folder that comes with it; compared on a whole COCO json."""
    out = tmp_path_factory.mktemp("portable") / "model"
    export_model(str(trained.winner), None, request.param, Path(), out, data=tiny_data.val)
    return out / FILES[request.param]


@pytest.mark.slow  # an export takes half a minute
def test_a_portable_export_predicts_what_its_original_does(
    portable: Path, trained: Trained, tiny_data: Data
) -> None:
    files = {file.name for file in portable.parent.iterdir()}
    assert files == {portable.name, "README.md", "metrics.json", "spec.json"}
    pictures = [tiny_data.train.parent / "images"]
    found = []
    for model, out in ((portable, Path("ours")), (trained.winner, Path("theirs"))):
        predict_pictures(str(model), pictures, Path(), out, 0.1)
        found.append(json.loads((out / "detections.json").read_text())["annotations"])
    assert len(found[0]) == len(found[1]) > 0
    own, original = (
        evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)["figures"]
        for model in (portable, trained.winner)
    )
    assert own["map"] == pytest.approx(original["map"], abs=0.01)


@pytest.mark.slow  # as above
def test_the_cards_lines_run_without_this_project(
    portable: Path, tiny_data: Data, tmp_path: Path
) -> None:
    shutil.copytree(portable.parent, "model")
    shutil.copy(tiny_data.train.parent / "images" / "val-00.png", "model/picture.jpg")
    spec = json.loads(Path("model/spec.json").read_text())
    spec["thresholds"] = dict.fromkeys(spec["thresholds"], 0.1)
    Path("model/spec.json").write_text(json.dumps(spec))
    (code,) = re.findall(r"```python\n(.*?)```", Path("model/README.md").read_text(), re.DOTALL)
    strangers = {"trainer", "search"} | ({"torch"} if "onnx" in code else set())
    assert not strangers & set(re.findall(r"\w+", code))
    line = [sys.executable, "-P", "-c", code]
    done = subprocess.run(line, cwd="model", capture_output=True, text=True, check=True)
    model = Path("model", portable.name)
    predict_pictures(str(model), [Path("model/picture.jpg")], Path(), OUT, None)
    boxes = json.loads((OUT / "detections.json").read_text())["annotations"]
    assert len(done.stdout.splitlines()) == len(boxes) > 0
    assert float(done.stdout.split()[1]) == pytest.approx(boxes[0]["score"], abs=1e-3)


# -- evaluate -------------------------------------------------------------------------------------


def test_evaluate_gives_the_kept_figures_again(
    model: Path, trained: Trained, tiny_data: Data
) -> None:
    found = evaluate_model(str(model), tiny_data.train.parent, "val", Path(), OUT)
    kept = trained.result.metrics["val"]
    assert found["figures"] == pytest.approx(kept["figures"], abs=1e-4, nan_ok=True)
    assert found["per_class"] == pytest.approx(kept["per_class"], abs=1e-4, nan_ok=True)
    detections = json.loads(OUT.read_text())
    assert {d["category_id"] for d in detections} <= {3, 7}
    assert {d["image_id"] for d in detections} <= set(range(100, 106))
    assert all(d.keys() == {"image_id", "category_id", "bbox", "score"} for d in detections)


@pytest.mark.parametrize("detections", [None, 300])
def test_all_that_an_export_may_find_is_measured_beside_cocos_hundred(
    model: Path, tiny_data: Data, detections: int | None
) -> None:
    spec = json.loads((model / "spec.json").read_text())
    del spec["model"]["detections"]  # an export of an earlier version does not say it
    spec["model"] |= {"detections": detections} if detections else {}
    (model / "spec.json").write_text(json.dumps(spec))
    found = evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)
    limit = detections or 100
    assert found["detections"] == load_export(model)[0].head.detections_per_img == limit
    assert len(found["figures"]) == 12
    assert ("mar_300" in found["at_detections"]) == (detections == 300)
    kept = json.loads((model / "metrics.json").read_text())["val"]
    assert kept["at_detections"] == found["at_detections"]


def test_one_json_is_the_split_that_was_asked_for(
    model: Path, trained: Trained, tiny_data: Data
) -> None:
    assert tiny_data.val is not None
    found = evaluate_model(str(model), tiny_data.val, "val", Path(), None)
    assert found["figures"] == trained.result.metrics["val"]["figures"]


def test_a_yaml_names_data_beside_itself(trained: Trained, tiny_data: Data) -> None:
    shutil.copytree(tiny_data.train.parent, Path("set"))
    Path("set/data.yaml").write_text("data: {train: train.json, val: val.json}\n")
    assert len(load_data(Path("set/data.yaml")).val.pictures) == 6
    assert len(load_data(trained.config.folder / "search.yaml").val.pictures) == 6
    Path("none.yaml").write_text("model: {}\n")
    with pytest.raises(BadInput, match="none.yaml: has no data: part"):
        load_data(Path("none.yaml"))


def test_each_look_at_test_is_counted(model: Path, tiny_data: Data) -> None:
    yaml = Path("data.yaml")
    yaml.write_text(f"data: {{train: {tiny_data.train}, test: {tiny_data.val}}}\n")
    for looks in (1, 2):
        evaluate_model(str(model), yaml, "test", Path(), None)
        kept = json.loads((model / "metrics.json").read_text())
        assert kept["test"]["looks"] == looks


def test_an_evaluation_on_other_data_leaves_the_models_own_figures(
    model: Path, tiny_data: Data
) -> None:
    before = json.loads((model / "metrics.json").read_text())["val"]
    other = evaluate_model(str(model), tiny_data.train, "val", Path(), None)
    assert other["figures"] != before["figures"]
    assert json.loads((model / "metrics.json").read_text())["val"] == before


def test_a_split_that_is_not_there_is_refused(model: Path, tiny_data: Data) -> None:
    with pytest.raises(BadInput, match="has no test split"):
        evaluate_model(str(model), tiny_data.train.parent, "test", Path(), None)


def test_data_of_other_classes_is_refused_with_both(model: Path, tiny_data: Data) -> None:
    shutil.copytree(tiny_data.train.parent, Path("set"))
    content = json.loads(Path("set/val.json").read_text())
    content["categories"][0]["name"] = "green"
    Path("set/val.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"its classes \(3 green, 7 blue\) are not the model's"):
        evaluate_model(str(model), Path("set/val.json"), "val", Path(), None)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_figures_that_cannot_be_kept_are_told_all_the_same_but_of_a_full_disk(
    model: Path, tiny_data: Data, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("search.exports.exports.record_evaluation", refuse)
    words = (str(model), tiny_data.train.parent, "val", Path(), None)
    if number == errno.EROFS:
        assert "map" in evaluate_model(*words)["figures"]
    else:  # the winner's figures would be missing without a word
        with pytest.raises(OSError, match="No space left"):
            evaluate_model(*words)


# -- predict --------------------------------------------------------------------------------------


def test_predict_draws_each_picture_and_writes_coco(model: Path, tiny_data: Data) -> None:
    pictures = tiny_data.train.parent / "images"
    files = sorted(pictures.glob("val-*.png"))
    Path("broken.png").write_bytes(b"no picture")
    done = predict_pictures(str(model), [*files, Path("broken.png")], Path(), OUT, 0.0)
    (line,) = done.unreadable
    assert line.startswith("broken.png: ")
    drawn = sorted(OUT.glob("*.jpg"))
    assert [file.stem for file in drawn] == [file.stem for file in files]
    found = json.loads((OUT / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in found["images"]] == [f.name for f in files]
    assert [c["id"] for c in found["categories"]] == [3, 7]
    ids = [annotation["id"] for annotation in found["annotations"]]
    assert (done.pictures, done.boxes) == (len(files), len(ids))
    assert ids == list(range(1, len(ids) + 1))
    for annotation in found["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 96.001 and y + height <= 72.001


def test_no_box_is_below_the_threshold(model: Path, tiny_data: Data) -> None:
    picture = tiny_data.train.parent / "images" / "val-00.png"
    predict_pictures(str(model), [picture], Path(), OUT, 1.0)
    assert json.loads((OUT / "detections.json").read_text())["annotations"] == []


def test_the_operating_point_counts_unless_told_otherwise(model: Path, tiny_data: Data) -> None:
    pictures = [tiny_data.train.parent / "images"]
    spec = json.loads((model / "spec.json").read_text())
    counts = []
    for out, red, threshold in (("a", 0.0, None), ("b", 1.0, None), ("c", 1.0, 0.0)):
        spec["thresholds"] = {"red": red, "blue": 1.0}
        (model / "spec.json").write_text(json.dumps(spec))
        predict_pictures(str(model), pictures, Path(), Path(out), threshold)
        found = json.loads(Path(out, "detections.json").read_text())["annotations"]
        counts.append(len({a["category_id"] for a in found}))
    assert counts == [1, 0, 2]


def test_a_folder_that_is_there_is_written_to_with_force_alone(
    model: Path, tiny_data: Data
) -> None:
    picture = tiny_data.train.parent / "images" / "val-00.png"
    OUT.mkdir()
    with pytest.raises(BadInput, match="out is there already; choose another folder, or --force"):
        predict_pictures(str(model), [picture], Path(), OUT, 0.5)
    predict_pictures(str(model), [picture], Path(), OUT, 0.5, force=True)
    assert (OUT / "detections.json").is_file()


def test_a_prediction_that_is_broken_off_leaves_nothing(model: Path, tiny_data: Data) -> None:
    def broken(files: list[Path]) -> Iterator[Path]:
        yield files[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_pictures(
            str(model), [tiny_data.train.parent / "images"], Path(), OUT, 0.5, watch=broken
        )
    assert [file.name for file in Path().iterdir()] == ["model"]


def test_a_model_is_not_exported_over_itself(model: Path) -> None:
    with pytest.raises(BadInput, match="model is the model itself; choose another folder"):
        export_model(str(model), None, "onnx", Path(), model, force=True)
    assert (model / "model.safetensors").is_file()


def test_pictures_of_one_name_are_all_kept(model: Path) -> None:
    pixels = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        pixels.save(name)
    predict_pictures(str(model), [Path("a"), Path("b")], Path(), OUT, 0.5)
    assert len(list(OUT.glob("*.jpg"))) == 3
    images = json.loads((OUT / "detections.json").read_text())["images"]
    assert len({image["file_name"] for image in images}) == 3


def test_when_no_picture_can_be_read_nothing_is_made(model: Path) -> None:
    Path("text.png").write_text("no picture")
    with pytest.raises(BadInput) as raised:
        predict_pictures(str(model), [Path("text.png")], Path(), OUT, 0.5)
    unreadable, nothing = raised.value.errors
    assert unreadable.startswith("text.png: cannot be read as a picture")
    assert nothing == "none of the pictures can be read: nothing was written"
    assert [place.name for place in Path().iterdir() if place.name != "model"] == ["text.png"]


@pytest.mark.parametrize("place", ["nowhere.png", "empty"])
def test_without_pictures_nothing_is_made(model: Path, place: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(BadInput):
        predict_pictures(str(model), [Path(place)], Path(), OUT, 0.5)
    assert not OUT.exists()


# -- what a folder from somebody else may hold ----------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which one-file formats were opened, with none of them run."""
    files: list[str] = []

    def never(file: Path) -> Any:
        files.append(file.name)
        raise RuntimeError("opened")

    for format in ("onnx", "pt2"):
        monkeypatch.setitem(portable_files.OPENERS, format, never)
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
def test_a_pt2_is_opened_by_its_own_path_alone(
    model: Path, opened: list[str], files: list[str], named: str, first: str
) -> None:
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_bytes(b"any")
    with pytest.raises(BadInput, match="cannot be read: opened"):
        open_export(find_model(str(model / named), Path()))
    assert opened == [first]


def test_a_folder_with_a_pt2_alone_says_how_to_open_it(model: Path, opened: list[str]) -> None:
    (model / "model.safetensors").rename(model / "model.pt2")
    with pytest.raises(BadInput, match=r"may run code as it is opened: give .*model\.pt2, if you"):
        open_export(model)
    assert opened == []
