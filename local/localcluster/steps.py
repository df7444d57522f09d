"""Steps with elapsed times, for a person or for a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console

_log = logging.getLogger("localcluster")


class Steps(Protocol):
    """Tells somebody what is being done."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Announce a step and, when it ends, how long it took."""

    def note(self, text: str) -> None:
        """Say something that is not a step."""


class LoggedSteps:
    """Steps as log records: what a program that uses the cluster wants."""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Log the step when it is done."""
        start = time.monotonic()
        yield
        _log.info("%s: %.1f s", title, time.monotonic() - start)

    def note(self, text: str) -> None:
        """Log the text."""
        _log.info("%s", text)


class ConsoleSteps:
    """Steps as lines on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show the step while it runs, and one line when it ends."""
        start = time.monotonic()
        try:
            if self._console.is_terminal:
                with self._console.status(title):
                    yield
            else:
                yield
        except BaseException:
            self._line("[red]✗[/red]", title, start)
            raise
        self._line("[green]✓[/green]", title, start)

    def note(self, text: str) -> None:
        """Print the text."""
        self._console.print(f"  {text}", highlight=False)

    def _line(self, mark: str, title: str, start: float) -> None:
        now = time.monotonic()
        self._console.print(
            f"{mark} {title} [dim]{now - start:.1f} s (at {now - self._start:.1f} s)[/dim]", highlight=False
        )
