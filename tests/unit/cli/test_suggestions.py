"""A command that a message suggests reaches what the call reached that gave the message."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.text import Text

from kubectl_twin import suggestions
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.text_console import TextConsole


@pytest.fixture(autouse=True)
def elsewhere() -> Iterator[None]:
    suggestions.keep(Reach("/tmp/my config", "prod", "ada", ("doctors",)), "clinic")
    yield
    suggestions.keep(Reach(), None)


CLI = Path(__file__).parents[3] / "cli" / "kubectl_twin"
FLAGS = "--kubeconfig '/tmp/my config' --context prod --as ada --as-group doctors"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Look: `kubectl twin status dr-x`.", f"Look: `kubectl twin status dr-x -n clinic {FLAGS}`."),
        ("`kubectl twin list -A` shows", f"`kubectl twin list -A {FLAGS}` shows"),
        ("`kubectl annotate twin x -n other a-`", f"`kubectl annotate twin x -n other a- {FLAGS}`"),
        ("`kubectl config get-contexts` lists", "`kubectl config get-contexts --kubeconfig '/tmp/my config'` lists"),
        ("`kubectl twin verify --metagraph FILE` reads", "`kubectl twin verify --metagraph FILE` reads"),
        ("set `spec.gate`, then `helm install x`", "set `spec.gate`, then `helm install x`"),
        ("one `kubectl twin a` or `kubectl twin b`",
         f"one `kubectl twin a -n clinic {FLAGS}` or `kubectl twin b -n clinic {FLAGS}`"),
    ],
)  # fmt: skip
def test_what_is_suggested_keeps_where_it_was_asked(said: str, told: str) -> None:
    assert suggestions.told(said) == told


def test_a_call_without_options_is_told_as_it_was_written() -> None:
    suggestions.keep(Reach(), None)
    assert suggestions.told("`kubectl twin status dr-x`") == "`kubectl twin status dr-x`"


def test_within_a_report_too_and_colours_stay_where_they_were() -> None:
    console = TextConsole(file=io.StringIO(), width=300)
    text = Text.assemble(
        ("waits ", "dim"), "for you: `kubectl twin review dr-x`, then `kubectl twin approve dr-x`. ", ("now", "red")
    )
    console.print(text)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        f"waits for you: `kubectl twin review dr-x -n clinic {FLAGS}`, then "
        f"`kubectl twin approve dr-x -n clinic {FLAGS}`. now\n"
    )


def test_every_command_that_the_plugin_suggests_is_marked_as_one() -> None:
    """Else it gets none of the call's options."""
    bare = [
        f"{path.name}: {node.value}"
        for path in sorted(CLI.rglob("*.py"))
        for tree in [ast.parse(path.read_text())]
        for docstrings in [{id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}]
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if re.search(r"(?<!`)kubectl twin \w+ ", node.value)
    ]
    assert bare == []
