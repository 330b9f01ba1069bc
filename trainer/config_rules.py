"""Rules between fields: which fields have no effect, and which values contradict each other."""

from collections.abc import Set as AbstractSet

from .config import Train
from .config_fields import get_field, is_set_by_user

NEUTRAL = {"train.unfreeze.schedule": "at_once", "train.unfreeze.stage_lr_decay": 1.0}
"""Values that change nothing: the user may set them even where the field has no effect."""


def fields_without_effect(train: Train) -> dict[str, str]:
    """Dotted fields (from `train.`) that have no effect in this config, each with the reason."""
    reasons = {}
    unfreeze = train.unfreeze
    if train.optimizer != "sgd":
        reasons["train.momentum"] = "train.optimizer is adamw, which has no momentum"
    if unfreeze.depth == 0:
        why = "train.unfreeze.depth is 0"
        for name in ("backbone_lr_ratio", "stage_lr_decay", "batch_norm", "drop_path"):
            reasons[f"train.unfreeze.{name}"] = f"{why}: no backbone stage trains"
        reasons["train.unfreeze.schedule"] = f"{why}: nothing is opened"
        reasons["train.unfreeze.open_epochs"] = f"{why}: nothing is opened"
    elif unfreeze.depth == 1:
        why = "train.unfreeze.depth is 1: one stage opens at once"
        reasons["train.unfreeze.schedule"] = why
        reasons["train.unfreeze.open_epochs"] = why
        reasons["train.unfreeze.stage_lr_decay"] = "train.unfreeze.depth is 1: one stage trains"
    elif unfreeze.schedule == "at_once":
        reasons["train.unfreeze.open_epochs"] = "train.unfreeze.schedule is at_once"
    if train.head.epochs == 0:
        for name in ("batch_size", "lr", "weight_decay"):
            reasons[f"train.head.{name}"] = "train.head.epochs is 0: there is no head phase"
    return reasons


def opens_gradually(train: Train, searched: AbstractSet[str] = frozenset()) -> bool:
    """Whether a trial may unfreeze one stage after another.

    Args:
        train: The fixed settings.
        searched: Dotted names of the fields that a search space varies.
    """
    shallow = train.unfreeze.depth in (0, 1) and "train.unfreeze.depth" not in searched
    gradual = train.unfreeze.schedule == "gradual" or "train.unfreeze.schedule" in searched
    return gradual and not shallow


def cross_field_errors(
    train: Train, searched: frozenset[str] = frozenset(), ignored: frozenset[str] = frozenset()
) -> list[str]:
    """Errors between fields, one line each.

    Args:
        train: The fixed settings.
        searched: Dotted names of the fields that a search space varies.
        ignored: Those of a space that stands in the file but is not searched now. In a search they
            may give other fields an effect, so these may be set.
    """
    errors = []
    unfreeze = train.unfreeze
    if opens_gradually(train, searched) and unfreeze.open_epochs > unfreeze.epochs:
        errors.append(
            f"train.unfreeze.open_epochs: {unfreeze.open_epochs} is more than "
            f"train.unfreeze.epochs ({unfreeze.epochs})"
        )
    varied = searched | ignored
    if not {"train.unfreeze.depth", "train.unfreeze.schedule", "train.optimizer"} & varied:
        for path, why in fields_without_effect(train).items():
            name = path.removeprefix("train.")
            is_neutral = NEUTRAL.get(path) == get_field(train, name)
            if path not in varied and is_set_by_user(train, name) and not is_neutral:
                errors.append(f"{path}: has no effect, since {why}; leave it out")
    return errors
