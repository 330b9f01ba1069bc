"""Every benchmark says what it measures, and takes `--help`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
