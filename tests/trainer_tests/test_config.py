"""The schema: frozen, documented, with defaults for every field of a trial."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.config import Data, InputError, TrainConfig
from trainer.config_errors import parse
from trainer.config_fields import field_paths


def test_a_config_without_fields_has_the_defaults() -> None:
    assert parse(TrainConfig, {}) == TrainConfig()


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        TrainConfig().train.seed = 1


def test_texts_of_data_become_paths() -> None:
    data = parse(Data, {"train": "a.json", "images": {"train": "b"}})
    assert data.train == Path("a.json")
    assert data.images == {"train": Path("b")}


def test_every_field_is_documented() -> None:
    for model in (TrainConfig, Data):
        for path in field_paths(model):
            *parents, last = path.split(".")
            inner: Any = model
            for name in parents:
                inner = inner.model_fields[name].annotation
            assert inner.model_fields[last].description, path


def test_the_text_of_the_error_is_its_lines() -> None:
    assert str(InputError(["a: 1", "b: 2"])) == "a: 1\nb: 2"
