"""Fixtures shared by all suites: a kubeconfig of a real API server, a fresh namespace, kubectl."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business: a busy one fails no test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parents[1]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write half characters that a test logged or printed as escapes: a worker can't send them on, and would end."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """The kubeconfig of a cluster that tests may use: $KUBECONFIG, or the local cluster named `test`."""
    if "KUBECONFIG" in os.environ:
        return Path(os.environ["KUBECONFIG"])
    from localcluster import Cluster

    cluster = Cluster("test")
    if not cluster.kubeconfig_path.exists():
        pytest.fail("no cluster to test on: run `make test`, or set KUBECONFIG to a cluster that tests may use")
    return cluster.kubeconfig_path


@pytest.fixture(scope="session")
def kubectl_binary() -> str:
    """$KUBECTL, else kubectl of the local cluster's version when it was built, else the one on PATH."""
    if "KUBECTL" in os.environ:
        return os.environ["KUBECTL"]
    from localcluster import Cluster

    try:
        return str(Cluster("test").bin("kubectl"))
    except (FileNotFoundError, RuntimeError):
        return "kubectl"


@pytest.fixture(scope="session")
def kubectl(kubeconfig: Path, kubectl_binary: str) -> Kubectl:
    """Run kubectl: `kubectl("get", "pods", stdin=None, check=True)`."""

    def run(
        *args: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [kubectl_binary, "--kubeconfig", str(kubeconfig), *args],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def crds(kubectl: Kubectl) -> None:
    """Install the CustomResourceDefinitions and admission policies, and wait until the former are served."""
    for path in sorted((ROOT / "crds").rglob("*.yaml")):
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
    kubectl(
        "wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=bettertherapy", "--timeout=30s"
    )


@pytest.fixture
def namespace(kubectl: Kubectl, crds: None) -> Iterator[str]:
    """Make a fresh namespace for one test; it is deleted afterwards."""
    name = f"t-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def namespace_once(kubectl: Kubectl, crds: None) -> Iterator[str]:
    """Make a namespace for a whole module, for tests that only try what is admitted."""
    name = f"m-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
