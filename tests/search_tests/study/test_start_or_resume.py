"""Opening a new search, or one that is continued."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.space.config_file import read_yaml, stored_config, write_yaml
from search.space.locations import study_uri, trial_folder
from search.space.space import read_space
from search.study.reading import load_study, read_search_config
from search.study.record import End
from search.study.start_or_resume import open_search, refuse_changes
from search.study.storage import open_study
from search.study.study import Study
from trainer.config import Data, InputError
from trainer.data.dataset import Splits
from trainer.data.loading import SPLITS_FILE, load
from trainer.phases import plan

from ..conftest import SPACE

Make = Callable[..., Any]
DEPTH, LR = "train.unfreeze.depth", "train.unfreeze.lr"


def open_it(config: Any, data: Splits) -> Study:
    return open_search(config, read_space(config.space), data)


def write_config(config: Any) -> None:
    """Write the config into the search's folder."""
    config.folder.mkdir(parents=True)
    (config.folder / "search.yaml").write_text(write_yaml(config.model_dump(mode="json")))


# -- what may change ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search.trials": 9},
        {"search.time_budget": "1h"},
        {"resources": {"cpus_per_trial": 2}},
        {"cluster": "auto"},
        {"tracking": "off"},
    ],
)
def test_fields_that_may_change_are_accepted(make_search: Make, changes: dict[str, Any]) -> None:
    write_config(make_search({"space": SPACE}))
    refuse_changes(make_search({"space": SPACE, **changes}))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({LR: 5e-3}, f"{LR}: 0.005 (was 0.001)"),
        ({"search.seed": 1}, "search.seed: 1 (was 0)"),
        ({"search.asha": "off"}, "search.asha: off (was nothing)"),
        ({"search.first": [{DEPTH: 1}]}, f"search.first: [{{'{DEPTH}': 1}}] (was [])"),
        ({"space": {LR: SPACE[LR]}}, f"space.{DEPTH}.int: nothing (was [0, 'all'])"),
        ({"data.val": None}, "data.val: None (was /"),
    ],
)
def test_other_changes_are_refused_with_the_difference(
    make_search: Make, changes: dict[str, Any], line: str
) -> None:
    before = make_search({"space": SPACE})
    write_config(before)
    trial_folder(before.folder, 0).mkdir(parents=True)
    with pytest.raises(InputError) as raised:
        refuse_changes(make_search({"space": SPACE, **changes}))
    assert raised.value.errors[0].endswith("give this one another --name, or undo:")
    assert any(error.startswith(line) for error in raised.value.errors[1:])


def test_a_field_that_the_stored_config_lacks_has_its_default(make_search: Make) -> None:
    config = make_search({"space": SPACE})
    write_config(config)
    raw = config.model_dump(mode="json")
    del raw["model"]["detections"]
    (config.folder / "search.yaml").write_text(write_yaml(raw))
    refuse_changes(config)
    with pytest.raises(InputError) as raised:
        refuse_changes(make_search({"space": SPACE, "model.detections": 300}))
    assert raised.value.errors[1:] == ["model.detections: 300 (was 100)"]


def test_the_error_says_when_a_search_without_trials_may_be_deleted(make_search: Make) -> None:
    write_config(make_search({"space": SPACE}))
    with pytest.raises(InputError, match=r"undo \(or delete it: it has no trials yet\):"):
        refuse_changes(make_search({"space": SPACE, LR: 5e-3}))


# -- opening --------------------------------------------------------------------------------------


def test_the_first_trials_are_as_written_then_all_unfrozen_then_search_first(
    make_search: Make, tiny: Splits
) -> None:
    study = open_it(make_search({"space": SPACE, "search.first": [{DEPTH: 1, LR: 2e-3}]}), tiny)
    trials = [(r.origin, r.parameters) for r in study.records.values()]
    written = {DEPTH: 2, "train.unfreeze.schedule": "gradual", LR: 1e-3}
    assert trials == [
        ("as written", written),
        ("all unfrozen", {**written, DEPTH: 5}),
        ("first", {DEPTH: 1, LR: 2e-3}),
    ]
    assert study.waiting == [0, 1, 2]


def test_a_first_point_is_tried_once(make_search: Make, tiny: Splits) -> None:
    changes = {"space": SPACE, DEPTH: "all", "search.first": [{DEPTH: 5}, {DEPTH: 0}, {DEPTH: 0}]}
    study = open_it(make_search(changes), tiny)
    assert [r.origin for r in study.records.values()] == ["as written", "first"]


