"""LeaderWorkerSet's own definition on a cluster under test, from its Go module (Apache-2.0), told by its hash.

Its controller doesn't run: what is tried is which objects the API server takes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Kubectl

MODULE = "sigs.k8s.io/lws@v0.8.0"
SUM = "h1:DdhJ8QabwTfWgbgaHH2gdf8twliioHaoSfmDXRYEVU0="
CRD = "crd/leaderworkersets.leaderworkerset.x-k8s.io"


def define_leader_worker_sets(kubectl: Kubectl, folder: Path) -> str | None:
    """Have the cluster know LeaderWorkerSets from now on; returns why it can't. `folder` is any empty one.

    An operator that runs begins anew when the type comes or goes, as a process that nothing starts again would end.
    """
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        return "without Go LeaderWorkerSet's module can't be had"
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return f"LeaderWorkerSet's module can't be had: {done.stdout[-300:]}{done.stderr[-300:]}"
    told = json.loads(done.stdout)
    assert told["Sum"] == SUM
    definition = Path(told["Dir"]) / "config" / "crd" / "bases" / "leaderworkerset.x-k8s.io_leaderworkersets.yaml"
    kubectl("apply", "--server-side", "-f", str(definition))
    # While it has no conditions at all, a wait for one of them is an error.
    kubectl("wait", "--for=jsonpath={.status.conditions[0].type}", CRD, "--timeout=30s")
    kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    return None


@contextmanager
def leader_worker_sets(kubectl: Kubectl, folder: Path) -> Iterator[None]:
    """Have the cluster know LeaderWorkerSets until the block ends; while no operator runs on it."""
    if why := define_leader_worker_sets(kubectl, folder):
        pytest.skip(why)
    yield
    kubectl("delete", CRD, "--ignore-not-found", "--timeout=60s")
