"""The folder that `--out` names: written completely, or not at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.exports.export_model import export_model
from search.exports.predict import predict_pictures
from trainer.config import Data, InputError

from ..conftest import Trained

OUT = Path("out")


def test_an_export_survives_a_process_killed_while_replacing_it(trained: Trained) -> None:
    part = OUT.absolute().with_name(f".{OUT.name}.part")
    shutil.copytree(trained.winner, part / "before")  # moved away, and not yet replaced
    with pytest.raises(InputError, match="exists already; choose another folder, or --force"):
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
    with pytest.raises(InputError, match="letters is no export: --force does not replace it"):
        export_model("once", None, "safetensors", storage, Path("letters"), force=True)
    assert sorted(place.name for place in Path().iterdir()) == ["letters", "out"]


def test_a_folder_that_cannot_be_made_is_refused(trained: Trained, tiny_data: Data) -> None:
    Path("file").touch()
    with pytest.raises(InputError, match="--out file/model cannot be written"):
        export_model("once", None, "safetensors", trained.config.storage, Path("file/model"))
    picture = tiny_data.train.parent / "images" / "val-00.png"
    with pytest.raises(InputError, match="--out file/model cannot be written"):
        predict_pictures(str(trained.winner), [picture], Path(), Path("file/model"), 0.5)


def test_an_existing_folder_is_written_to_only_with_force(model: Path, tiny_data: Data) -> None:
    picture = tiny_data.train.parent / "images" / "val-00.png"
    OUT.mkdir()
    with pytest.raises(InputError, match="out exists already; choose another folder, or --force"):
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
