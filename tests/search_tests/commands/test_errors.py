"""A command that fails: its lines, its JSON and its exit code."""

import errno
import json
from pathlib import Path

import pytest

from clusters.definitions import ClusterConnectionError
from search.commands.cli import main
from search.commands.errors import Parser, UsageError, as_json, explain, writing
from search.study.lock import SearchBusyError
from trainer.config import InputError


@pytest.mark.parametrize(
    ("error", "lines", "status"),
    [
        (InputError(["a: 1", "b: 2"]), ["a: 1", "b: 2"], 2),
        (OSError(errno.EACCES, "Permission denied", "x"), ["x: Permission denied"], 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), ["x: File name too long"], 2),
        (OSError(errno.ENOSPC, "No space left on device"), ["disk: No space left on device"], 1),
        (SearchBusyError("is being run"), ["is being run"], 1),
        (ClusterConnectionError("no Ray"), ["no Ray"], 1),
        (KeyboardInterrupt(), ["interrupted"], 1),
    ],
)
def test_each_kind_has_its_lines_and_exit_code(
    error: BaseException, lines: list[str], status: int
) -> None:
    assert explain(error, resumable=False) == (lines, status)


def test_a_full_disk_says_what_continues() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "searches/cells/last.pt")
    line = "searches/cells/last.pt: No space left on device"
    assert explain(full, resumable=False) == ([line], 1)
    assert explain(full, resumable=True) == (
        [f"{line}; free some space, and the same command continues"],
        1,
    )


def test_an_interruption_says_what_continues() -> None:
    assert explain(KeyboardInterrupt(), resumable=True) == (
        ["interrupted; the same command continues"],
        1,
    )


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.EIO, "Input/output error")])
def test_a_bug_is_not_explained_away(error: Exception) -> None:
    assert explain(error, resumable=False) is None


def test_a_refused_command_line_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as raised:
        Parser(prog="p").parse_args(["--odd"])
    assert (raised.value.code, raised.value.message) == (2, "unrecognized arguments: --odd")
    assert capsys.readouterr().err.splitlines()[-1] == "p: error: unrecognized arguments: --odd"


def test_an_error_of_writing_names_the_option_the_path_and_the_reason() -> None:
    Path("file").touch()
    with pytest.raises(InputError) as raised, writing("--out", Path("file/x")):
        Path("file/x").write_text("")
    assert raised.value.errors == ["--out file/x cannot be written (Not a directory)"]
    with pytest.raises(OSError, match="No space left"), writing("--out", Path("x")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_of_a_failure_has_the_fields_of_a_check() -> None:
    report = json.loads(as_json(["a", "b"]))
    assert report == {"errors": 2, "warnings": 0, "findings": [], "messages": ["a", "b"]}


def test_evaluate_prints_its_failure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "nowhere", "x.json", "--json"]) == 2
    (message,) = json.loads(capsys.readouterr().out)["messages"]
    assert message == f"nowhere: neither an exported folder nor a search in {Path('searches')}"
