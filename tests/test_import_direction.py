"""Imports run one way: search -> trainer, search -> clusters, in each from upper rooms to lower
ones, and no circle between files."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("trainer", "search", "clusters")
FORBIDDEN = {
    "trainer": {"search", "clusters", "ray", "optuna", "mlflow"},
    "clusters": {"trainer", "search", "optuna", "mlflow", "torch", "torchvision", "timm"},
    "search": {"tests", "benchmarks"},
}
FLOORS = {
    "search": (
        "commands",
        "running",
        "running/tune",
        "tracking",
        "exports",
        "reporting",
        "ranking",
        "study",
        "space",
    ),
    "trainer": (
        "export",
        "training",
        "evaluation",
        "data",
        "data/checks",
        "data/formats",
        "model",
        "model/acceleration",
        "",
        "text",
    ),
}
"""Rooms of each package, top floor first. Imports lead down; `data` and `model` share theirs with
the rooms inside them, which know their records and types."""
SHARED = {("data/checks", "data"), ("data/formats", "data"), ("model/acceleration", "model")}
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


def module(file: Path) -> str:
    """`trainer/data/split.py` as `trainer.data.split`, a package by its folder."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(file: Path) -> list[str]:
    return list(file.relative_to(ROOT).parent.parts)


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Each imported name in full, and how many dots it was written with."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            own = package(file)
            base = own[: len(own) - node.level + 1] if node.level else []
            for alias in node.names:
                yield ".".join([*base, *filter(None, [node.module]), alias.name]), node.level


def names(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_a_room_knows_only_what_it_may(file: Path) -> None:
    room = package(file)[0]
    known = {name.partition(".")[0] for name, _ in imports(file)}
    assert not known & FORBIDDEN[room]


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_imports_within_a_room_are_relative(file: Path) -> None:
    room = package(file)[0]
    assert [name for name, dots in imports(file) if not dots and name.split(".")[0] == room] == []


def floor(name: str) -> str:
    """The room of a module within its package: `trainer.data.checks.examine` in `data/checks`."""
    return "/".join(name.split(".")[1:-1])


@pytest.mark.parametrize("package_name", FLOORS)
def test_imports_lead_to_the_same_floor_or_down(package_name: str) -> None:
    modules = {module(file): file for file in FILES if package(file)[0] == package_name}
    modules = {name: file for name, file in modules.items() if file.name != "__init__.py"}
    floors = FLOORS[package_name]
    assert {floor(name) for name in modules} == set(floors)
    wrong = []
    for name, file in modules.items():
        for imported, _ in imports(file):
            target = imported if imported in modules else imported.rpartition(".")[0]
            if target not in modules or (floor(name), floor(target)) in SHARED:
                continue
            if floors.index(floor(target)) < floors.index(floor(name)):
                wrong.append(f"{name} -> {target}")
    assert wrong == []


def test_no_room_holds_more_than_twelve_files() -> None:
    rooms = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert {str(room): count for room, count in rooms.items() if count > 12} == {}


def test_optuna_and_mlflow_are_known_in_search_alone() -> None:
    knowing = {
        package(file)[0]
        for file in FILES
        for name, _ in imports(file)
        if name.partition(".")[0] in {"optuna", "mlflow"}
    }
    assert knowing == {"search"}


def test_init_files_are_empty() -> None:
    inits = [file for file in FILES if file.name == "__init__.py"]
    assert {module(file) for file in inits} >= set(ROOMS)
    assert [str(file) for file in inits if file.read_text().strip()] == []


def test_every_folder_of_code_is_a_package() -> None:
    assert [f for f in {file.parent for file in FILES} if not (f / "__init__.py").is_file()] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {module(file): file for file in FILES}
    known: dict[str, set[str]] = {}
    for name, file in modules.items():
        found = {n if n in modules else n.rpartition(".")[0] for n, _ in imports(file)}
        known[name] = (found & modules.keys()) - {name}

    done: set[str] = set()

    def walk(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(known[name]):
                walk(other, [*way, name])
            done.add(name)

    for name in sorted(modules):
        walk(name, [])
    assert any(known.values())


def test_no_benchmark_hides_a_room() -> None:
    # run as a script its own folder comes first on the path: a search.py there would be `search`
    assert not {file.stem for file in (ROOT / "benchmarks").glob("*.py")} & set(ROOMS)
