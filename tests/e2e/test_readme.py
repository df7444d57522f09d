"""What the README tells a newcomer to type after the demo works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import Cluster
from tests.conftest import ROOT
from tests.e2e.conftest import NAMESPACE, Clinic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
RUN_SECONDS = 300
"""An answer may go on to the default's end, at a few tokens a second where two cores do all else as well."""


def commands() -> list[str]:
    """The kubectl lines of the block below "Go on"."""
    block = re.search(r"Go on:\n\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line.startswith("kubectl")]


def run(command: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell with .venv/bin in front of its PATH does."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": path}
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )


TELLING_OF_LEARNING = [line for line in commands() if " history " in line or " lineage " in line]


@pytest.mark.parametrize("command", [line for line in commands() if line not in TELLING_OF_LEARNING])
def test_the_command_works(clinic: Clinic, kubeconfig: Path, command: str) -> None:
    done = run(command, kubeconfig)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


@pytest.mark.parametrize("command", TELLING_OF_LEARNING)
def test_the_command_tells_of_learning(taught: Clinic, kubeconfig: Path, command: str) -> None:
    done = run(command, kubeconfig)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


def test_an_answer_streams_and_names_the_adapter_that_gave_it(clinic: Clinic, kubeconfig: Path) -> None:
    question = f'dr-indra-gurung "I have had a headache for two days." --max-tokens 40 -n {NAMESPACE}'
    done = run(f"kubectl twin ask {question}", kubeconfig)
    digest = clinic.get("twin", "dr-indra-gurung")["status"]["activeVersion"]["digest"]
    assert done.returncode == 0, done.stderr
    assert digest.removeprefix("sha256:")[:12] in done.stdout + done.stderr


def test_a_twin_that_is_not_there_is_said_in_one_sentence(clinic: Clinic, kubeconfig: Path) -> None:
    done = run(f'kubectl twin ask dr-nobody "Hello?" -n {NAMESPACE}', kubeconfig)
    assert done.returncode == 1
    assert "dr-nobody" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("release", "namespace"), [("twin-operator", "twin-system"), ("clinic", NAMESPACE)])
def test_helm_test_passes(clinic: Clinic, kubeconfig: Path, release: str, namespace: str) -> None:
    helm = Cluster("test").bin("helm")
    done = run(f"{helm} test {release} -n {namespace} --logs --timeout 3m", kubeconfig)
    assert done.returncode == 0, done.stdout + done.stderr
