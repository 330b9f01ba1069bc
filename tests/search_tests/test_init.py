"""`unfreeze init`: a search.yaml that can be run as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import SearchConfig, read
from search.errors import resolve
from search.init import write_search
from trainer.config import BadInput, Data
from trainer.model.detectors import is_coco

Write = Callable[..., SearchConfig]


@pytest.fixture
def dataset(tiny_data: Data, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the tiny data set in a folder of this name."""

    def make(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(tiny_data.train.parent, place)
        return place

    return make


def written(place: Path, out: Path = Path("search.yaml")) -> tuple[SearchConfig, list[str]]:
    """What init wrote, as a search reads it, and what it said."""
    said: list[str] = []
    write_search(place, out, said.append)
    return resolve(read(out, []), out.parent), said


def test_what_it_writes_runs_as_it_is(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    config, said = written(place)
    assert config.name == "cells"
    assert config.data.train == place / "train.json"
    assert config.data.images == place / "images"
    assert set(config.space) >= {"train.unfreeze.depth", "train.unfreeze.lr"}
    assert config.train.unfreeze.batch_size == 4  # few pictures
    assert said[-1] == "  unfreeze search search.yaml"
    text = Path("search.yaml").read_text()
    assert text.startswith("# 2 classes: red, blue\n# train 12 pictures, ")
    assert 'train: "cells/train.json"' in text


def test_a_single_json_is_enough(dataset: Callable[[str], Path]) -> None:
    config, said = written(dataset("cells") / "train.json")
    assert config.data.val is None
    assert any("no val given" in line for line in said)


@pytest.mark.parametrize("name", ["2024", "données", "no", "null", "1e3", "a b", "-x-", "x" * 120])
def test_a_search_can_be_named_after_any_folder(dataset: Callable[[str], Path], name: str) -> None:
    config, _ = written(dataset(name))
    assert config.name


def test_a_search_is_named_after_its_file_where_that_says_something(
    dataset: Callable[[str], Path],
) -> None:
    assert written(dataset("cells"), Path("deep.yaml"))[0].name == "deep"


def test_data_elsewhere_is_named_by_its_whole_path(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("cells")
    out = tmp_path / "project" / "search.yaml"
    out.parent.mkdir()
    assert written(place, out)[0].data.train == place / "train.json"


def test_it_overwrites_nothing(dataset: Callable[[str], Path]) -> None:
    Path("search.yaml").write_text("mine")
    with pytest.raises(BadInput, match="search.yaml is there already"):
        written(dataset("cells"))
    assert Path("search.yaml").read_text() == "mine"


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_nothing_is_written_where_there_is_no_data(place: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(BadInput):
        written(Path(place))
    assert not Path("search.yaml").exists()


def test_class_names_do_not_break_the_file(dataset: Callable[[str], Path]) -> None:
    place = dataset("cells")
    for split in ("train", "val"):
        file = place / f"{split}.json"
        content: dict[str, Any] = json.loads(file.read_text())
        content["categories"][0]["name"] = "red\nname: {odd}"
        file.write_text(json.dumps(content))
    assert written(place)[0].name == "cells"


def test_where_there_is_a_gpu_it_starts_from_coco(
    dataset: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = dataset("cells")
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        config, _ = written(place)
    assert config.model.weights == "coco"
    assert is_coco(config.model)
    low, high = config.space["train.unfreeze.lr"]["log"]
    assert low < config.train.unfreeze.lr < high < 2e-3
    config, _ = written(place, Path("cpu.yaml"))
    assert (config.model.backbone, config.model.weights) == ("tf_efficientnet_lite0", "imagenet")