@pytest.mark.parametrize(
    ("trials", "origins"), [(1, ["as written"]), (2, ["as written", "all unfrozen"])]
)
def test_no_more_first_points_than_trials(
    make_search: Make, tiny: Splits, trials: int, origins: list[str]
) -> None:
    changes = {"space": SPACE, "search.trials": trials, "search.first": [{DEPTH: 1}]}
    study = open_it(make_search(changes), tiny)
    assert [r.origin for r in study.records.values()] == origins


def test_without_a_depth_dimension_no_trial_is_all_unfrozen(
    make_search: Make, tiny: Splits
) -> None:
    study = open_it(make_search({"space": {LR: SPACE[LR]}}), tiny)
    assert [r.origin for r in study.records.values()] == ["as written"]


@pytest.mark.parametrize(
    ("depths", "unfrozen"),
    [
        ({"int": [0, "all"]}, 5),
        ({"choice": [0, 2, "all"]}, "all"),
        ({"choice": [2, 5]}, 5),
        ({"choice": [0, 2]}, None),
        ({"int": [0, 3]}, None),
    ],
)
def test_a_trial_is_all_unfrozen_if_that_depth_is_in_the_space(
    make_search: Make, tiny: Splits, depths: dict[str, Any], unfrozen: Any
) -> None:
    config = make_search({"space": {DEPTH: depths}})
    study = open_it(config, tiny)
    trials = {r.origin: r.parameters[DEPTH] for r in study.records.values()}
    assert trials == {"as written": 2} | ({"all unfrozen": unfrozen} if unfrozen else {})
    for _ in range(4):  # sampled ones too
        _, trial = study.ask(read_space(config.space), config)
        assert plan(trial.train, 5)[-1].depth <= 5


def test_opening_again_keeps_the_search_and_its_identity(make_search: Make, tiny: Splits) -> None:
    config = make_search({"space": SPACE})
    study = open_it(config, tiny)
    study.ask(read_space(SPACE), config)
    again = open_it(config, tiny)
    assert again.id == study.id
    assert [r.parameters for r in again.records.values()] == [
        r.parameters for r in study.records.values()
    ]
    assert again.waiting == [0, 1]


def test_first_points_that_a_killed_driver_did_not_enqueue_are_added(
    make_search: Make, tiny: Splits
) -> None:
    config = make_search({"space": SPACE})
    earlier = open_study(config.folder, config.name)
    earlier.enqueue({DEPTH: 2, "train.unfreeze.schedule": "gradual", LR: 1e-3}, "as written")
    study = open_it(config, tiny)
    assert [r.origin for r in study.records.values()] == ["as written", "all unfrozen"]


def test_a_new_number_of_trials_is_written_to_the_config(make_search: Make, tiny: Splits) -> None:
    open_it(make_search({"space": SPACE}), tiny)
    config = make_search({"space": SPACE, "search.trials": 9})
    open_it(config, tiny)
    assert read_yaml(config.folder / "search.yaml")["search"]["trials"] == 9


def test_a_study_of_the_same_name_in_a_database_is_refused(
    make_search: Make, tiny: Splits, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'studies.db'}"
    open_it(make_search({"space": SPACE, "study": uri}), tiny)
    elsewhere = make_search({"space": SPACE, "study": uri, "storage": "elsewhere"})
    with pytest.raises(InputError, match="name: tiny: a study of this name belongs to"):
        open_it(elsewhere, tiny)


def test_a_copy_of_a_search_with_its_study_in_a_database_is_refused(
    make_search: Make, tiny: Splits, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'studies.db'}"
    config = make_search({"space": SPACE, "study": uri})
    study = open_it(config, tiny)
    shutil.copytree(config.folder, config.storage / "copy")
    copy = config.model_copy(update={"name": "copy"})
    with pytest.raises(
        InputError, match=r"copy is a copy of .*tiny, and both have one study, in sqli"
    ):
        open_it(copy, tiny)
    shutil.rmtree(config.folder)  # now it was moved
    assert open_it(copy, tiny).id == study.id
    assert open_it(copy, tiny).id == study.id
    assert load_study(read_search_config("copy", config.storage)).id == study.id


