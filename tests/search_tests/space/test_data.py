"""The data set that a command or a config names."""

from pathlib import Path

import pytest

from search.space.config_file import write_yaml
from search.space.data import data_errors, find_data, with_allowed_codes, with_images
from trainer.config import Data

from ..conftest import errors_of


def test_a_yaml_with_a_data_part_names_a_data_set(tmp_path: Path, tiny_data: Data) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(write_yaml({"data": {"train": str(tiny_data.train)}}))
    data = find_data(file)
    assert isinstance(data, Data)
    assert data.train == tiny_data.train


def test_a_json_names_a_data_set(tiny_data: Data) -> None:
    assert find_data(tiny_data.train) == Data(train=tiny_data.train)


def test_a_yaml_without_data_or_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("name: cells\n")
    (error,) = errors_of(find_data, file)
    assert error == f"{file}: has no data: part, and no names as YOLO's have"


def test_a_missing_file_is_refused() -> None:
    assert errors_of(find_data, Path("gone")) == ["gone: no such file or folder"]


def test_further_codes_are_allowed(tiny_data: Data) -> None:
    data = tiny_data.model_copy(update={"allow": ["box-outside"]})
    assert with_allowed_codes(data, ["class-missing"]).allow == ["box-outside", "class-missing"]
    assert with_allowed_codes(data, []) is data
    assert with_allowed_codes("digits", ["class-missing"]) == "digits"


def test_a_folder_of_one_split_overrides_the_folder_of_all(tmp_path: Path, tiny_data: Data) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert with_images(tiny_data, ["a"]).images == Path("a")
    assert with_images(tiny_data, ["a", "val=b"]).images == {"train": Path("a"), "val": Path("b")}
    assert with_images(tiny_data, []) is tiny_data


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["a", "a"], "--images a: all has a already"),
        (["test=a"], "--images test=a: there is no test, only train, val"),
        (["gone"], "--images gone: no folder gone"),
    ],
)
def test_an_image_folder_that_does_not_fit_is_refused(
    tmp_path: Path, tiny_data: Data, given: list[str], error: str
) -> None:
    (tmp_path / "a").mkdir()
    assert errors_of(with_images, tiny_data, given) == [error]


def test_the_embedded_data_set_takes_no_image_folder() -> None:
    (error,) = errors_of(with_images, "digits", ["a"])
    assert error.startswith("--images: the embedded data set has its images")


def test_errors_of_annotations_are_listed(tmp_path: Path, tiny_data: Data) -> None:
    assert data_errors({"train": str(tiny_data.train), "val": str(tiny_data.val)}, tmp_path) == []
    (tmp_path / "train.json").write_text("[1, 2]")
    (error,) = data_errors({"train": "train.json"}, tmp_path)
    assert "train.json" in error


def test_errors_of_the_data_part_are_left_to_the_check_of_the_config(tmp_path: Path) -> None:
    assert data_errors({"trian": "train.json"}, tmp_path) == []
    assert data_errors("digits", tmp_path) == []
