"""What a benchmark hands back, and how it is shown: on the terminal and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench import versions

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS_DIR: Final = ROOT / "build" / "bench"


def describe_machine() -> str:
    """Return cores, memory and load: what a figure depends on."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"load average {load:.1f} before it began"
    )


@dataclass(frozen=True)
class Spread:
    """A figure measured several times; never a single number."""

    minimum: float
    median: float
    maximum: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(min(values), statistics.median(values), max(values), len(values))

    def text(self, digits: int) -> str:
        """Return `median (minimum to maximum)`, or the one value there is."""
        if self.runs == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.minimum:,.{digits}f} to {self.maximum:,.{digits}f})"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that was measured, the largest one where there are few."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: something measured, with a target where the project has one."""

    subject: str
    figure: str
    unit: str
    spread: Spread
    digits: int = 2
    p99: float | None = None
    """Nearest rank, of single samples; None where the runs are no samples of one distribution."""
    target: str | None = None
    met: bool | None = None
    """By what the target names, else by the median; None where there is no target."""

    def value(self) -> str:
        """Return the figure as a table shows it."""
        p99 = "" if self.p99 is None else f"; p99 {self.p99:,.{self.digits}f}"
        return f"{self.spread.text(self.digits)}{p99} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a plot: what tests.bench.plots draws and no table shows."""

    plot: str
    """Which plot it belongs to."""
    name: str
    points: tuple[tuple[float, float, float, float], ...]
    """x; low, middle and high of y."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark's outcome."""

    name: str
    title: str
    how: str
    """What was run, in a sentence or two a reader can repeat."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()
    command: str = ""
    """How to repeat it."""
    versions: dict[str, str] = field(default_factory=versions.of_python)
    measured_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    machine: str = field(default_factory=describe_machine)

    def write(self, directory: Path = RESULTS_DIR) -> Path:
        """Write <name>.json, whole or not at all; returns its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(partial, path)
        return path

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title=self.title, title_justify="left", caption=self.how, caption_justify="left")
        for heading in ("", "figure", "median (min to max); p99", "target"):
            table.add_column(heading, overflow="fold")
        for figure in self.figures:
            mark = "" if figure.met is None else "[green] met[/]" if figure.met else "[red] missed[/]"
            table.add_row(figure.subject, figure.figure, figure.value(), f"{figure.target or ''}{mark}")
        console.print(table)
        for note in self.notes:
            console.print(f"[yellow]{note}[/]")


def load_results(order: Sequence[str], directory: Path = RESULTS_DIR) -> list[dict[str, Any]]:
    """Return all results measured so far, in that order of names."""
    found = [directory / f"{name}.json" for name in order]
    return [json.loads(path.read_text()) for path in found if path.exists()]
