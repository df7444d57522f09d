"""The long builds: run as programs at low priority, each with a log of its own, and ended together."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from demo.errors import DemoError
from demo.timeline import Timeline

_TIMEOUT_S = 45 * 60
_LOG_LINES = 25


class Builds:
    """Runs build commands; safe to use from several threads."""

    def __init__(self, folder: Path, timeline: Timeline) -> None:
        self._folder = folder
        self._timeline = timeline
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, title: str, command: Sequence[str], *, log: str, background: bool = False) -> str:
        """Run a command to its end and return its standard output; its standard error says how far it is.

        Raises:
            DemoError: it failed or took too long; with the end of its log.
        """
        path = self._folder / log
        nice = ["nice", "-n", "5"] if shutil.which("nice") else []
        with self._timeline.step(title, background=background) as detail, path.open("w+", encoding="utf-8") as output:
            process = self._start([*nice, *command])
            watchdog = threading.Timer(_TIMEOUT_S, process.kill)
            watchdog.start()
            try:
                for line in process.stderr or ():
                    output.write(line)
                    output.flush()
                    if line.strip():
                        detail(line.strip()[:80])
                said = process.stdout.read() if process.stdout else ""
                process.wait()
            finally:
                watchdog.cancel()
                process.terminate()
                self._running.discard(process)
            if process.returncode != 0:
                output.seek(0)
                raise DemoError(
                    f"`{' '.join(command)}` {_end(process.returncode)}",
                    evidence="".join(output.readlines()[-_LOG_LINES:]),
                    remedy=f"the end of its output is above, all in {path}; running the demo again goes on from here",
                )
        return said

    def stop(self) -> None:
        """End what runs, and start nothing more: another step has failed."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                process.terminate()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise DemoError("Not begun: another step has failed", remedy="see that step's message")
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._running.add(process)
        return process


def _end(code: int) -> str:
    return f"failed with exit status {code}" if code > 0 else f"was ended by signal {-code}"
