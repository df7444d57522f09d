"""A validator's gateway on a real cluster: three miners answer a patient, the best is given, proven and rated."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import browser
from demo.gateway import MINERS, NAME, ORIGIN
from demo.miners import CARELESS, SECOND
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


def _gateway_pods(desk: Clinic) -> list[str]:
    selector = f"bettertherapy.io/validator={NAME},bettertherapy.io/component=gateway"
    found = json.loads(desk.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json").stdout)["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]
