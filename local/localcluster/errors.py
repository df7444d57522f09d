"""What can go wrong with the local cluster.

Every error says what failed, shows the end of the log that knows more, and says what to do::

    LocalClusterError
    ├── PreflightError   this machine lacks something (memory, disk, a program)
    ├── BuildError       a program could not be built
    ├── StartError       a component did not come up, or not in time
    └── ImageError       an image archive could not be read or imported
"""

from __future__ import annotations

from pathlib import Path

LOG_LINES = 15


class LocalClusterError(RuntimeError):
    """A failure that a person can act on."""

    def __init__(self, what: str, *, remedy: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.log = log

    def log_tail(self) -> str:
        """The last lines of the log that belongs to the failure; empty when there is none."""
        if self.log is None or not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line[:400] for line in lines[-LOG_LINES:])

    def __str__(self) -> str:
        parts = [self.what]
        tail = self.log_tail()
        if tail:
            parts.append(f"Last lines of {self.log}:\n{tail}")
        parts.append(f"What to do: {self.remedy}")
        return "\n".join(parts)


class PreflightError(LocalClusterError):
    """This machine lacks something."""


class BuildError(LocalClusterError):
    """A program could not be built."""


class StartError(LocalClusterError):
    """A component did not come up, or not in time."""


class ImageError(LocalClusterError):
    """An image archive could not be read or imported."""
