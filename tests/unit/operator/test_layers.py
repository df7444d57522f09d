"""What import-linter can't see of the layers: the engine names none of our kinds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import twin_operator.engine
from bettertherapy_api import crd

SOURCES = sorted(Path(twin_operator.engine.__file__).parent.glob("*.py"))
OURS = re.compile("|".join(name for kind in crd.KINDS for name in (kind.KIND, kind.PLURAL)))


def literals(source: str) -> list[str]:
    """Return the strings of a program, without its docstrings."""
    tree = ast.parse(source)
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]


def named(source: str) -> list[str]:
    return [text for text in literals(source) if OURS.search(text)]


def test_a_kind_in_a_string_is_found_and_one_in_a_docstring_is_not() -> None:
    source = "'''Of a DoctorTwin.'''\npath = f'/apis/x/minerpools/{name}'\nkind = 'PodReport'"
    assert sorted(named(source)) == ["/apis/x/minerpools/", "PodReport"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_engine_names_none_of_our_kinds(path: Path) -> None:
    assert named(path.read_text()) == []
