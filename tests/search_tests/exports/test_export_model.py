"""`unfreeze export`: a winner or a trial in a folder, in one of three formats."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from search.exports.evaluate import evaluate_model
from search.exports.export_model import export_model
from search.exports.predict import predict_pictures
from trainer.config import Data, InputError
from trainer.export.bundle import load_export
from trainer.export.conversion import PORTABLE_FILES

from ..conftest import Trained

OUT = Path("out")


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


def test_unknown_trials_and_searches_and_existing_folders_are_refused(trained: Trained) -> None:
    storage = trained.config.storage
    with pytest.raises(InputError, match="--trial 7: once has trials 0 to 0"):
        export_model("once", 7, "safetensors", storage, OUT)
    with pytest.raises(InputError, match="no search twice"):
        export_model("twice", 0, "safetensors", storage, OUT)
    assert not OUT.exists()
    OUT.mkdir()
    for trial in (None, 0):
        with pytest.raises(InputError, match="out exists already"):
            export_model("once", trial, "safetensors", storage, OUT)
    assert list(OUT.iterdir()) == []


def test_a_trial_without_or_with_a_damaged_checkpoint_leaves_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.config.storage, tmp_path / "moved")
    best = tmp_path / "moved" / "once" / "trials" / "0" / "best.pt"
    content = best.read_bytes()
    best.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    with pytest.raises(InputError, match=r"best\.pt is damaged"):
        export_model("once", 0, "safetensors", Path("moved"), OUT)
    best.unlink()
    with pytest.raises(InputError, match="--trial 0: its checkpoint was deleted"):
        export_model("once", 0, "onnx", Path("moved"), OUT)
    assert [place.name for place in tmp_path.iterdir()] == ["moved"]


def test_an_export_outside_its_search_needs_data(model: Path) -> None:
    with pytest.raises(InputError, match="lies in no search: give --data DATA"):
        export_model(str(model), None, "onnx", Path(), OUT)
    assert not OUT.exists()


def test_a_model_is_not_exported_over_itself(model: Path) -> None:
    with pytest.raises(InputError, match="model is the model itself; choose another folder"):
        export_model(str(model), None, "onnx", Path(), model, force=True)
    assert (model / "model.safetensors").is_file()


@pytest.fixture(scope="module", params=["onnx", "pt2"])
def portable(
    request: pytest.FixtureRequest,
    trained: Trained,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_data: Data,
) -> Path:
    """The winner as one file, in its folder; compared on the pictures of a COCO json."""
    out = tmp_path_factory.mktemp("portable") / "model"
    export_model(str(trained.winner), None, request.param, Path(), out, data=tiny_data.val)
    return out / PORTABLE_FILES[request.param]


@pytest.mark.slow  # an export takes half a minute
def test_a_portable_export_predicts_what_its_original_does(
    portable: Path, trained: Trained, tiny_data: Data
) -> None:
    files = {file.name for file in portable.parent.iterdir()}
    assert files == {portable.name, "README.md", "metrics.json", "spec.json"}
    pictures = [tiny_data.train.parent / "images"]
    annotations = []
    for model, out in ((portable, Path("ours")), (trained.winner, Path("theirs"))):
        predict_pictures(str(model), pictures, Path(), out, 0.1)
        annotations.append(json.loads((out / "detections.json").read_text())["annotations"])
    assert len(annotations[0]) == len(annotations[1]) > 0
    converted, original = (
        evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)["figures"]
        for model in (portable, trained.winner)
    )
    assert converted["map"] == pytest.approx(original["map"], abs=0.01)


@pytest.mark.slow  # as above
def test_the_code_on_the_card_runs_without_this_project(
    portable: Path, tiny_data: Data, tmp_path: Path
) -> None:
    shutil.copytree(portable.parent, "model")
    shutil.copy(tiny_data.train.parent / "images" / "val-00.png", "model/picture.jpg")
    spec = json.loads(Path("model/spec.json").read_text())
    spec["thresholds"] = dict.fromkeys(spec["thresholds"], 0.1)
    Path("model/spec.json").write_text(json.dumps(spec))
    (code,) = re.findall(r"```python\n(.*?)```", Path("model/README.md").read_text(), re.DOTALL)
    foreign = {"trainer", "search"} | ({"torch"} if "onnx" in code else set())
    assert not foreign & set(re.findall(r"\w+", code))
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd="model", capture_output=True, text=True, check=True)
    model = Path("model", portable.name)
    predict_pictures(str(model), [Path("model/picture.jpg")], Path(), OUT, None)
    boxes = json.loads((OUT / "detections.json").read_text())["annotations"]
    assert len(done.stdout.splitlines()) == len(boxes) > 0
    assert float(done.stdout.split()[1]) == pytest.approx(boxes[0]["score"], abs=1e-3)
