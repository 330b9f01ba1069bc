"""Options that several commands share."""

import argparse
from pathlib import Path

import pytest

from search.commands.errors import Parser
from search.commands.options import (
    add_allow,
    add_cluster,
    add_command,
    add_images,
    add_model,
    add_storage,
)


@pytest.fixture
def parser() -> Parser:
    """A command line with one command that has every shared option."""
    parser = Parser(prog="p")
    commands = parser.add_subparsers()
    command = add_command(commands, "go", lambda options: 3, "help of go", resumable=True)
    for add in (add_allow, add_cluster, add_images, add_model, add_storage):
        add(command)
    return parser


def test_a_command_knows_what_to_run_and_whether_it_resumes(parser: Parser) -> None:
    options = parser.parse_args(["go", "cells"])
    assert options.run(options) == 3
    assert options.resumable
    assert "help of go" in parser.format_help()


def test_shared_options_have_their_defaults(parser: Parser) -> None:
    options = parser.parse_args(["go", "cells"])
    assert (options.allow, options.images, options.cluster) == ([], [], None)
    assert (options.model, options.storage) == ("cells", Path("searches"))


def test_allow_and_images_may_be_repeated(parser: Parser) -> None:
    line = ["go", "cells", "--allow", "a", "--allow", "b", "--images", "train=x", "--images", "y"]
    options: argparse.Namespace = parser.parse_args(line)
    assert (options.allow, options.images) == (["a", "b"], ["train=x", "y"])
