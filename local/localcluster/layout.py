"""Where the local cluster keeps its files."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import PreflightError

MODULES = Path(__file__).resolve().parent.parent / "go"
"""One folder per program built from the Go module proxy: go.mod, go.sum and, for two of them, a main.go."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}[a-z0-9]")
_HIDDEN = (Path("/run"), Path("/var/run"), Path("/var/log"), Path("/proc"), Path("/sys"))
_SOCKET_PATH_MAX = 107


def cache_dir() -> Path:
    """Built programs, keyed by content and shared by every clone on this machine."""
    return Path(os.environ.get("BETTERTHERAPY_CACHE") or Path.home() / ".cache" / "bettertherapy")


def state_root() -> Path:
    """The folder that holds one folder per cluster."""
    return Path(os.environ.get("BETTERTHERAPY_STATE") or "/var/lib/bettertherapy")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``. The kernel frees it when the holder ends, however that is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str, *, root: Path | None = None) -> Layout:
        """The layout of the cluster ``name``.

        Raises:
            PreflightError: the name does not fit an interface's name, or the folder can't be used.
        """
        if not _NAME.fullmatch(name):
            raise PreflightError(
                f"{name!r} can't be a cluster's name",
                remedy="use 2 to 12 lower-case letters, digits and dashes, beginning with a letter",
            )
        layout = cls(name=name, root=(root or state_root()).absolute() / name)
        if any(layout.root.is_relative_to(hidden) for hidden in _HIDDEN):
            raise PreflightError(
                f"the cluster's folder can't be {layout.root}: the cluster has a {layout.root.parts[1]} of its own",
                remedy="point BETTERTHERAPY_STATE at a folder on a real disk, such as /var/lib/bettertherapy",
            )
        if len(os.fsencode(layout.containerd_socket)) > _SOCKET_PATH_MAX:
            raise PreflightError(
                f"the path {layout.containerd_socket} is too long for a Unix socket",
                remedy="point BETTERTHERAPY_STATE at a folder with a shorter path",
            )
        return layout

    @property
    def lock(self) -> Path:
        """Held while the cluster is brought up or down. Beside the folder, so that removing the folder keeps it."""
        return self.root.parent / f".{self.name}.lock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, mode 0600."""
        return self.root / "kubeconfig"

    @property
    def etc(self) -> Path:
        """Rendered configuration, made anew by each start."""
        return self.root / "etc"

    @property
    def pki(self) -> Path:
        """Keys and certificates, made anew by each start."""
        return self.root / "pki"

    @property
    def log(self) -> Path:
        """One log per component. The run before is in ``log.previous``."""
        return self.root / "log"

    @property
    def sockets(self) -> Path:
        """Unix sockets that both sides of the namespaces use."""
        return self.root / "run"

    @property
    def containerd(self) -> Path:
        """containerd's images. Kept when the cluster goes down, so that nothing is imported twice."""
        return self.root / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.sockets / "containerd.sock"

    @property
    def furnished(self) -> Path:
        """There once the objects that every cluster has from the start are in it."""
        return self.sockets / "furnished"

    @property
    def volumes(self) -> Path:
        """One folder per PersistentVolume."""
        return self.root / "volumes"

    @property
    def audit_log(self) -> Path:
        """One JSON line per write to the API."""
        return self.log / "audit.jsonl"

    @property
    def spec(self) -> Path:
        """What the supervisor runs."""
        return self.root / "supervisor.json"

    @property
    def components(self) -> Path:
        """What the supervisor says of what it runs."""
        return self.root / "components.json"

    @property
    def init(self) -> Path:
        """Which process holds the namespaces."""
        return self.root / "init.json"
