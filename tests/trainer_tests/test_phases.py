"""The plan of phases: head first, depth never falls, epochs add up."""

from itertools import pairwise, product
from math import ceil
from typing import Any

import pytest

from trainer.config import InputError, Train
from trainer.config_errors import parse
from trainer.phases import Phase, plan, resolve_depth


def planned(
    depth: int | str, schedule: str = "gradual", head: int = 2, stages: int = 5, **more: Any
) -> list[Phase]:
    unfreeze = {"depth": depth, "schedule": schedule, **more}
    return plan(parse(Train, {"head": {"epochs": head}, "unfreeze": unfreeze}), stages)


def depths(phases: list[Phase]) -> list[int]:
    return [phase.depth for phase in phases for _ in range(phase.epochs)]


def test_the_head_phase_comes_first_at_depth_0() -> None:
    first = planned(3)[0]
    assert (first.name, first.first_epoch, first.epochs, first.depth) == ("head", 0, 2, 0)


def test_at_once_is_one_phase() -> None:
    (_, unfreeze) = planned(4, "at_once", epochs=6)
    assert (unfreeze.name, unfreeze.depth, unfreeze.first_epoch, unfreeze.end) == (
        ("unfreeze", 4, 2, 8)
    )


@pytest.mark.parametrize(
    ("depth", "open_epochs", "expected"),
    [
        (5, 3, [2, 4, 5, 5, 5, 5]),
        (3, 3, [1, 2, 3, 3, 3, 3]),
        (2, 3, [1, 2, 2, 2, 2, 2]),
        (1, 3, [1, 1, 1, 1, 1, 1]),
        (3, 6, [1, 1, 2, 2, 3, 3]),
        (4, 1, [4, 4, 4, 4, 4, 4]),
        (0, 3, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_gradual_unfreezes_evenly_from_the_top(
    depth: int, open_epochs: int, expected: list[int]
) -> None:
    assert depths(planned(depth, epochs=6, open_epochs=open_epochs))[2:] == expected


@pytest.mark.parametrize("head", [0, 3])
@pytest.mark.parametrize("schedule", ["gradual", "at_once"])
def test_every_plan_is_complete_and_its_depth_never_falls(schedule: str, head: int) -> None:
    for depth, opening, epochs in product(range(6), (1, 2, 3, 5), (5, 7)):
        phases = planned(depth, schedule, head, epochs=epochs, open_epochs=opening)
        assert phases[0].first_epoch == 0
        assert phases[-1].end == head + epochs
        assert all(before.end == after.first_epoch for before, after in pairwise(phases))
        assert all(phase.epochs > 0 for phase in phases)
        unfrozen = depths(phases)[head:]
        assert unfrozen == sorted(unfrozen)
        assert unfrozen[-1] == depth
        if schedule == "gradual":
            assert unfrozen[:opening] == [ceil(depth * (e + 1) / opening) for e in range(opening)]


def test_each_change_of_depth_is_a_new_phase() -> None:
    phases = planned(5, epochs=6, open_epochs=3)
    assert [(p.depth, p.epochs) for p in phases] == [(0, 2), (2, 1), (4, 1), (5, 4)]


def test_depth_0_trains_only_the_head() -> None:
    (head, unfreeze) = planned(0, epochs=4)
    assert (head.depth, unfreeze.depth) == (0, 0)
    assert (unfreeze.name, unfreeze.epochs) == ("unfreeze", 4)


def test_without_head_epochs_there_is_no_head_phase() -> None:
    phases = planned(2, "at_once", head=0)
    assert [(p.name, p.first_epoch) for p in phases] == [("unfreeze", 0)]


def test_all_is_the_number_of_stages() -> None:
    assert planned("all", "at_once", stages=4)[-1].depth == 4
    assert planned("all", stages=4) == planned(4, stages=4)
    assert resolve_depth("all", 5) == 5


@pytest.mark.parametrize("depth", [-1, 6, 100])
def test_a_depth_beyond_the_backbone_is_reported_with_the_legal_range(depth: int) -> None:
    with pytest.raises(InputError) as raised:
        plan(Train().model_copy(update={"unfreeze": _unfreeze(depth)}), 5)
    assert raised.value.errors == [f"train.unfreeze.depth: {depth} (legal: 0 to 5, or all)"]


def _unfreeze(depth: int) -> Any:
    return Train().unfreeze.model_copy(update={"depth": depth})


@pytest.mark.parametrize("depth", [0, 2])
def test_batch_norm_adapts_only_if_set_and_if_a_stage_is_unfrozen(depth: int) -> None:
    head, unfreeze = planned(depth, "at_once", batch_norm="adapt")
    assert (head.adapt_statistics, unfreeze.adapt_statistics) == (False, depth > 0)
    assert not planned(depth, "at_once")[1].adapt_statistics


def test_each_phase_has_the_settings_of_its_kind() -> None:
    train = parse(
        Train,
        {
            "head": {"lr": 0.5, "batch_size": 3, "weight_decay": 0.25},
            "unfreeze": {
                "lr": 0.1,
                "batch_size": 7,
                "weight_decay": 0.125,
                "backbone_lr_ratio": 0.2,
            },
        },
    )
    head, *unfreeze = plan(train, 5)
    assert (head.lr, head.batch_size, head.weight_decay) == (0.5, 3, 0.25)
    for phase in unfreeze:
        assert (phase.lr, phase.batch_size, phase.weight_decay) == (0.1, 7, 0.125)
        assert phase.backbone_lr_ratio == 0.2


def test_settings_of_stages_are_set_only_at_depths_where_they_have_an_effect() -> None:
    settings: dict[str, Any] = {
        "backbone_lr_ratio": 0.25,
        "stage_lr_decay": 0.5,
        "drop_path": 0.125,
    }

    def stage_settings(phases: list[Phase]) -> list[tuple[float, ...]]:
        return [(p.depth, p.backbone_lr_ratio, p.stage_lr_decay, p.drop_path) for p in phases]

    frozen, one = (0, 0.0, 1.0, 0.0), (1, 0.25, 1.0, 0.125)
    several = [(2, 0.25, 0.5, 0.125), (3, 0.25, 0.5, 0.125)]
    phases = planned(3, epochs=4, open_epochs=3, **settings)
    assert stage_settings(phases) == [frozen, one, *several]
    assert stage_settings(planned(0, **settings)) == [frozen, frozen]


@pytest.mark.parametrize(
    ("limit", "cached"),
    [
        ("auto", [False] * 4),  # not resolved: a search does that
        ("off", [False] * 4),
        (0, [True, False, False, False]),
        (3, [True, True, False, False]),
        (9, [True, True, True, False]),  # at depth 5 no stage is frozen
    ],
)
def test_features_are_cached_to_a_depth(limit: int | str, cached: list[bool]) -> None:
    train = Train.model_validate(
        {
            "trunk_cache": limit,
            "head": {"epochs": 1},
            "unfreeze": {"epochs": 3, "depth": "all", "open_epochs": 3},
        }
    )
    phases = plan(train, 5)
    assert [phase.depth for phase in phases] == [0, 2, 4, 5]
    assert [phase.caches_features for phase in phases] == cached
