"""README and docs show commands that exist, and name files and pages that are there."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest

from docs import generate, pictures
from search.commands.cli import parser
from trainer.config import Train
from trainer.phases import plan

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "search", "clusters")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    ROOT / "skills" / "unfreeze" / "SKILL.md",
    ROOT / "docs" / "llms.txt",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
(COMMANDS,) = (action.choices for action in parser()._actions if isinstance(action.choices, dict))


def shown_commands() -> list[str]:
    """Every `unfreeze ...` of the pages, in a sentence or in a block, without its comment."""
    shown: list[str] = []
    for text in TEXTS.values():
        shown += re.findall(r"`(?:\.venv/bin/)?(unfreeze [^`\n]+)`", text)
        shown += re.findall(r"^(?:\.venv/bin/)?(unfreeze .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    return list(dict.fromkeys(command.strip() for command in shown))


@pytest.mark.parametrize("shown", shown_commands())
def test_a_shown_command_has_options_that_exist(shown: str) -> None:
    command, *rest = shlex.split(shown)[1:]
    assert command in COMMANDS
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    known = COMMANDS[command]._option_string_actions
    assert [option for option in options if option not in known] == []


@pytest.mark.parametrize("shown", shown_commands())
def test_a_shown_command_with_its_arguments_is_parsed(shown: str) -> None:
    words = shlex.split(shown)[1:]
    if len(words) == 1 and words[0] not in {"search", "list", "ui"}:
        pytest.skip("the command's name alone")
    parser().parse_args(words)


def test_every_command_is_shown() -> None:
    assert {shlex.split(shown)[1] for shown in shown_commands()} == set(COMMANDS)


@pytest.mark.parametrize("page", TEXTS)
def test_every_quoted_path_exists(page: str) -> None:
    folders = "|".join([*PACKAGES, "benchmarks", "tests", "docs"])
    quoted = re.findall(rf"`((?:{folders})/[\w./]+)`", TEXTS[page])
    assert [path for path in quoted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_within_the_project_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", TEXTS[page])
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_a_newcomer_reads_readme_in_minutes() -> None:
    assert 700 <= len(TEXTS["README.md"].split()) <= 1000


def test_the_architecture_names_every_room() -> None:
    text = TEXTS["docs/architecture.md"]
    rooms = {
        folder.parent.name
        for package in PACKAGES
        for folder in (ROOT / package).rglob("__init__.py")
        if folder.parent.name != package
    }
    assert [room for room in sorted(rooms) if f"  {room}/" not in text] == []


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    page = generate.PAGES[name]()
    assert TEXTS[f"docs/{name}.md"] == page, "run `make docs`"


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_drawn_pictures_are_up_to_date(name: str) -> None:
    pinned = f"\nmatplotlib=={version('matplotlib')}\n"
    if pinned not in (ROOT / "clusters" / "constraints.txt").read_text():
        pytest.skip("another matplotlib draws with other bytes")
    drawn = pictures.PICTURES[name]()
    kept = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    assert kept == drawn, "run `make docs`"


def test_the_picture_of_stages_agrees_with_that_of_learning_rates() -> None:
    train = Train.model_validate({"unfreeze": {"depth": 2, "schedule": "gradual", "epochs": 4}})
    rates = pictures.rates_by_group(train)
    opened = []
    for phase in plan(train, pictures.STAGES):
        steps = slice(phase.first_epoch * pictures.STEPS, phase.end * pictures.STEPS)
        opened.append({group for group, rate in rates.items() if any(rate[steps])})
        assert opened[-1] == pictures.training_groups(phase.depth)
    assert opened == [{"head"}, {"head", "stage5"}, {"head", "stage5", "stage4"}]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in navigation] == []


def test_machines_are_led_to_every_guide_and_reference() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", TEXTS["docs/llms.txt"])
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - {*listed} <= {
        "index.md",
        "glossary.md",
        "contributing.md",
        "changelog.md",
        "security.md",
    }
