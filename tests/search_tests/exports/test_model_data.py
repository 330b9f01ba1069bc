"""DATA on the command line, as a model is measured on it."""

import shutil
from pathlib import Path

import pytest

from search.exports.model_data import is_training_data, load_data, load_named_split
from trainer.config import Data, InputError

from ..conftest import Trained


def test_a_yaml_names_data_beside_itself(trained: Trained, tiny_data: Data) -> None:
    shutil.copytree(tiny_data.train.parent, Path("set"))
    Path("set/data.yaml").write_text("data: {train: train.json, val: val.json}\n")
    assert len(load_data(Path("set/data.yaml")).val.pictures) == 6
    assert len(load_data(trained.config.folder / "search.yaml").val.pictures) == 6
    Path("none.yaml").write_text("model: {}\n")
    with pytest.raises(InputError, match=r"none\.yaml: has no data: part"):
        load_data(Path("none.yaml"))


def test_a_split_is_one_of_the_data_set_or_one_json(tiny_data: Data) -> None:
    assert tiny_data.val is not None
    for place in (tiny_data.train.parent, tiny_data.val):
        assert len(load_named_split(place, "val", ()).pictures) == 6
    with pytest.raises(InputError, match="has no test split"):
        load_named_split(tiny_data.train.parent, "test", ())


def test_training_data_is_known_by_its_digest(tiny_data: Data) -> None:
    assert tiny_data.val is not None
    digest = load_data(tiny_data.train.parent).digest
    assert is_training_data(tiny_data.train.parent, digest, ())
    assert not is_training_data(tiny_data.train.parent, "another", ())
    assert not is_training_data(tiny_data.val, digest, ())
