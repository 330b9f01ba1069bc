"""Fields of a config by their dotted paths, such as `train.unfreeze.lr`."""

from collections.abc import Iterator
from typing import Any

from .config import Config


def is_set_by_user(config: Config, path: str) -> bool:
    """Whether the user set the field at this dotted path, even if to its default value."""
    name, _, rest = path.partition(".")
    if name not in config.model_fields_set:
        return False
    return is_set_by_user(getattr(config, name), rest) if rest else True


def field_paths(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all plain fields of a config class, nested configs included."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Config):
            yield from field_paths(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def get_field(config: Config, path: str) -> Any:
    """The value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def set_field(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of a nested dict, creating missing dicts."""
    *parents, last = path.split(".")
    for name in parents:
        inner = raw.get(name)
        if not isinstance(inner, dict):
            inner = raw[name] = {}
        raw = inner
    raw[last] = value
