"""A validator's gateway on a real cluster: three miners answer a patient, the best is given, proven and rated."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from demo import browser
from demo.files import Volume
from demo.gateway import MINERS, NAME, ORIGIN
from demo.installation import STORE_CLAIM
from demo.kube import Kube
from demo.miners import CARELESS, SECOND
from imagebuilder import Catalog
from localcluster import Cluster
from tests.conftest import ROOT
from tests.e2e.conftest import NAMESPACE, Answer, Clinic, eventually, http, run_demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
TWIN = "dr-indra-gurung"
PICTURE = ROOT / "build" / "demo" / "page.png"
QUESTION = "I have had a headache for two days."


@pytest.fixture(scope="session")
def desk(clinic: Clinic) -> Clinic:
    """Run the demo up to its gateway on the same cluster, and return what it left."""
    clinic.await_serving(TWIN)
    PICTURE.unlink(missing_ok=True)
    return Clinic(clinic.kubectl, run_demo("--until", "gateway"))


@pytest.fixture
def url(desk: Clinic) -> str:
    """The gateway's Service, as clients in the cluster use it; this machine has a route to its address."""
    return f"http://{desk.get('service', f'{NAME}-gateway')['spec']['clusterIP']}"


@pytest.fixture
def key(desk: Clinic) -> str:
    return base64.b64decode(desk.get("secret", f"{NAME}-gateway-keys")["data"]["key"]).decode()


def ask(url: str, key: str, **more: Any) -> Answer:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": TWIN, "messages": messages, "temperature": 0, "max_tokens": 60, **more}
    return http("POST", f"{url}/v1/chat/completions", body=body, token=key, timeout=180)


def scores(output: str) -> dict[str, float]:
    """The table of the miners, as the demo prints it."""
    return {
        match[1]: float(match[2])
        for match in re.finditer(
            rf"^(clinic|{SECOND.name}|{CARELESS.name})\s+\d+\s+([01]\.\d\d)\s", output, re.MULTILINE
        )
    }


def test_the_demo_shows_the_best_of_three_with_the_scores_of_all(desk: Clinic) -> None:
    shown = desk.demo_output.partition("A patient asks by the gateway")[2]
    found = scores(shown)
    assert set(found) == {"clinic", SECOND.name, CARELESS.name}, shown
    assert found[CARELESS.name] < min(found["clinic"], found[SECOND.name]), "it has a system prompt for something else"
    digest = desk.get("twin", TWIN)["status"]["activeVersion"]["digest"].removeprefix("sha256:")
    assert f"sha256:{digest[:12]}" in shown
    assert "receipt verified" in shown
    assert "rate the answer with 5 stars" in shown
    assert f"The page is at {ORIGIN}" in shown


def test_the_demo_leaves_a_picture_of_its_page_or_says_why_not(desk: Clinic) -> None:
    if (why := browser.obstacle()) is not None:
        assert f"no picture of the page: {why}" in desk.demo_output
        pytest.skip(why)
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert str(PICTURE) in re.sub(r"\s+", "", desk.demo_output)


def test_the_validator_says_that_it_answers(desk: Clinic) -> None:
    for condition in ("Ready", "GatewayReady", "TwinsPublished", "LedgerReachable"):
        assert desk.is_true("validator", NAME, condition), desk.get("validator", NAME)["status"]
    status = desk.get("validator", NAME)["status"]
    assert (status["readyReplicas"], status["twins"]) == (1, 2)


def test_kubectl_asks_by_the_gateway_and_checks_the_receipt(desk: Clinic, kubeconfig: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "kubectl_twin", "ask", TWIN, QUESTION, "-n", NAMESPACE, "--validator", NAME,
            "--max-tokens", "40", "--timeout", "180",
        ],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5
    assert "receipt verified" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line[:1].isdigit()]) == MINERS


def test_a_key_is_needed_and_another_twins_name_is_unknown(desk: Clinic, url: str, key: str) -> None:
    assert ask(url, "bt-wrong").status == 401
    assert ask(url, key, model="dr-nobody").status == 404
    listed = http("GET", f"{url}/v1/models", token=key)
    assert TWIN in [model["id"] for model in listed.json["data"]]


def test_what_was_asked_and_rated_outlives_the_gateways_pod(desk: Clinic, url: str, key: str) -> None:
    answer = ask(url, key)
    assert answer.status == 200, answer.body
    more = answer.json["bettertherapy"]
    rating = {"sessionId": more["sessionId"], "answerId": more["answerId"], "questionId": more["questionId"]}
    assert http("POST", f"{url}/v1/ratings", body={**rating, "stars": 4}, token=key).status == 201
    before = _gateway_pods(desk)
    desk.kubectl("delete", "pod", *before, "-n", NAMESPACE, "--wait=true", "--timeout=240s", timeout=260)
    eventually(
        lambda: desk.is_true("validator", NAME, "Ready") and not set(before) & set(_gateway_pods(desk)),
        seconds=300, what="another gateway",
    )  # fmt: skip
    # Found in the ledger, with the same secret of sessions and the same key: the same rating again counts once.
    again = http("POST", f"{url}/v1/ratings", body={**rating, "stars": 4}, token=key)
    assert (again.status, again.json["stars"]) == (200, 4), again.body


def test_prometheus_reads_a_gateways_metrics_at_their_own_port_and_patients_do_not(desk: Clinic, url: str) -> None:
    assert "bettertherapy_gateway_miners " in metrics(desk)
    assert http("GET", f"{url}/metrics").status == 404


