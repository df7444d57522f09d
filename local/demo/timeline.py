"""Steps as a person watches them: what runs now, how long each took, and at the end where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True)
class Step:
    """One step that ended."""

    title: str
    began: float
    """Seconds since the start of the whole."""
    seconds: float
    background: bool
    """It ran beside others, so its time is not added to theirs."""


class Timeline:
    """Prints steps as they begin and end; safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: list[Step] = []
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what runs, on a terminal, while the block runs."""
        with self._progress:
            yield

    @contextmanager
    def step(self, title: str, *, background: bool = False) -> Iterator[Callable[[str], None]]:
        """Run a step; the block gets a function that says how far it is."""
        began = self.elapsed
        task = self._progress.add_task(escape(title))
        if self._progress.disable:
            self._print(f"  {escape(title)} ...")

        def detail(text: str) -> None:
            self._progress.update(task, description=f"{escape(title)} [dim]{escape(text)}[/dim]")

        try:
            yield detail
        except BaseException:
            self._print(f"[red]✗[/red] {escape(title)} [dim]after {self.elapsed - began:.1f} s[/dim]")
            raise
        finally:
            self._progress.remove_task(task)
        step = Step(title=title, began=began, seconds=self.elapsed - began, background=background)
        with self._lock:
            self.steps.append(step)
        self._print(f"[green]✓[/green] {escape(title)} [dim]{step.seconds:.1f} s (at {self.elapsed:.0f} s)[/dim]")

    def note(self, text: str) -> None:
        """Say something that is not a step."""
        self._print(f"  [dim]{escape(text)}[/dim]")

    def summary(self) -> Table:
        """Return the table of where the time went."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("STEP")
        table.add_column("SECONDS", justify="right")
        table.add_column("FROM", justify="right")
        for step in sorted(self.steps, key=lambda step: step.began):
            beside = " [dim](beside others)[/dim]" if step.background else ""
            table.add_row(escape(step.title) + beside, f"{step.seconds:.1f}", f"{step.began:.0f}")
        table.add_row("[bold]total[/bold]", f"[bold]{self.elapsed:.1f}[/bold]", "")
        return table

    def _print(self, markup: str) -> None:
        with self._lock:
            self.console.print(markup, highlight=False)


class SubSteps:
    """The steps inside a step, as `localcluster` reports them: shown, but not in the summary."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Run one."""
        began = self._timeline.elapsed
        yield
        self._timeline.note(f"{title}: {self._timeline.elapsed - began:.1f} s")

    def note(self, text: str) -> None:
        """Say something."""
        self._timeline.note(text)
