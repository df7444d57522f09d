"""A round on a real cluster: three miners are asked the same, scored and ranked; the local subnet has the weights."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import rounds
from demo.curriculum import MOVED_CLINIC
from demo.gateway import MINERS, NAME
from demo.miners import CARELESS, SECOND
from demo.subnet import PORT, RELEASE
from tests.e2e.conftest import NAMESPACE, Clinic, run_demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
TWIN = "dr-indra-gurung"
ROW = re.compile(rf"^(clinic|{SECOND.name}|{CARELESS.name})\s+(\d+)\s+(\d+)%\s+(\d+\.\d)%$", re.MULTILINE)


@pytest.fixture(scope="session")
def examined(clinic: Clinic) -> Clinic:
    """Run the demo up to its round on the same cluster, and return what it left."""
    clinic.await_serving(TWIN)
    return Clinic(clinic.kubectl, run_demo("--until", "round"))


@pytest.fixture
def made(examined: Clinic) -> Any:
    """The newest round."""
    found = json.loads(examined.kubectl("get", "rounds", "-n", NAMESPACE, "-o", "json").stdout)["items"]
    return max(found, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))


@pytest.fixture
def uids(examined: Clinic) -> dict[str, int]:
    """The miners' UIDs by what the demo calls them."""
    shown = examined.demo_output.partition("What the chain has of it:")[2]
    found = {match[1]: int(match[2]) for match in ROW.finditer(shown)}
    assert set(found) == {"clinic", SECOND.name, CARELESS.name}, shown
    return found


def conditions(made: Any) -> dict[str, str]:
    return {each["type"]: each["status"] for each in made["status"]["conditions"]}


def twin(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kubectl_twin", *arguments, "-n", NAMESPACE],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "COLUMNS": "160"},
        capture_output=True, text=True, timeout=450, check=False,
    )  # fmt: skip


def test_a_round_is_complete_with_every_miner_scored_and_its_digest_shown(examined: Clinic, made: Any) -> None:
    status = made["status"]
    said = conditions(made)
    assert (said["Complete"], said["QuorumReached"], said["WeightsSubmitted"]) == ("True", "True", "True"), status
    assert "Failed" not in said
    assert status["scored"] == f"{MINERS}/{MINERS}"
    assert status["challengeDigest"] == rounds.questions_digest()
    assert re.fullmatch("sha256:[0-9a-f]{64}", status["resultsDigest"])
    assert status["resultsDigest"] in examined.demo_output
    assert re.search(rf"^{made['metadata']['name']}\s+{NAME}\s+True\s+3/3\s", examined.demo_output, re.MULTILINE)


def test_the_badly_set_up_miner_is_ranked_below_the_good_ones(made: Any, uids: dict[str, int]) -> None:
    scores = {each["uid"]: each["scorePercent"] for each in made["status"]["top"]}
    assert made["status"]["top"][-1]["uid"] == uids[CARELESS.name]
    assert scores[uids[CARELESS.name]] < min(scores[uids["clinic"]], scores[uids[SECOND.name]])


def test_the_chain_has_the_rounds_weights(examined: Clinic, made: Any, uids: dict[str, int]) -> None:
    told = made["status"]["weights"]
    assert (told["state"], told["reason"]) == ("Revealed", "InForce")
    url = f"http://{examined.get('service', RELEASE)['spec']['clusterIP']}:{PORT}"
    shown = re.search(rf"^{made['metadata']['name']}  validator (\w{{48}}) ", examined.demo_output, re.MULTILINE)
    assert shown is not None, examined.demo_output
    weights = asyncio.run(rounds.weights_on_chain(url, shown[1]))
    given = {each["uid"]: each.get("weightPercent", 0) for each in made["status"]["top"]}
    assert weights.keys() <= given.keys()
    for uid, percent in given.items():
        assert abs(100 * weights.get(uid, 0.0) - percent) < 1, (weights, given)
    assert weights.get(uids[CARELESS.name], 0.0) < min(weights[uids["clinic"]], weights[uids[SECOND.name]])
    assert examined.get("validator", NAME)["status"]["weights"]["round"] == made["metadata"]["name"]


def test_the_stored_answers_give_the_same_results_again(kubeconfig: Path, made: Any) -> None:
    assert made["status"]["recomputed"]["same"] is True
    name, digest = made["metadata"]["name"], made["status"]["resultsDigest"]
    done = twin(kubeconfig, "round", name, "--recompute", "--timeout", "400", "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    again = json.loads(done.stdout)
    assert (again["digest"], again["before"], again["same"]) == (digest, digest, True)


def test_kubectl_says_who_scored_what_and_why(kubeconfig: Path, made: Any, uids: dict[str, int]) -> None:
    name = made["metadata"]["name"]
    whole = twin(kubeconfig, "round", name)
    assert whole.returncode == 0, whole.stderr
    assert all(re.search(rf"^{uid}\s", whole.stdout, re.MULTILINE) for uid in uids.values()), whole.stdout
    questions = [json.loads(line) for line in rounds.QUESTIONS.read_text().splitlines()]
    one = twin(kubeconfig, "round", name, "--miner", str(uids["clinic"]), "--output", "json")
    assert one.returncode == 0, one.stderr
    view = json.loads(one.stdout)
    asked = {each["question"] for each in view["answers"]}
    assert asked >= {each["question"] for each in questions}, "all of the clinic's own"
    patients = {each["messages"][0]["content"] for each in MOVED_CLINIC.lines}
    assert len(asked & patients) > 0, "and some of yesterday's patients"
    assert all(each["answer"] for each in view["answers"]), view
    # What nobody can grade, as a patient's question that the doctor corrected nothing of, counts for nobody.
    graded = [each for each in view["answers"] if each["question"] in {one["question"] for one in questions}]
    assert all(each.get("score") is not None for each in graded), view


def test_a_round_shows_nothing_of_its_questions_and_answers(examined: Clinic, made: Any) -> None:
    name = made["metadata"]["name"]
    selector = f"bettertherapy.io/round={name}"
    logs = examined.kubectl("logs", "-n", NAMESPACE, "-l", selector, "--tail=-1", check=False).stdout
    events = examined.kubectl("get", "events", "-n", NAMESPACE, "-o", "json").stdout
    for line in rounds.QUESTIONS.read_text().splitlines():
        question = json.loads(line)["question"]
        assert question not in logs
        assert question not in json.dumps(made)
        assert question not in events
