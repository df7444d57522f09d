"""A cluster for one benchmark, with an audit log and the CRDs; it is always taken down again."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from localcluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.layout import state_root
from tests.bench.registry import BenchmarkError
from tests.bench.results import ROOT

NAME: Final = "bench"
NAMESPACE: Final = "bench"
MEMORY_GB: Final = 3.0
"""What the control plane and the processes of a benchmark take."""


@contextlib.contextmanager
def bench_cluster() -> Iterator[Cluster]:
    """Bring the cluster up and take it down when the block ends; raises BenchmarkError.

    One benchmark at a time: a cluster that an earlier, killed one left is removed first.
    """
    cluster = Cluster(NAME, audit=True)
    with (state_root() / ".bench-run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError("another benchmark uses the cluster `bench`: wait for its end") from None
        try:
            cluster.down()
            cluster.up(memory_gb=MEMORY_GB)
            for path in sorted((ROOT / "crds").glob("*.yaml")):
                cluster.kubectl("apply", "--server-side", "-f", str(path))
            cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            cluster.kubectl("create", "namespace", NAMESPACE)
            yield cluster
        except LocalClusterError as error:
            raise BenchmarkError(str(error)) from error
        finally:
            cluster.down()


@dataclass(frozen=True)
class Write:
    """One write as the API server's audit log has it."""

    user: str
    verb: str
    resource: str
    subresource: str
    name: str
    received: float = 0.0
    """When the API server had the request, in seconds since 1970."""
    answered: float = 0.0

    def __str__(self) -> str:
        """Say who wrote what."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.user} {self.verb} {resource} {self.name}"


class AuditLog:
    """The API server's own account of writes. It is written before each answer, so nothing is missing in it."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.audit_log
        self._offset = self._path.stat().st_size

    def writes(self) -> list[Write]:
        """Return the writes since this object was made."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            events: list[dict[str, Any]] = [json.loads(line) for line in file if line.endswith(b"\n")]
        return [_write(event) for event in events]


def _write(event: dict[str, Any]) -> Write:
    thing = event.get("objectRef") or {}
    return Write(
        user=event["user"]["username"],
        verb=event["verb"],
        resource=thing.get("resource", event["requestURI"]),
        subresource=thing.get("subresource", ""),
        name="/".join(filter(None, (thing.get("namespace"), thing.get("name")))),
        received=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        answered=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
    )
