"""A pod that is told to end while its program starts ends, though its program is the container's first process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def _namespaces() -> bool:
    if shutil.which(_CONTAINER[0]) is None:
        return False
    return subprocess.run([*_CONTAINER, "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def _first_process(code: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run Python as the first process of a PID namespace; yields what waits for it, and its id here."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [*_CONTAINER, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as waiting:
        try:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "1\n"
            children = Path(f"/proc/{waiting.pid}/task/{waiting.pid}/children").read_text(encoding="ascii")
            yield waiting, int(children)
        finally:
            waiting.kill()


@pytest.mark.skipif(not _namespaces(), reason="needs leave to make a PID namespace")
@pytest.mark.parametrize("package", ["neurons", "twin_operator"])
def test_a_program_that_does_not_listen_yet_is_ended_by_sigterm(package: str) -> None:
    code = f"import {package}, os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with _first_process(code) as (waiting, pid):
        os.kill(pid, signal.SIGTERM)
        assert waiting.wait(timeout=20) == 128 + signal.SIGTERM


@pytest.mark.skipif(not _namespaces(), reason="needs leave to make a PID namespace")
def test_who_listens_already_goes_on_listening() -> None:
    code = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); import neurons; "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    with _first_process(code) as (waiting, pid):
        os.kill(pid, signal.SIGTERM)
        assert waiting.wait(timeout=20) == 7


def test_elsewhere_nothing_changes() -> None:
    code = "import signal, neurons; raise SystemExit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
