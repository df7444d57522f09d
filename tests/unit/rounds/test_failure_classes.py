"""Whatever a round's process says of its failures has a name that the operator's side of the format knows."""

from __future__ import annotations

import ast
from pathlib import Path

from bettertherapy_api.round_progress import CLASSES
from neurons.validator import rounds
from twin_operator.domain.appearances import ROUND

PACKAGE = Path(str(rounds.__file__)).parent


def said() -> set[str]:
    found = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RoundError":
                [kind] = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
                found.add(str(kind))
    return found


def test_every_class_is_in_the_format_and_every_one_of_the_format_is_said() -> None:
    assert said() == set(CLASSES)


def test_the_operator_knows_no_class_that_nobody_says() -> None:
    assert {reason.value for reason in ROUND} <= said()
