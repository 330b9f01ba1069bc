"""`unfreeze completion`: the scripts complete in the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from search.commands.cli import main

ASKED = {
    "st": {"status", "stop"},
    "status c": {"cards", "cells"},
    "search ": {"my.yaml", "searches"},
    "search --dr": {"--dry-run"},
    "evaluate ": {"cards", "cells", "my.yaml", "notes.txt", "searches"},
    "export cells --format ": {"safetensors", "onnx", "pt2"},
    "check n": {"notes.txt"},
    "completion ": {"bash", "zsh", "fish"},
}
"""What stands before the cursor, and what it may become."""
BASH = """\
source ./script
line=$1
COMP_WORDS=($line)
[[ $line == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
[[ $(complete -p unfreeze) =~ -F\\ ([a-z_]+) ]]
"${BASH_REMATCH[1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit; compinit -u -D; eval "$(<./script)"'
zpty -w shell 'unfreeze() { print "given $*;" }; print ready$((1))'
zpty -r -m shell line '*ready1*'
zpty -w -n shell $'unfreeze TYPED\t\n'
zpty -r -m shell line '*given *;*'
print -r -- $line
zpty -d shell
"""
"""Types into an interactive shell, where `unfreeze` prints what it was given."""


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> str:
    """The path of a shell, which finds its script and two searches in the working folder."""
    shell: str = request.param
    for name in ("cells", "cards"):
        Path("searches", name).mkdir(parents=True)
        Path("searches", name, "search.yaml").touch()
    Path("my.yaml").touch()
    Path("notes.txt").touch()
    assert main(["completion", shell]) == 0
    Path("script").write_text(capsys.readouterr().out)
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    return program


def printed(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(("typed", "offered"), ASKED.items())
def test_bash_completes(script: str, typed: str, offered: set[str]) -> None:
    assert (
        set(printed(script, "-c", BASH, "bash", f"unfreeze {typed}").split()) - {"script"}
        == offered
    )


@pytest.mark.parametrize("script", ["fish"], indirect=True)
@pytest.mark.parametrize(("typed", "offered"), ASKED.items())
def test_fish_completes(script: str, typed: str, offered: set[str]) -> None:
    out = printed(script, "--no-config", "-c", f"source ./script; complete -C 'unfreeze {typed}'")
    words = {line.split("\t")[0].rstrip("/") for line in out.splitlines()}
    assert words - {"script"} == offered


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("sta", "status"), ("status ce", "status cells"), ("search my", "search my.yaml")],
)
def test_zsh_completes(script: str, typed: str, completed: str) -> None:
    out = printed(script, "-f", "-c", ZSH.replace("TYPED", typed))
    assert f"given {completed};" in out


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_a_search_that_is_new_is_offered_without_a_new_script(script: str) -> None:
    Path("searches/coins").mkdir()
    Path("searches/coins/search.yaml").touch()
    assert "coins" in printed(script, "-c", BASH, "bash", "unfreeze stop ")
