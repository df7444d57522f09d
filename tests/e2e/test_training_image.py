"""The trainer's and the examiner's own tests, run where torch is: in the image of both, as a pod of the cluster."""

from __future__ import annotations

import importlib.metadata
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagebuilder import Catalog
from tests.conftest import ROOT
from tests.e2e.conftest import NAMESPACE, Clinic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
PYTEST = ("pytest", "pytest-asyncio", "pluggy", "iniconfig", "packaging", "pygments")
TESTS = ("tests/unit/trainer", "tests/unit/examiner")
FOLDERS = (*TESTS, "tests/unit/scoring", "tests/unit/store", "local/demo/conversations")
POD = "trainer-tests"
UNPACK = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/luggage')"


def pod(image: str) -> dict[str, object]:
    """A pod like the trainer's Job, which waits to be told what to run."""
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
                    "name": "trainer",
                    "image": image,
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "env": [
                        {"name": "HOME", "value": "/tmp"},
                        {"name": "PYTHONPATH", "value": "/luggage"},
                        {"name": "HF_HUB_OFFLINE", "value": "1"},
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


def luggage() -> bytes:
    """Both's tests, what they read, and pytest itself, which is pure Python: as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in PYTEST:
            for file in importlib.metadata.files(name) or ():
                if not str(file).startswith("..") and file.suffix != ".pyc":
                    archive.add(str(file.locate()), str(file))
        for folder in FOLDERS:
            archive.add(ROOT / folder, folder)
        # What the examiner counts is given to the operator's own verdict.
        archive.add(ROOT / "operator" / "twin_operator", "twin_operator")
    return buffer.getvalue()


def test_trainers_and_examiners_tests_pass_in_their_image(
    clinic: Clinic, kubectl_binary: str, kubeconfig: Path
) -> None:
    image = Catalog().references()["trainer-cpu"]
    clinic.apply(pod(image))
    try:
        clinic.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "-n", NAMESPACE, "--timeout=60s", timeout=70)
        inside = [kubectl_binary, "--kubeconfig", str(kubeconfig), "exec", "-i", POD, "-n", NAMESPACE, "--", "python"]
        subprocess.run([*inside, "-c", UNPACK], input=luggage(), check=True, timeout=120)
        done = subprocess.run(
            [*inside, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir=/luggage", "-p", "no:cacheprovider",
             "-o", "asyncio_mode=auto", "--import-mode=importlib", *(f"/luggage/{each}" for each in TESTS)],
            capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        summary = done.stdout.strip().splitlines()[-1]
        passed = re.search(r"(\d+) passed", summary)
        assert passed is not None
        assert int(passed[1]) > 30
        assert "skipped" not in summary
    finally:
        clinic.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")
