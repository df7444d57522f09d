"""A cgroup of its own for each cluster, on cgroup v1 and v2.

``bt-NAME/node`` holds the control plane, ``bt-NAME/kubepods`` the pods (the kubelet makes it). Whatever is in there
belongs to the cluster, so a start can find and end what an earlier run left behind.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_REMOVE_TIMEOUT_S = 15.0
_SHARES = {"cpu.shares": "8192", "cpu.weight": "800"}
"""By v1's and v2's file: a whole cluster counts as eight busy processes beside it. By default it counts as one."""


@dataclass(frozen=True)
class Hierarchies:
    """The mounted cgroup hierarchies."""

    roots: tuple[Path, ...]
    unified: bool
    """True for cgroup v2 alone; False for v1, with or without a v2 hierarchy beside it."""


def find_hierarchies(mountinfo: str, *, unified: bool) -> Hierarchies:
    """The hierarchies that ``mountinfo`` (the text of /proc/self/mountinfo) lists."""
    if unified:
        return Hierarchies(roots=(_MOUNT,), unified=True)
    roots: list[Path] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind and kind[0] in {"cgroup", "cgroup2"} and fields[4].startswith(f"{_MOUNT}/"):
            roots.append(Path(fields[4]))
    return Hierarchies(roots=tuple(dict.fromkeys(roots)), unified=False)


def hierarchies() -> Hierarchies:
    """The hierarchies of this machine."""
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return find_hierarchies(mountinfo, unified=(_MOUNT / "cgroup.controllers").is_file())


def create(name: str) -> None:
    """Make ``name`` and ``name/node`` in every hierarchy."""
    found = hierarchies()
    for root in found.roots:
        for group in (root / name, root / name / "node"):
            if found.unified:
                _delegate(group.parent)
            group.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                # An empty v1 cpuset admits no process.
                if not found.unified and (group / file).is_file():
                    (group / file).write_text((group.parent / file).read_text())
        for file, shares in _SHARES.items():
            if (root / name / file).is_file():
                (root / name / file).write_text(shares)


def _delegate(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        with suppress(OSError):  # Some controllers (misc, rdma) may refuse; the kubelet does not need those.
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def add(name: str, pid: int) -> None:
    """Put a process, and so whatever it starts later, into ``name/node``."""
    for root in hierarchies().roots:
        (root / name / "node" / "cgroup.procs").write_text(str(pid))


def processes(name: str) -> frozenset[int]:
    """The processes in ``name`` and below."""
    found: set[int] = set()
    for root in hierarchies().roots:
        for folder, _, _ in os.walk(root / name):
            with suppress(OSError):
                found.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    return frozenset(found - {0, os.getpid()})


def memory_bytes(name: str) -> int | None:
    """What ``name`` uses without the page cache that can be dropped; None where that can't be read."""
    found = hierarchies()
    for root in found.roots:
        current = root / name / ("memory.current" if found.unified else "memory.usage_in_bytes")
        if current.is_file():
            stat = dict(line.split() for line in (root / name / "memory.stat").read_text().splitlines())
            cached = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
            return int(current.read_text()) - cached
    return None


def remove(name: str) -> None:
    """End every process in ``name`` and remove the groups.

    Raises:
        TimeoutError: a process would not die.
    """
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    while True:
        for pid in processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = [root / name for root in hierarchies().roots if not _remove_tree(root / name)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroups that can't be removed: {', '.join(map(str, left))}")
        time.sleep(0.05)


def _remove_tree(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()
