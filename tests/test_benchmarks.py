"""Every benchmark says what it measures, and takes `--help`; curves are recorded as they are."""

import argparse
import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport

from .trainer_tests.training.trials import train_until

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LIBRARIES = {"plain.py"}
"""Files that others import, without a command."""
DEVELOPMENT = {"recording.py": ["pyte"], "screenshots.py": ["playwright"]}
"""What they import that is installed for development only."""
SCRIPTS = sorted(f.name for f in BENCHMARKS.glob("*.py") if f.name not in LIBRARIES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_docstring_shows_the_command_and_its_figures(name: str) -> None:
    text = ast.get_docstring(ast.parse((BENCHMARKS / name).read_text()))
    assert text is not None
    assert f"python benchmarks/{name}" in text
    assert "json object" in " ".join(text.split()).lower()


@pytest.mark.slow  # imports of torch and more, once a benchmark
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_printed(name: str, tmp_path: Path) -> None:
    for needed in DEVELOPMENT.get(name, ()):
        pytest.importorskip(needed, reason=f"needs {needed}")
    line = [sys.executable, str(BENCHMARKS / name), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}")
    assert not list(tmp_path.iterdir())


class InterruptedRecordingError(Exception):
    """Stands for the end of a recording process."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `record_curves.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("record_curves")


def recorded_set(recorder: Any, config: TrainConfig, data: Splits, place: Path) -> Any:
    """A set whose file has no trial yet."""
    file = place / "tiny.jsonl"
    file.parent.mkdir()
    file.write_text("{}\n")
    return recorder.RecordedSet("tiny", data, config, {}, file, place)


def test_recorded_curves_are_those_of_a_trial_with_averages_and_of_one_without(
    recorder: Any, tiny: Splits, tiny_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    averaged, raw = (
        tiny_config({"model.image_size": 64, "train.ema": ema}) for ema in (0.9, "off")
    )
    to = recorded_set(recorder, averaged, tiny, tmp_path / "recorded")
    recorder.record([to], argparse.Namespace(configurations=0, seeds=1))
    (trial,) = to.trials()
    for name, config in (("averaged", averaged), ("raw", raw)):
        reports: list[EpochReport] = []
        train_until(config, tiny, tmp_path / name, reports=reports)
        assert trial[name] == pytest.approx([report.map for report in reports], abs=1e-5)
    assert trial["averaged"] != trial["raw"]
    assert all(seconds > 0 for seconds in trial["cpu_seconds"])


def test_an_interrupted_recording_goes_on_with_the_same_curves(
    recorder: Any,
    tiny: Splits,
    tiny_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config({"model.image_size": 64, "train.ema": 0.9})
    once, twice = (recorded_set(recorder, config, tiny, tmp_path / n) for n in ("once", "twice"))
    options = argparse.Namespace(configurations=0, seeds=1)
    recorder.record([once], options)

    def interrupt(trial: Any, report: EpochReport) -> None:
        raise InterruptedRecordingError

    with monkeypatch.context() as patch, pytest.raises(InterruptedRecordingError):
        patch.setattr(recorder.Trial, "_raw_map", interrupt)  # `last.pt` is written, no line is
        recorder.record([twice], options)
    assert not twice.trials()
    for _ in range(2):  # the second time there is nothing to do
        recorder.record([twice], options)
    ((complete,), (continued,)) = once.trials(), twice.trials()
    for name in ("number", "seed", "params", "end", "depth", "averaged", "raw"):
        assert continued[name] == complete[name]
