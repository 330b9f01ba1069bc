"""A search up to its trials, as far as that needs no Ray; see test_end_to_end for the rest."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search.running import driver
from search.space.config import TrialResources
from search.space.config_file import write_yaml
from search.space.space import read_space
from trainer.config import InputError
from trainer.data.dataset import Splits

from ..conftest import SPACE

Make = Callable[..., Any]
LR = "train.unfreeze.lr"


def test_a_refused_search_starts_nothing_and_writes_nothing(make_search: Make) -> None:
    config = make_search({"space": SPACE})
    config.folder.mkdir(parents=True)
    (config.folder / "search.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    before = (config.folder / "search.yaml").read_bytes()
    with pytest.raises(InputError):
        driver.run(make_search({"space": SPACE, LR: 5e-3}))
    assert [file.name for file in config.folder.iterdir()] == ["search.yaml"]
    assert (config.folder / "search.yaml").read_bytes() == before


def test_a_search_that_another_driver_begins_meanwhile_is_not_taken_over(
    make_search: Make, tiny: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_search({"space": SPACE}), make_search({"space": SPACE, LR: 5e-3})
    before: list[bytes] = []

    @contextlib.contextmanager
    def connected(*_: Any) -> Iterator[None]:
        with driver._opened(first, read_space(SPACE), tiny):
            before.append((first.folder / "search.yaml").read_bytes())
        yield

    monkeypatch.setattr(driver, "configure_tune", lambda: None)
    monkeypatch.setattr(driver, "_require_models", lambda *_: None)
    monkeypatch.setattr(driver, "describe_slots", lambda *_: "")
    monkeypatch.setattr(driver, "trial_resources", lambda _: TrialResources())
    monkeypatch.setattr("search.running.driver.connect.connected", connected)
    with pytest.raises(InputError, match=f"{LR}: 0.005"):
        driver.run(second)
    assert (first.folder / "search.yaml").read_bytes() == before[0]
