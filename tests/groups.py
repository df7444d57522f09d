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


@contextmanager
def leader_worker_sets(kubectl: Kubectl, folder: Path) -> Iterator[None]:
    """Have the cluster know LeaderWorkerSets; `folder` is any empty one."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("without Go LeaderWorkerSet's module can't be had")
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"LeaderWorkerSet's module can't be had: {done.stdout[-300:]}{done.stderr[-300:]}")
    told = json.loads(done.stdout)
    assert told["Sum"] == SUM
    definition = Path(told["Dir"]) / "config" / "crd" / "bases" / "leaderworkerset.x-k8s.io_leaderworkersets.yaml"
    kubectl("apply", "--server-side", "-f", str(definition))
    # While it has no conditions at all, a wait for one of them is an error.
    kubectl("wait", "--for=jsonpath={.status.conditions[0].type}", CRD, "--timeout=30s")
    kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    yield
    kubectl("delete", CRD, "--ignore-not-found", "--timeout=60s")
