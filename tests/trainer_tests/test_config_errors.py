"""Config errors: all at once, in the words of the user's file."""

import re
from typing import Any

import pytest

from trainer.config import Data, InputError, TrainConfig
from trainer.config_errors import parse, parse_valid_fields
from trainer.config_fields import set_field

Raw = dict[str, Any]


def errors_of(raw: Any, model: type[TrainConfig] | type[Data] = TrainConfig) -> list[str]:
    with pytest.raises(InputError) as raised:
        parse(model, raw)
    return raised.value.errors


def at(path: str, value: Any) -> Raw:
    raw: Raw = {}
    set_field(raw, path, value)
    return raw


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("modle", "model"),
        ("model.backbon", "backbone"),
        ("train.unfreeze.dept", "depth"),
        ("train.head.batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_is_reported_with_the_nearest_name(path: str, near: str) -> None:
    assert errors_of(at(path, 1)) == [f"{path}: unknown key; did you mean {near}?"]


def test_an_unknown_key_without_a_near_name_is_reported_with_all_names() -> None:
    (error,) = errors_of(at("train.head.zzz", 1))
    assert error == "train.head.zzz: unknown key; known here: epochs, batch_size, lr, weight_decay"


@pytest.mark.parametrize(("value", "hint"), [("adam", "; did you mean adamw?"), ("rmsprop", "")])
def test_an_unknown_choice_is_reported_with_the_legal_choices(value: str, hint: str) -> None:
    (error,) = errors_of(at("train.optimizer", value))
    assert error == f"train.optimizer: {value!r} is none of 'adamw' or 'sgd'{hint}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train", 5),
        ("train.unfreeze", [1]),
        ("model.image_size", "big"),
        ("model.backbone", 50),
        ("train.unfreeze.lr", "fast"),
        ("train.unfreeze.lr", None),
        ("train.head.epochs", 1.5),
        ("train.seed", True),
        ("train.unfreeze.depth", True),
        ("train.unfreeze.depth", 1.5),
    ],
)
def test_a_wrong_type_is_reported_with_path_and_value(path: str, value: Any) -> None:
    (error,) = errors_of(at(path, value))
    assert error.startswith(f"{path}: {value!r}: ")


@pytest.mark.parametrize("raw", [None, 3, "text", ["a"]])
def test_a_file_that_is_not_a_mapping_is_reported(raw: Any) -> None:
    (error,) = errors_of(raw)
    assert error.startswith("the file: ")


@pytest.mark.parametrize(
    ("path", "value", "legal"),
    [
        ("model.image_size", 32, "(legal: at least 64, at most 2048)"),
        ("model.image_size", 100, "multiple of 32 (legal: at least 64, at most 2048)"),
        ("train.unfreeze.lr", 0, "(legal: over 0, at most 10)"),
        ("train.head.lr", 11.0, "(legal: over 0, at most 10)"),
        ("train.head.lr", float("nan"), "(legal: over 0, at most 10)"),
        ("train.clip_norm", float("inf"), "(legal: over 0, at most 1e+06)"),
        ("train.momentum", 1, "(legal: at least 0, under 1)"),
        ("train.head.epochs", -1, "(legal: at least 0, at most 1000)"),
        ("train.unfreeze.epochs", 0, "(legal: at least 1, at most 1000)"),
        ("train.unfreeze.batch_size", 0, "(legal: at least 1, at most 1024)"),
    ],
)
def test_a_value_out_of_range_is_reported_with_the_legal_range(
    path: str, value: float, legal: str
) -> None:
    (error,) = errors_of(at(path, value))
    assert error.startswith(f"{path}: {value!r}: ")
    assert error.endswith(legal)


def test_an_unknown_detector_is_reported_with_the_nearest_name() -> None:
    (error,) = errors_of(at("model.detector", "retinnet"))
    assert "'retinanet', 'fcos', 'faster_rcnn', 'ssd', " in error
    assert error.endswith("did you mean retinanet?")


@pytest.mark.parametrize("value", [0, 1.0, -0.5, "on", True, None])
def test_a_wrong_decay_is_reported_with_the_legal_values(value: Any) -> None:
    assert errors_of(at("train.ema", value)) == [
        f"train.ema: {value!r}: is not a decay (legal: off, or a number over 0 and under 1)"
    ]


@pytest.mark.parametrize("value", ["deep", "al", None])
def test_a_wrong_depth_is_reported_with_the_legal_word_all(value: Any) -> None:
    (error,) = errors_of(at("train.unfreeze.depth", value))
    assert error.startswith(f"train.unfreeze.depth: {value!r}")
    assert re.search(r"\ball\b", error)


def test_all_errors_are_reported_at_once() -> None:
    raw = {
        "model": {"image_size": 7, "colour": 1},
        "train": {"optimizer": "adam", "unfreeze": {"depth": "deep", "lr": -1}},
        "data": {},
    }
    assert {error.partition(":")[0] for error in errors_of(raw)} == {
        "model.image_size",
        "model.colour",
        "train.optimizer",
        "train.unfreeze.depth",
        "train.unfreeze.lr",
        "data",
    }


def test_every_path_is_reported_once() -> None:
    assert len(errors_of(at("train.unfreeze.depth", [1]))) == 1


def test_a_missing_required_field_is_reported() -> None:
    assert errors_of({}, Data) == ["train: is required"]


def test_an_unknown_split_of_images_is_reported() -> None:
    errors = errors_of({"train": "a.json", "images": {"trian": "a"}}, Data)
    assert errors[-1].startswith("images.trian: ")
    assert errors[-1].endswith("did you mean train?")


def test_valid_fields_are_parsed_beside_invalid_ones() -> None:
    raw: Raw = {"model": {"image_size": 7, "weights": "none"}, "train": {"sed": 1, "seed": 3}}
    config, errors = parse_valid_fields(TrainConfig, raw)
    assert [error.partition(":")[0] for error in errors] == ["model.image_size", "train.sed"]
    assert config == parse(TrainConfig, {"model": {"weights": "none"}, "train": {"seed": 3}})
    assert raw["model"]["image_size"] == 7


def test_errors_are_reported_even_if_nothing_can_be_parsed() -> None:
    assert parse_valid_fields(TrainConfig, {}) == (TrainConfig(), [])
    assert parse_valid_fields(Data, {"val": 3})[0] is None
    assert len(parse_valid_fields(Data, {"val": 3})[1]) == 2


@pytest.mark.parametrize("value", [-1, "all", True, 1.5])
def test_a_wrong_trunk_cache_is_reported_with_the_legal_values(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        parse(TrainConfig, {"train": {"trunk_cache": value}})
    assert caught.value.errors == [
        f"train.trunk_cache: {value!r}: is not a depth (legal: auto, off, or an integer from 0)"
    ]