def metrics(desk: Clinic) -> str:
    """What the gateway's pod shows where its annotations tell Prometheus to look."""
    [name] = _gateway_pods(desk)
    pod = desk.get("pod", name)
    told = pod["metadata"]["annotations"]
    assert told["prometheus.io/scrape"] == "true"
    return http("GET", f"http://{pod['status']['podIP']}:{told['prometheus.io/port']}{told['prometheus.io/path']}").body


DATASETS = f"{NAME}-datasets"
HANDED_OVER = "handed-over"
"""Folder of the store's claim, beside what the twins learn from."""


@pytest.fixture
def handing_over(desk: Clinic) -> Iterator[None]:
    """Let the validator bring conversations to a store, at no hour that comes while the test runs."""
    tasks = {
        "store": {"uri": f"pvc://{STORE_CLAIM}/{HANDED_OVER}"},
        "schedule": "0 0 29 2 *",
        "timeZone": "Asia/Kathmandu",
    }
    patch(desk, tasks)
    yield
    desk.kubectl("delete", "job", "datasets-now", "datasets-today", "-n", NAMESPACE, "--ignore-not-found")
    patch(desk, None)


def patch(desk: Clinic, tasks: dict[str, Any] | None) -> None:
    change = json.dumps({"spec": {"fineTuneTasks": tasks}})
    desk.kubectl("patch", "validator", NAME, "-n", NAMESPACE, "--type=merge", "-p", change)


def ends(desk: Clinic, job: str) -> dict[str, Any]:
    """Wait until a Job is complete, and return what its pod said; where it fails, with its pods' own words."""

    def over() -> bool:
        conditions = desk.get("job", job)["status"].get("conditions", [])
        return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)

    def words() -> str:
        found = desk.kubectl("describe", "pods", "-n", NAMESPACE, "-l", f"job-name={job}", check=False).stdout
        logs = desk.kubectl("logs", "-n", NAMESPACE, "-l", f"job-name={job}", "--tail=20", check=False).stdout
        return f"{found[-3000:]}\n{logs}"

    eventually(over, seconds=400, what=f"the end of Job {job}", meanwhile=words)
    assert desk.get("job", job)["status"].get("succeeded") == 1, words()
    said: dict[str, Any] = json.loads(desk.kubectl("logs", f"job/{job}", "-n", NAMESPACE).stdout)
    return said


def test_what_a_patient_agreed_to_teach_is_brought_to_the_store(
    desk: Clinic, url: str, key: str, kubectl_binary: str, handing_over: None
) -> None:
    session = http("POST", f"{url}/v1/sessions", body={"model": TWIN, "consent": True, "user": "p"}, token=key).json
    asked = {"model": TWIN, "messages": [{"role": "user", "content": QUESTION}], "user": "p", "max_tokens": 40}
    headers = {"x-session-id": session["id"]}
    answer = http("POST", f"{url}/v1/chat/completions", body=asked, token=key, timeout=180, headers=headers)
    assert answer.status == 200, answer.body
    rating = {"sessionId": session["id"], "answerId": answer.json["bettertherapy"]["answerId"], "stars": 5, "user": "p"}
    assert http("POST", f"{url}/v1/ratings", body=rating, token=key).status == 201
    today = datetime.now(ZoneInfo("Asia/Kathmandu")).date().isoformat()
    eventually(
        lambda: re.search(r"^bettertherapy_gateway_ledger_waiting 0\.0$", metrics(desk), re.MULTILINE),
        seconds=60, what="all of it in the ledger",
    )  # fmt: skip
    eventually(
        lambda: desk.kubectl("get", "cronjob", DATASETS, "-n", NAMESPACE, check=False).returncode == 0,
        seconds=60, what="the CronJob",
    )  # fmt: skip
    assert desk.condition("validator", NAME, "DatasetsWritten").get("reason") == "DatasetsAwaited"
    made = ("create", "job", f"--from=cronjob/{DATASETS}", "-n", NAMESPACE)
    desk.kubectl(*made, "datasets-now")
    assert ends(desk, "datasets-now")["failed"] == {}
    eventually(
        lambda: desk.is_true("validator", NAME, "DatasetsWritten"), seconds=120, what="that the operator says so",
        meanwhile=lambda: desk.condition("validator", NAME, "DatasetsWritten"),
    )  # fmt: skip
    assert desk.get("validator", NAME)["status"]["lastDatasetsTime"]
    # It brings whole days, and today's isn't over: the same pod once more, told which day is to be the last.
    job = json.loads(desk.kubectl(*made, "datasets-today", "--dry-run=client", "-o", "json").stdout)
    job["spec"]["template"]["spec"]["containers"][0]["args"].append(f"--day={today}")
    desk.apply(job)
    said = ends(desk, "datasets-today")
    assert said["failed"] == {}, said
    assert said["lines"] >= 1, said
    kube = Kube(kubectl_program=kubectl_binary, helm_program="helm", kubeconfig=Cluster("test").kubeconfig_path)
    with Volume(kube, namespace=NAMESPACE, image=Catalog().references()["neuron"], claim=STORE_CLAIM) as store:
        written = store.read(f"{store.root}/{HANDED_OVER}/{TWIN}/interactions/{today}.jsonl")
    assert QUESTION in written


def _gateway_pods(desk: Clinic) -> list[str]:
    selector = f"bettertherapy.io/validator={NAME},bettertherapy.io/component=gateway"
    found = json.loads(desk.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json").stdout)["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]
