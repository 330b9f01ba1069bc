"""Every source file that does something has a test file of its name, in the same room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "search", "clusters")
SOURCES = [
    file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(file.read_text())))
]


def mirror_of(source: Path) -> Path:
    package, *rooms = source.relative_to(ROOT).parent.parts
    return ROOT.joinpath("tests", f"{package}_tests", *rooms, f"test_{source.name}")


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_source_file_has_its_test_file(source: Path) -> None:
    assert mirror_of(source).is_file()


def test_files_and_functions_stay_short() -> None:
    files = {file: len(file.read_text().splitlines()) for file in SOURCES}
    functions = {
        f"{file.relative_to(ROOT)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert [str(file) for file, length in files.items() if length > 350] == []
    assert [name for name, length in functions.items() if length > 50] == []
