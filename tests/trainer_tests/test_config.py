"""The config: every error at once, in the words of the file that the user wrote."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.config import (
    BadInput,
    Data,
    Train,
    TrainConfig,
    fixed_errors,
    get,
    inert,
    is_written,
    leaves,
    override,
    parse,
    parse_what_can_be,
)

Raw = dict[str, Any]


def errors_of(raw: Any, model: type[TrainConfig] | type[Data] = TrainConfig) -> list[str]:
    with pytest.raises(BadInput) as raised:
        parse(model, raw)
    return raised.value.errors


def at(path: str, value: Any) -> Raw:
    raw: Raw = {}
    override(raw, path, value)
    return raw


def train(**unfreeze: Any) -> Train:
    return parse(Train, {"unfreeze": unfreeze})


def test_nothing_written_is_a_whole_config() -> None:
    assert parse(TrainConfig, {}) == TrainConfig()


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("modle", "model"),
        ("model.backbon", "backbone"),
        ("train.unfreeze.dept", "depth"),
        ("train.head.batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_name(path: str, near: str) -> None:
    assert errors_of(at(path, 1)) == [f"{path}: unknown key; did you mean {near}?"]


def test_an_unknown_key_near_nothing_is_told_with_all_names() -> None:
    (error,) = errors_of(at("train.head.zzz", 1))
    assert error == "train.head.zzz: unknown key; known here: epochs, batch_size, lr, weight_decay"


@pytest.mark.parametrize(("value", "hint"), [("adam", "; did you mean adamw?"), ("rmsprop", "")])
def test_a_value_of_no_list_is_told_with_the_list_once(value: str, hint: str) -> None:
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
def test_a_wrong_type_is_told_with_path_and_value(path: str, value: Any) -> None:
    (error,) = errors_of(at(path, value))
    assert error.startswith(f"{path}: {value!r}: ")


@pytest.mark.parametrize("raw", [None, 3, "text", ["a"]])
def test_a_file_that_is_no_mapping_is_told(raw: Any) -> None:
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
def test_a_value_out_of_range_is_told_with_the_legal_range(
    path: str, value: float, legal: str
) -> None:
    (error,) = errors_of(at(path, value))
    assert error.startswith(f"{path}: {value!r}: ")
    assert error.endswith(legal)


def test_a_word_that_is_no_choice_is_told_with_the_nearest() -> None:
    (error,) = errors_of(at("model.detector", "retinnet"))
    assert "'retinanet', 'fcos', 'faster_rcnn', 'ssd', " in error
    assert error.endswith("did you mean retinanet?")


@pytest.mark.parametrize("value", ["deep", "al", None])
def test_a_depth_that_is_no_number_is_told_with_the_word_that_is_legal(value: Any) -> None:
    (error,) = errors_of(at("train.unfreeze.depth", value))
    assert error.startswith(f"train.unfreeze.depth: {value!r}")
    assert re.search(r"\ball\b", error)


def test_all_errors_are_told_at_once() -> None:
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


def test_every_path_is_told_once() -> None:
    assert len(errors_of(at("train.unfreeze.depth", [1]))) == 1


def test_a_required_field_is_asked_for() -> None:
    assert errors_of({}, Data) == ["train: is required"]


def test_an_unknown_split_of_images_is_told() -> None:
    errors = errors_of({"train": "a.json", "images": {"trian": "a"}}, Data)
    assert errors[-1].startswith("images.trian: ")
    assert errors[-1].endswith("did you mean train?")


def test_the_error_reads_as_its_lines() -> None:
    assert str(BadInput(["a: 1", "b: 2"])) == "a: 1\nb: 2"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().train.seed = 1


def test_paths_of_data_are_paths() -> None:
    data = parse(Data, {"train": "a.json", "images": {"train": "b"}})
    assert data.train == Path("a.json")
    assert data.images == {"train": Path("b")}


def test_every_field_is_documented() -> None:
    for model in (TrainConfig, Data):
        for path in leaves(model):
            *parents, last = path.split(".")
            inner: Any = model
            for name in parents:
                inner = inner.model_fields[name].annotation
            assert inner.model_fields[last].description, path


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"optimizer": "sgd"}, set()),
        ({"optimizer": "adamw"}, {"momentum"}),
        (
            {"optimizer": "sgd", "unfreeze": {"depth": 0}},
            {
                "unfreeze.backbone_lr_ratio",
                "unfreeze.stage_lr_decay",
                "unfreeze.drop_path",
                "unfreeze.batch_norm",
                "unfreeze.schedule",
                "unfreeze.open_epochs",
            },
        ),
        (
            {"optimizer": "sgd", "unfreeze": {"depth": 1}},
            {"unfreeze.schedule", "unfreeze.open_epochs", "unfreeze.stage_lr_decay"},
        ),
        ({"optimizer": "sgd", "unfreeze": {"schedule": "at_once"}}, {"unfreeze.open_epochs"}),
        ({"optimizer": "sgd", "unfreeze": {"depth": "all"}}, set()),
        (
            {"optimizer": "sgd", "head": {"epochs": 0}},
            {"head.batch_size", "head.lr", "head.weight_decay"},
        ),
    ],
)
def test_inert_names_the_fields_that_change_nothing(raw: Raw, expected: set[str]) -> None:
    assert set(inert(parse(Train, raw))) == {f"train.{name}" for name in expected}


def test_a_written_field_without_effect_is_an_error() -> None:
    assert fixed_errors(train(depth=0, backbone_lr_ratio=0.5)) == [
        "train.unfreeze.backbone_lr_ratio: has no effect, since train.unfreeze.depth is 0: "
        "no backbone stage trains; leave it out"
    ]


def test_an_unwritten_field_without_effect_is_none() -> None:
    assert fixed_errors(train(depth=0)) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_what_asks_for_nothing_may_be_written(depth: int) -> None:
    assert fixed_errors(train(depth=depth, schedule="at_once", stage_lr_decay=1.0)) == []
    errors = fixed_errors(train(depth=depth, schedule="gradual", stage_lr_decay=0.5))
    assert sorted(line.partition(":")[0] for line in errors) == [
        "train.unfreeze.schedule",
        "train.unfreeze.stage_lr_decay",
    ]


def test_of_a_searched_field_the_written_value_may_be_without_effect() -> None:
    searched = frozenset({"train.unfreeze.backbone_lr_ratio"})
    assert fixed_errors(train(depth=0, backbone_lr_ratio=0.5), searched) == []


def test_nothing_is_without_effect_where_depth_is_searched() -> None:
    searched = frozenset({"train.unfreeze.depth"})
    assert fixed_errors(train(depth=0, backbone_lr_ratio=0.5), searched) == []


@pytest.mark.parametrize("depth", [2, "all"])
def test_opening_longer_than_the_budget_is_an_error(depth: Any) -> None:
    (error,) = fixed_errors(train(depth=depth, epochs=3, open_epochs=4))
    assert error.startswith("train.unfreeze.open_epochs: 4 is more than train.unfreeze.epochs (3)")


def test_opening_as_long_as_the_budget_is_none() -> None:
    assert fixed_errors(train(depth=2, epochs=3, open_epochs=3)) == []


def test_at_once_needs_no_time_to_open() -> None:
    assert fixed_errors(train(schedule="at_once", epochs=1)) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_where_nothing_is_opened_gradually_one_epoch_is_enough(depth: int) -> None:
    assert fixed_errors(train(depth=depth, epochs=1)) == []


def test_is_written_tells_a_default_from_the_same_value_written() -> None:
    written = train(depth=TrainConfig().train.unfreeze.depth)
    assert written == Train()
    assert is_written(written, "unfreeze.depth")
    assert not is_written(written, "unfreeze.lr")
    assert not is_written(Train(), "unfreeze.depth")


def test_what_can_be_parsed_is_what_has_no_error() -> None:
    raw: Raw = {"model": {"image_size": 7, "weights": "none"}, "train": {"sed": 1, "seed": 3}}
    config, errors = parse_what_can_be(TrainConfig, raw)
    assert [error.partition(":")[0] for error in errors] == ["model.image_size", "train.sed"]
    assert config == parse(TrainConfig, {"model": {"weights": "none"}, "train": {"seed": 3}})
    assert raw["model"]["image_size"] == 7


def test_where_nothing_can_be_parsed_there_are_still_the_errors() -> None:
    assert parse_what_can_be(TrainConfig, {}) == (TrainConfig(), [])
    assert parse_what_can_be(Data, {"val": 3})[0] is None
    assert len(parse_what_can_be(Data, {"val": 3})[1]) == 2


def test_override_makes_the_mappings_on_the_way() -> None:
    raw: Raw = {"train": 1, "model": {"backbone": "a"}}
    override(raw, "train.unfreeze.depth", 2)
    override(raw, "model.weights", "none")
    override(raw, "name", "x")
    assert raw == {
        "train": {"unfreeze": {"depth": 2}},
        "model": {"backbone": "a", "weights": "none"},
        "name": "x",
    }


def test_get_reads_every_leaf() -> None:
    for path in leaves(TrainConfig):
        get(TrainConfig(), path)
    assert get(TrainConfig(), "train.unfreeze.depth") == 3


@pytest.mark.parametrize("value", [-1, "all", True, 1.5])
def test_a_wrong_trunk_cache_is_told_what_is_legal(value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        parse(TrainConfig, {"train": {"trunk_cache": value}})
    assert caught.value.errors == [
        f"train.trunk_cache: {value!r}: is no depth (legal: auto, off, or a whole number from 0 on)"
    ]
