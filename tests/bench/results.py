"""What a benchmark hands back, and how it is shown: on the terminal, as JSON, in docs/benchmarks.md."""

from __future__ import annotations

import json
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

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS_DIR: Final = ROOT / "build" / "bench"
DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"


def describe_machine() -> str:
    """Return cores, memory and load: what a figure depends on."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load average {load:.1f} when written"
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
        """Return `median (minimum to maximum)`."""
        return f"{self.median:,.{digits}f} ({self.minimum:,.{digits}f} to {self.maximum:,.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: something measured, with a target where the project has one."""

    subject: str
    figure: str
    unit: str
    spread: Spread
    digits: int = 2
    target: str | None = None
    met: bool | None = None
    """By the median; None where there is no target."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark's outcome."""

    name: str
    title: str
    how: str
    """What was run, in a sentence or two a reader can repeat."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
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
        for heading in ("", "figure", "median (min to max)", "target"):
            table.add_column(heading, overflow="fold")
        for figure in self.figures:
            mark = "" if figure.met is None else "[green] met[/]" if figure.met else "[red] missed[/]"
            value = f"{figure.spread.text(figure.digits)} {figure.unit}"
            table.add_row(figure.subject, figure.figure, value, f"{figure.target or ''}{mark}")
        console.print(table)
        for note in self.notes:
            console.print(f"[yellow]{note}[/]")


def load_results(directory: Path = RESULTS_DIR) -> list[dict[str, Any]]:
    """Return all results measured so far, by name."""
    return [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]


def write_document(results: Sequence[dict[str, Any]], path: Path = DOCUMENT) -> None:
    """Write the page; generated, so never edit it by hand."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m tests.bench --document` from what was measured; don't edit it. Each figure is the",
        "median of its runs, with the smallest and the largest beside it.",
    ]
    for result in results:
        lines += ["", f"## {result['title']}", "", result["how"], ""]
        lines += [f"Measured {result['measured_at']} on {result['machine']}.", ""]
        lines += ["| | figure | median (min to max), runs | target |", "| --- | --- | --- | --- |"]
        for figure in result["figures"]:
            spread = Spread(**figure["spread"])
            met = {None: "", True: " (met)", False: " (missed)"}[figure["met"]]
            value = f"{spread.text(figure['digits'])} {figure['unit']}, {spread.runs}"
            lines.append(f"| {figure['subject']} | {figure['figure']} | {value} | {figure['target'] or ''}{met} |")
        lines += [f"\n{note}" for note in result["notes"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
