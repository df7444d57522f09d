"""The supervisor starts what it is told to, in order, and again when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localcluster.supervisor import met

_LOCAL = Path(__file__).resolve().parents[3] / "local"
_RUN = """
import signal, sys
from pathlib import Path
from localcluster import supervisor
signal.pthread_sigmask(signal.SIG_BLOCK, supervisor._SIGNALS)
running = supervisor.Supervisor(Path(sys.argv[1]))
running.load()
running.run()
"""


class Running:
    """A supervisor without namespaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def specify(self, *components: dict[str, Any]) -> None:
        spec = {
            "environment": {"PATH": os.environ["PATH"]},
            "log": str(self.folder),
            "status": str(self.folder / "status.json"),
            "components": [{"needs": [], "once": False, **component} for component in components],
        }
        (self.folder / "spec.json").write_text(json.dumps(spec))

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(self.folder / "spec.json")],
            env={**os.environ, "PYTHONPATH": str(_LOCAL)},
            start_new_session=True,
        )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def status(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text()).get(name, {})
            return found
        return {}

    def stop(self) -> None:
        pids = [self.status(name).get("pid", 0) for name in ("a", "b")]
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
        for pid in filter(None, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    supervisor = Running(tmp_path)
    yield supervisor
    supervisor.stop()


def _eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 20 s"
        time.sleep(0.02)


_SLEEP = ["/bin/sleep", "1000"]


def test_a_component_that_is_killed_is_started_again(running: Running) -> None:
    running.specify({"name": "a", "command": _SLEEP})
    running.start()
    _eventually(lambda: running.status("a").get("pid"))
    first = running.status("a")["pid"]

    os.kill(first, signal.SIGKILL)

    _eventually(lambda: running.status("a").get("pid") not in {0, None, first})
    assert running.status("a")["last_exit"] == -signal.SIGKILL


def test_a_component_waits_for_what_it_needs(running: Running, tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    running.specify(
        {"name": "a", "command": _SLEEP, "needs": [f"file:{needed}"]},
        {"name": "b", "command": _SLEEP},
    )
    running.start()
    _eventually(lambda: running.status("b").get("pid"))
    assert running.status("a")["pid"] == 0

    needed.touch()

    _eventually(lambda: running.status("a").get("pid"))


def test_what_runs_once_is_not_started_again(running: Running) -> None:
    running.specify({"name": "a", "command": ["/bin/true"], "once": True})
    running.start()

    _eventually(lambda: running.status("a").get("finished"))
    assert running.status("a")["restarts"] == 0


def test_a_program_that_is_not_there_does_not_end_the_others(running: Running) -> None:
    running.specify({"name": "a", "command": ["no-such-program"]}, {"name": "b", "command": _SLEEP})
    running.start()

    _eventually(lambda: running.status("b").get("pid"))
    _eventually(lambda: running.status("a").get("restarts", 0) >= 2)


def test_a_component_can_be_added_while_it_runs(running: Running) -> None:
    running.specify({"name": "a", "command": _SLEEP})
    running.start()
    _eventually(lambda: running.status("a").get("pid"))
    before = running.status("a")["pid"]

    running.specify({"name": "a", "command": _SLEEP}, {"name": "b", "command": _SLEEP})
    running.signal(signal.SIGHUP)

    _eventually(lambda: running.status("b").get("pid"))
    assert running.status("a")["pid"] == before


def test_an_unreadable_spec_changes_nothing(running: Running) -> None:
    running.specify({"name": "a", "command": _SLEEP})
    running.start()
    _eventually(lambda: running.status("a").get("pid"))
    (running.folder / "spec.json").write_text("{")
    running.signal(signal.SIGHUP)

    os.kill(running.status("a")["pid"], signal.SIGKILL)

    _eventually(lambda: running.status("a").get("restarts") == 1)


def test_a_gate_opens_when_something_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        need = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        assert met(need)
    assert not met(need)


def test_a_gate_that_nobody_knows_stays_shut() -> None:
    assert not met("moon:full")
