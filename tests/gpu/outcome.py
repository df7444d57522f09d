"""What is known so far of a measurement; written again and again, so that a broken run loses little."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench.results import Curve, Figure, Result, Spread, describe_machine

_WIDTH: Final = 160


@dataclass
class Outcome:
    """Figures and notes of one run."""

    out: Path
    name: str
    title: str
    how: str
    command: str
    machine: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    curves: list[Curve] = field(default_factory=list)

    def result(self) -> Result:
        """Return it as the benchmarks hand theirs back."""
        return Result(
            name=self.name, title=self.title, how=self.how, figures=tuple(self.figures), notes=tuple(self.notes),
            curves=tuple(self.curves),
            machine=self.machine, command=self.command,
        )  # fmt: skip

    def write(self) -> None:
        """Write <out>/<name>.json."""
        self.result().write(self.out)

    def show(self) -> None:
        """Print the table."""
        self.result().show(Console(width=_WIDTH))

    @property
    def good(self) -> bool:
        """Whether all was measured and no target was missed."""
        return self.complete and all(figure.met is not False for figure in self.figures)


def count(subject: str, figure: str, found: int, of: int, *, target: int | None = None) -> Figure:
    """Return a figure that counts things; a target says how many there should be."""
    return Figure(
        subject=subject, figure=figure, unit=f"of {of}", digits=0, spread=Spread.of([found]),
        target=None if target is None else f"{target}", met=None if target is None else found == target,
    )  # fmt: skip


def describe_gpu(*, standin: bool) -> str:
    """Return GPU and machine: what a figure depends on."""
    if standin:
        return f"no GPU: the stand-in; {describe_machine()}"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        gpu = f"unknown GPU ({error})"
    return f"{gpu}; {describe_machine()}"


def say(text: str) -> None:
    """Tell whoever watches."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
