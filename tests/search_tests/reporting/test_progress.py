"""What a person sees while a search runs."""

import errno
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.reporting.live_table import LiveTable
from search.reporting.progress import Lines, Quiet
from search.space.locations import trial_folder
from search.space.space import read_space
from search.study.storage import open_study
from search.study.study import Study

from ..conftest import SPACE
from .conftest import has_said

Make = Callable[..., Any]


def test_lines_print_each_report_and_each_end_once(study: Study, make_search: Make) -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=200))
    lines.start(make_search(), open_study(Path("new"), "tiny"), lambda: 1)
    lines._study = study
    for _ in range(2):
        lines.update(0)
        lines.update(1)
    assert out.getvalue().splitlines() == [
        "trial 0 epoch 1 head depth 0: AP 0.100 best 0.100 (2 s)",
        "trial 0 epoch 2 unfreeze depth 2: AP 0.250 best 0.250 (2 s)",
        "trial 0 pruned (1 of 6)",
        "trial 1 epoch 1 head depth 0: AP 0.100 best 0.100 (forked)",
    ]


def test_a_continued_search_does_not_print_reports_again(
    study: Study, make_search: Make, make_reports: Make
) -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=200))
    lines.start(make_search(), study, lambda: 1)
    lines.update(1)
    assert out.getvalue() == ""
    study.record(1, make_reports([0.1, 0.3])[1])
    lines.update(1)
    assert out.getvalue().startswith("trial 1 epoch 2 ")


def test_long_lines_are_not_broken() -> None:
    out = io.StringIO()
    Lines(Console(file=out, width=20)).say("word " * 30)
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize("kind", [Lines, LiveTable])
def test_a_terminal_that_is_gone_ends_no_search(kind: Any) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    kind(Console(file=Gone())).say("exporting")


def test_a_reader_that_is_gone_ends_no_search() -> None:
    code = (
        "import sys; from search.reporting.console import lasting_console;"
        "from search.reporting.progress import Lines;"
        "lines = Lines(lasting_console()); sys.stdin.read(); lines.say('a'); lines.say('b');"
        "print('goes on', file=sys.stderr)"
    )
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == "goes on\n"
    assert process.returncode == 0


@pytest.mark.usefixtures("hasty")
def test_a_step_that_lasts_is_said_and_said_again() -> None:
    out = io.StringIO()
    with Lines(Console(file=out, width=200)).step("reading the data") as count:
        assert has_said(out, "reading the data\n")
        count(3, 1200)
        count(2, 1200)
        assert has_said(out, "reading the data: 5 of 1,200, 0 s so far\n")
    said = out.getvalue()
    time.sleep(0.2)
    assert out.getvalue() == said


def test_a_short_step_is_not_said() -> None:
    out = io.StringIO()
    with Lines(Console(file=out, width=200)).step("starting Ray") as count:
        count(1, 2)
    assert out.getvalue() == ""


@pytest.mark.parametrize("kind", [Lines, LiveTable, lambda _: Quiet()])
def test_an_error_in_a_step_comes_out(kind: Any) -> None:
    with (
        pytest.raises(OSError, match="No space left"),
        kind(Console(file=io.StringIO())).step("exporting"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("hasty")
def test_before_the_first_epoch_lines_say_what_the_trials_do(
    make_search: Make, make_reports: Make
) -> None:
    out, config = io.StringIO(), make_search()
    lines, study = Lines(Console(file=out, width=200)), open_study(Path("kept"), "tiny", trials=6)
    lines.start(config, study, lambda: 1)
    try:
        assert has_said(out, "Ray Tune is starting\n")
        study.ask(read_space(SPACE), config)
        assert has_said(out, "trial 0: its worker is loading PyTorch, 0 s so far\n")
        trial_folder(config.folder, 0).mkdir(parents=True)
        assert has_said(out, "trial 0: its first epoch is under way, 0 s so far\n")
        study.record(0, make_reports([0.1])[0])
        lines.update(0)
        said = out.getvalue()
        assert said.endswith("trial 0 epoch 1 head depth 0: AP 0.100 best 0.100 (2 s)\n")
        time.sleep(0.2)
        assert out.getvalue() == said
    finally:
        lines.close()


@pytest.mark.usefixtures("hasty")
def test_nothing_is_said_once_the_trials_are_over(make_search: Make) -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out, width=200))
    lines.start(make_search(), open_study(Path("kept"), "tiny"), lambda: 1)
    lines.close()
    said = out.getvalue()
    time.sleep(0.2)
    assert out.getvalue() == said


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], make_search: Make) -> None:
    quiet = Quiet()
    quiet.say("line")
    quiet.start(make_search(), open_study(Path("new"), "tiny"), lambda: 1)
    quiet.update(0)
    quiet.close()
    assert capsys.readouterr() == ("", "")
