"""The recorded table of what vLLM says to each kind of adapter, held against the vLLM of the engine's image."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagebuilder import Catalog
from tests.conftest import ROOT
from tests.e2e.conftest import NAMESPACE, Clinic
from tests.unit.store.adapter_kinds import KINDS, VERDICTS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
POD = "vllm-verdicts"
UNPACK = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/luggage')"


def pod(image: str) -> dict[str, object]:
    """A pod of the engine's image, which waits to be told what to run."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "engine",
                    "image": image,
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "env": [
                        {"name": "HOME", "value": "/tmp"},
                        {"name": "HF_HUB_OFFLINE", "value": "1"},
                        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
                    ],
                    "securityContext": {
                        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "luggage", "mountPath": "/luggage"},
                    ],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "luggage", "emptyDir": {}}],
        },
    }  # fmt: skip


def luggage(folder: Path) -> bytes:
    """One adapter of each kind and the program that asks vLLM, as a tar archive."""
    for name, kind in KINDS.items():
        kind.write(folder / name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, "kinds")
        archive.add(ROOT / "tests/e2e/vllm_verdicts.py", "vllm_verdicts.py")
    return buffer.getvalue()


def test_vllm_says_what_was_recorded(clinic: Clinic, kubectl_binary: str, kubeconfig: Path, tmp_path: Path) -> None:
    clinic.apply(pod(Catalog().references()["engine-cpu"]))
    try:
        clinic.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "-n", NAMESPACE, "--timeout=60s", timeout=70)
        inside = [kubectl_binary, "--kubeconfig", str(kubeconfig), "exec", "-i", POD, "-n", NAMESPACE, "--", "python"]
        subprocess.run([*inside, "-c", UNPACK], input=luggage(tmp_path / "kinds"), check=True, timeout=120)
        done = subprocess.run(
            [*inside, "/luggage/vllm_verdicts.py", "/luggage/kinds"],
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout.splitlines()[-1]) == json.loads(VERDICTS.read_text())
    finally:
        clinic.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")
