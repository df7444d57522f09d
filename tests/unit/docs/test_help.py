"""`--help` speaks to who runs a program: it says what the program is for, and names what it can do in full."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.docs.schemas import definitions

PATHS = [str(ROOT / each) for each in (".", "cli", "crds", "local", "operator")]
PROGRAMS = sorted(
    ".".join(path.parent.relative_to(ROOT / root).parts)
    for root in (".", "operator")
    for path in (ROOT / root).glob("neurons/**/__main__.py" if root == "." else "twin_operator/__main__.py")
)
"""Of the images: what people and pods start by `python -m`."""
OF_THE_CODE = re.compile(
    r"\bmodule here\b|\breads the\s+environment\b|\bdataclass\b|\bdocstring\b|the entry point", re.I
)


def helped(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": ":".join(PATHS), "PATH": "/usr/bin:/bin", "HOME": "/tmp", "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_what_a_program_is_for(program: str) -> None:
    text = helped(program)
    usage, _, rest = text.partition("\n\n")
    assert usage.startswith("usage: ")
    assert max(map(len, rest.splitlines())) <= 80
    first = re.split(r"\n\s*\n", text)[1]
    assert not first.startswith(("options", "positional"))
    assert not OF_THE_CODE.search(text)


def test_there_are_programs_to_ask() -> None:
    assert len(PROGRAMS) > 10
    assert Path(ROOT / "neurons").is_dir()


def test_the_operators_help_names_every_kind_that_it_looks_after() -> None:
    kinds = {kind for kind, each in definitions().items() if "subresources" in each["spec"]["versions"][0]}
    assert len(kinds) == 5
    text = helped("twin_operator")
    assert {kind for kind in kinds if kind not in text} == set()
