"""The YAML file of a search's configuration: reading it, writing it, and what a search keeps."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from trainer.config import InputError
from trainer.config_fields import set_field
from trainer.text.redaction import redacted
from trainer.text.yaml import YamlError, load_yaml

from .config import SearchConfig
from .locations import study_uri, tracking_uri

DEFAULT_FILE = Path(__file__).parent / "default.yaml"
"""The embedded default search."""
CONFIG_FILE = "search.yaml"
"""File in a search's folder: its resolved configuration."""
LOCK_FILE = "driver.lock"
"""File in a search's folder: its driver holds it locked."""
RESTORE_HINT = "restore it from a copy, or start a new search under another --name"
"""What a user can do if one of a search's files is lost."""
DIMENSION = "space."
"""Begins the path of a setting that is a dimension."""


def stored_config(config: SearchConfig) -> dict[str, Any]:
    """The config as a search's folder keeps it: plain values, without passwords."""
    raw = config.model_dump(mode="json")
    uri = study_uri(config)
    raw["study"] = redacted(uri) if uri else None
    # resolved here: with another command's folder or environment it would be another store
    raw["tracking"] = redacted(tracking_uri(config.tracking))
    return raw


def read_config(
    file: Path | None, settings: Mapping[str, Any], name: str | None = None
) -> dict[str, Any]:
    """The raw values of a configuration.

    Args:
        file: A YAML file; None means the embedded default.
        settings: Values by dotted field, which override the file.
        name: The search's name; it overrides the file and the settings.

    Raises:
        InputError: The file cannot be read.
    """
    raw = read_yaml(file or DEFAULT_FILE)
    if file is not None and file.name == CONFIG_FILE and (file.parent / LOCK_FILE).is_file():
        folder = file.parent.resolve()  # it may be a copy, or have a new name
        raw |= {"name": folder.name, "storage": str(folder.parent)}
    elif file is not None:
        raw.setdefault("name", file.stem)
    apply_settings(raw, settings)
    return raw if name is None else raw | {"name": name}


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The values of `a.b=c` settings, by dotted field.

    Raises:
        InputError: A setting has no field, or its value is not YAML.
    """
    settings = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise InputError([f"--set {text}: write it as dotted.field=value"])
        settings[path.strip()] = _parse_yaml(value, f"--set {text}")
    return settings


def apply_settings(raw: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Change raw values of a configuration to those of the settings, by dotted field."""
    for path, value in settings.items():
        if path.startswith(DIMENSION):  # a dimension is one key, though its name has dots
            raw["space"] = {**(raw.get("space") or {}), path[len(DIMENSION) :]: value}
        else:
            set_field(raw, path, value)


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of a YAML 1.2 file with keys.

    Raises:
        InputError: There is no such file, it cannot be read, or is no YAML file with keys.
    """
    try:
        if not file.is_file():
            raise InputError([f"{file}: no such file; `unfreeze init DATA` writes one"])
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError([f"{file}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise InputError([f"{file}: is not UTF-8 text"]) from None
    raw = _parse_yaml(text, str(file))
    if not isinstance(raw, dict):
        raise InputError([f"{file}: has no keys; `unfreeze init DATA` writes an example"])
    return raw


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return load_yaml(text)
    except YamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise InputError([f"{source}{line}: {error.problem}"]) from None


def write_yaml(raw: dict[str, Any]) -> str:
    """Plain values as YAML text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(raw, stream)
    return stream.getvalue()
