"""The whole product on a real kubelet: `make demo`'s own steps on the cluster `test`, then a client of its miner."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from demo.curriculum import LEARNER
from localcluster import Cluster
from tests.conftest import ROOT, Kubectl
from tests.groups import CRD as LEADER_WORKER_SETS

NAMESPACE = "doctors"
POOL = "clinic"
DEMO_SECONDS = 1500


@dataclass(frozen=True)
class Answer:
    """What came back from one HTTP request."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["message"]["content"])


def http(
    method: str, url: str, *, body: Any = None, token: str | None = None, timeout: float = 120,
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    """Send one request; an HTTP error is an Answer too, a refused connection raises OSError."""
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(
                response.status, {k.lower(): v for k, v in response.headers.items()}, response.read().decode()
            )
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode())


def eventually(
    check: Callable[[], Any], *, seconds: float, what: str, meanwhile: Callable[[], object] = lambda: ""
) -> Any:
    """Return the first truthy result of `check`; fails after `seconds` with the last one and what came `meanwhile`."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        last = check()
        if last:
            return last
        time.sleep(0.25)
    raise AssertionError(f"{what} did not come about in {seconds} s; last seen: {last} {meanwhile()}")


@dataclass(frozen=True)
class Clinic:
    """The demo's installation: its objects and its miner."""

    kubectl: Kubectl
    demo_output: str

    def get(self, kind: str, name: str, *, namespace: str = NAMESPACE) -> Any:
        return json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json").stdout)

    def pods(self, component: str) -> list[Any]:
        selector = f"bettertherapy.io/pool={POOL},bettertherapy.io/component={component}"
        found = json.loads(self.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json").stdout)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, kind: str, name: str, wanted: str) -> dict[str, str]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == wanted), {})

    def is_true(self, kind: str, name: str, wanted: str) -> bool:
        return self.condition(kind, name, wanted).get("status") == "True"

    @property
    def token(self) -> str:
        data = self.get("secret", f"{POOL}-access")["data"]
        return base64.b64decode(next(iter(data.values()))).decode()

    @property
    def as_miner(self) -> dict[str, str]:
        """By what an agent knows the pool's miners."""
        data = self.get("secret", f"{POOL}-pool-tokens")["data"]
        return {names.POOL_TOKEN_HEADER: " ".join(base64.b64decode(token).decode() for token in data.values())}

    @property
    def miner(self) -> str:
        pod = next(p for p in self.pods("miner") if p["status"].get("podIP"))
        return f"http://{pod['status']['podIP']}:8080"

    @property
    def service(self) -> str:
        """The miners' Service, as clients in the cluster use it; this machine has a route to its address."""
        return f"http://{self.get('service', f'{POOL}-miner')['spec']['clusterIP']}"

    @property
    def agent(self) -> str:
        pod = next(p for p in self.pods("engine") if p["status"].get("podIP"))
        return f"http://{pod['status']['podIP']}:8080"

    def engine_folder(self, pod: Any, volume: str) -> Path:
        """Where an emptyDir of a pod lies on this machine, which is the cluster's node."""
        folder = Cluster("test").layout.root / "kubelet" / "pods" / pod["metadata"]["uid"]
        return folder / "volumes" / "kubernetes.io~empty-dir" / volume

    def ask(self, twin: str, question: str = "I have had a headache for two days.", max_tokens: int = 24) -> Answer:
        body = {
            "model": twin,
            "max_tokens": max_tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": question}],
        }
        # Each asks as another patient: the same words in one conversation would be one version's and one pod's.
        session = {"x-session-id": uuid.uuid4().hex}
        return http("POST", f"{self.service}/v1/chat/completions", body=body, token=self.token, headers=session)

    def apply(self, *objects: Any, namespace: str = NAMESPACE) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=text)

    def await_serving(self, *twins: str, seconds: float = 300) -> None:
        """Wait until every ready engine pod holds these twins and the pool is at its size."""

        def serves() -> bool:
            sizes = self.get("mp", POOL)
            whole = sizes["status"].get("readyReplicas") == sizes["spec"]["replicas"] == len(self.pods("engine"))
            return whole and all(self.is_true("twin", twin, "AdaptersVerified") for twin in twins)

        eventually(serves, seconds=seconds, what=f"{', '.join(twins)} on every pod")


def run_demo(*arguments: str) -> str:
    """Run the demo on the cluster `test`, as `make demo` does on its own, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in {"KUBECONFIG", "KUBECTL"}}
    done = subprocess.run(
        [sys.executable, "-m", "demo", "run", "--name", "test", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEMO_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"the demo ended with {done.returncode}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")
    return done.stdout


_SHOWN = (
    ("get", "minerpools,doctortwins,finetuneruns,pods", "-A", "-o", "wide"),
    ("get", "doctortwins", "-n", NAMESPACE, "-o", "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{range .status."
     "conditions[*]}  {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}"),
    ("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp"),
    ("logs", "-n", NAMESPACE, "-l", "bettertherapy.io/component=engine", "-c", "agent", "--tail=40"),
)  # fmt: skip
"""What is looked at where a test has failed, before the next one changes it."""
_LINES = 60


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what stood in the cluster then."""
    report = yield
    run = getattr(item, "funcargs", {}).get("kubectl")
    if report.failed and run is not None:
        for command in _SHOWN:
            with suppress(subprocess.TimeoutExpired):
                lines = run(*command, check=False).stdout.splitlines()[-_LINES:]
                report.sections.append((f"kubectl {' '.join(command)[:80]}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session")
def clinic(kubectl: Kubectl) -> Clinic:
    """Run the demo up to its first answers and return what it left."""
    # What another suite applied by hand is not Helm's to upgrade.
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies", "crd"):
        kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=bettertherapy", "--ignore-not-found", "--timeout=60s")
    kubectl("delete", LEADER_WORKER_SETS, "--ignore-not-found", "--timeout=60s")  # most clusters don't know them
    return Clinic(kubectl, run_demo("--until", "answers"))


@pytest.fixture(scope="session")
def taught(clinic: Clinic) -> Clinic:
    """Run the demo once more on the same cluster, to its end, and return what it left."""
    clinic.await_serving(LEARNER.twin)
    return Clinic(clinic.kubectl, run_demo())
