"""The environment: what the bits of a result depend on besides its inputs."""

from pathlib import Path
from shutil import copytree

import pytest
import torch

from trainer.training import environment as environment_module
from trainer.training.environment import DIGESTED_PACKAGES, environment


def test_it_names_hardware_threads_code_and_packages() -> None:
    here = environment(torch.device("cpu"))
    assert here.keys() == {"hardware", "threads", "code", *DIGESTED_PACKAGES}
    assert all(here.values())
    assert here["threads"] == str(torch.get_num_threads())


def test_the_code_of_every_file_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copytree(Path(environment_module.__file__).parents[1], tmp_path / "trainer")
    file = tmp_path / "trainer" / "training" / "environment.py"
    monkeypatch.setattr(environment_module, "__file__", str(file))
    digest = environment_module._code_digest.__wrapped__
    before = digest()
    for name in ("phases.py", "data/pixels.py", "model/losses.py"):
        file = tmp_path / "trainer" / name
        file.write_text(file.read_text() + "\n")
        assert digest() != before
        before = digest()
