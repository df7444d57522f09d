"""The first process of a cluster's namespaces: it starts the components and starts them again when they end.

Everything else in the namespaces is its descendant, so when it ends the kernel ends all of them and drops every mount.
It stays on the standard library: it lives as long as the cluster does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SIGNALS = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT}
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
_STABLE_S = 30.0
_LOG_LIMIT = 64 * 1024 * 1024
_GATE_PERIOD_S = 0.1
_IDLE_PERIOD_S = 30.0
_MOUNT_TIMEOUT_S = 20
_NOT_STARTED = 127


@dataclass
class Process:
    """One component and what became of it."""

    name: str
    command: list[str]
    needs: list[str]
    once: bool
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    start_at: float = 0.0
    last_exit: int | None = None
    finished: bool = False
    met: set[str] = field(default_factory=set)

    @property
    def waiting(self) -> bool:
        """Whether it should run and does not."""
        return self.pid == 0 and not self.finished


def met(need: str) -> bool:
    """Whether what a component waits for is there."""
    try:
        return _met(need)
    except (OSError, ValueError):
        return False


def _met(need: str) -> bool:
    kind, _, where = need.partition(":")
    if kind == "file":
        return Path(where).exists()
    if kind == "ready":
        with urllib.request.urlopen(where, context=_unverified(), timeout=2.0) as response:
            return bool(response.status == 200)
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(where) == 0
    host, _, port = where.rpartition(":")
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((host, int(port))) == 0


def _unverified() -> ssl.SSLContext:
    # Only "is it ready" is asked, and nothing is told.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Supervisor:
    """Runs what the spec names."""

    def __init__(self, spec: Path) -> None:
        self._spec = spec
        self._processes: dict[str, Process] = {}
        self._environment: dict[str, str] = {}
        self._log = Path()
        self._status = Path()
        self._stopping = False

    def prepare(self) -> None:
        """Turn fresh namespaces into a machine: mounts, host name, forwarding."""
        spec = self._read()
        socket.sethostname(spec["hostname"])
        # Containers' mounts may propagate among themselves; nothing propagates to the machine.
        _mount("--make-rshared", "/")
        for folder in ("/run", "/var/log"):
            _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        for source, target in spec["binds"]:
            _mount("--bind", source, target)
        # The kubelet would set these for the whole machine. It sees its own values and leaves the machine's alone.
        fakes = Path("/run/sysctl")
        fakes.mkdir()
        for name, value in spec["pretended_sysctls"].items():
            fake = fakes / name.replace("/", ".")
            fake.write_text(f"{value}\n")
            if Path("/proc/sys", name).exists():
                _mount("--bind", str(fake), f"/proc/sys/{name}")
        for name, value in spec["sysctls"].items():
            Path("/proc/sys", name).write_text(value)

    def _read(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self._spec.read_text(encoding="utf-8"))
        self._environment = spec["environment"]
        os.environ["PATH"] = self._environment["PATH"]  # Programs are looked for where they will look themselves.
        self._log, self._status = Path(spec["log"]), Path(spec["status"])
        return spec

    def load(self) -> None:
        """Read the spec, add what is new in it and end what is no longer in it."""
        wanted = {entry["name"]: entry for entry in self._read()["components"]}
        for name, entry in wanted.items():
            known = self._processes.get(name)
            if known is None:
                self._processes[name] = Process(**entry)
            else:
                known.command, known.needs = entry["command"], entry["needs"]
        for name in [name for name in self._processes if name not in wanted]:
            process = self._processes.pop(name)
            if process.pid:
                os.kill(process.pid, signal.SIGTERM)
        self._report()

    def run(self) -> None:
        """Keep the components running until told to stop."""
        while not self._stopping:
            self._reap()
            pause = self._start_waiting()
            self._limit_logs()
            received = signal.sigtimedwait(_SIGNALS, pause)
            if received is None:
                continue
            if received.si_signo in {signal.SIGTERM, signal.SIGINT}:
                self._stopping = True
            elif received.si_signo == signal.SIGHUP:
                try:
                    self.load()
                except (OSError, ValueError, KeyError, TypeError) as error:
                    # Everything here is this process's descendant: it goes on with what it knows.
                    print(f"the new spec is not followed: {error}", flush=True)

    def _start_waiting(self) -> float:
        pause, now = _IDLE_PERIOD_S, time.monotonic()
        for process in self._processes.values():
            if not process.waiting:
                continue
            if process.start_at > now:
                pause = min(pause, process.start_at - now)
                continue
            process.met.update(need for need in process.needs if need not in process.met and met(need))
            if process.met.issuperset(process.needs):
                self._start(process)
            else:
                pause = min(pause, _GATE_PERIOD_S)
        return pause

    def _start(self, process: Process) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        path = str(self._log / f"{process.name}.log")
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, path, flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        process.started = time.monotonic()
        try:
            process.pid = os.posix_spawnp(
                process.command[0], process.command, self._environment, file_actions=actions, setsigmask=[], setsid=True
            )
        except OSError as error:
            print(f"{process.name} can't be started: {error}", flush=True)
            self._ended(process, _NOT_STARTED)
        self._report()

    def _reap(self) -> None:
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = next((process for process in self._processes.values() if process.pid == pid), None)
            if ended is None:
                continue  # An orphan, or a component that was taken out.
            changed = True
            self._ended(ended, os.waitstatus_to_exitcode(status))
        if changed:
            self._report()

    def _ended(self, process: Process, code: int) -> None:
        now = time.monotonic()
        process.pid, process.last_exit = 0, code
        if process.once and code == 0:
            process.finished = True
            return
        if now - process.started > _STABLE_S:
            process.start_at = now
        else:
            process.start_at = now + _BACKOFF_S[min(process.restarts, len(_BACKOFF_S) - 1)]
        process.restarts += 1
        process.met.clear()
        print(f"{process.name} ended with {code}; restart {process.restarts}", flush=True)

    def _report(self) -> None:
        report = {
            process.name: {
                "pid": process.pid,
                "restarts": process.restarts,
                "last_exit": process.last_exit,
                "finished": process.finished,
            }
            for process in self._processes.values()
        }
        partial = self._status.with_suffix(".partial")
        partial.write_text(json.dumps(report), encoding="utf-8")
        partial.rename(self._status)

    def _limit_logs(self) -> None:
        for path in self._log.glob("*.log"):
            with suppress(OSError):
                if path.stat().st_size > _LOG_LIMIT:
                    os.truncate(path, 0)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=_MOUNT_TIMEOUT_S)


def main() -> int:
    """Wait for the word that the network is there, then supervise."""
    # Whoever started this may have died meanwhile: then the pipe is closed without a word, and so is the cluster.
    if sys.stdin.readline().strip() != "go":
        return 1
    os.chdir("/")
    supervisor = Supervisor(Path(sys.argv[1]))
    supervisor.prepare()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    supervisor.load()
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