def test_opening_compares_the_config_with_the_stored_one(make_search: Make, tiny: Splits) -> None:
    config = make_search({"space": SPACE})
    open_it(config, tiny)
    before = (config.folder / "search.yaml").read_bytes()
    with pytest.raises(InputError, match=f"{LR}: 0.005"):
        open_it(make_search({"space": SPACE, LR: 5e-3}), tiny)
    assert (config.folder / "search.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("lost", "message"),
    [("study.journal", "study.journal has none of the trials in "), ("search.yaml", "search")],
)
def test_the_error_of_a_lost_file_names_it_and_what_to_do(
    make_search: Make, tiny: Splits, lost: str, message: str
) -> None:
    config = make_search({"space": SPACE})
    open_it(config, tiny)
    trial_folder(config.folder, 0).mkdir(parents=True)
    (config.folder / lost).unlink()
    with pytest.raises(InputError) as raised:
        open_it(config, tiny)
    (line,) = raised.value.errors
    assert line.startswith(str(config.folder / lost)) and message in line
    assert line.endswith("; restore it from a copy, or start a new search under another --name")


def test_a_password_is_not_stored(
    make_search: Make, tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("UNFREEZE_STUDY", uri)
    config = make_search({"space": SPACE})
    open_it(config, tiny)
    assert read_yaml(config.folder / "search.yaml")["study"] == uri
    refuse_changes(config)
    monkeypatch.setenv("UNFREEZE_STUDY", "postgresql://me:secret@host/db")
    assert stored_config(config)["study"] == "postgresql://me:***@host/db"
    loaded = config.model_copy(update={"study": stored_config(config)["study"]})
    assert study_uri(loaded) == "postgresql://me:secret@host/db"
    monkeypatch.delenv("UNFREEZE_STUDY")
    with pytest.raises(InputError, match="set UNFREEZE_STUDY to it, with its password"):
        study_uri(loaded)


def test_a_password_in_the_yaml_is_refused(make_search: Make) -> None:
    with pytest.raises(InputError) as raised:
        make_search({"study": "postgresql://me:secret@host/db", "tracking": "http://a:b@host"})
    assert [line.partition(" has a password")[0] for line in raised.value.errors] == [
        "study: postgresql://me:***@host/db",
        "tracking: http://a:***@host",
    ]


def test_changed_images_are_refused(make_search: Make, tiny: Splits) -> None:
    config = make_search({"space": SPACE})
    open_it(config, tiny)
    other = replace(tiny, val=replace(tiny.val, pictures=tiny.val.pictures[:-1]))
    with pytest.raises(InputError, match="data: its content has changed since "):
        open_it(config, other)


def test_a_changed_test_split_is_accepted(make_search: Make, tiny: Splits) -> None:
    config = make_search({"space": SPACE})
    open_it(config, tiny)
    open_it(config, replace(tiny, test=tiny.val))


def test_a_trial_that_ended_does_not_wait(make_search: Make, tiny: Splits) -> None:
    config = make_search({"space": SPACE})
    study = open_it(config, tiny)
    study.ask(read_space(SPACE), config)
    study.end(0, End.LOST)
    assert open_it(config, tiny).waiting == [1]


# -- a split that was made ------------------------------------------------------------------------


def test_a_val_split_that_was_made_is_stored_and_used_again(
    make_search: Make, tiny_data: Data
) -> None:
    config = make_search()
    config = config.model_copy(update={"data": tiny_data.model_copy(update={"val": None})})
    data = load(config.data, config.folder)
    open_it(config, data)
    chosen = json.loads((config.folder / SPLITS_FILE).read_text())["val"]
    assert set(chosen.values()) == {picture.file.name for picture in data.val.pictures}
    other = config.data.model_copy(update={"val_fraction": 0.5})
    again = load(other, config.folder, config.folder)
    assert (again.val_is_from_train, again.digest) == (True, data.digest)
    assert load(other, config.folder).digest != data.digest


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe{}", b"[]", b"3", b"{}", b'{"val": 3}', b'{"val": {}}', b"[" * 100_000],
    ids=lambda content: content[:9].decode("latin-1"),
)
def test_a_damaged_stored_split_is_an_error(
    make_search: Make, tiny_data: Data, content: bytes
) -> None:
    config = make_search()
    config.folder.mkdir(parents=True)
    (config.folder / SPLITS_FILE).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{config.folder / SPLITS_FILE} is damaged \(.*\): move it away"
    ):
        load(tiny_data.model_copy(update={"val": None}), config.folder, config.folder)


def test_a_given_val_split_is_not_stored(make_search: Make, tiny: Splits) -> None:
    config = make_search()
    open_it(config, tiny)
    assert not (config.folder / SPLITS_FILE).exists()
