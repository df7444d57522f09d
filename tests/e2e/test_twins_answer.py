"""The main promise: two doctors' twins share an engine, each answers in its own way, and it can be proved which did."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Clinic, http

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
TWINS = ("dr-indra-gurung", "dr-tomas-okafor")


def test_the_demo_prints_both_answers_digests_and_tables(clinic: Clinic) -> None:
    for twin in TWINS:
        first = clinic.get("twin", twin)["spec"]["adapter"]["digest"].removeprefix("sha256:")
        assert f"sha256:{first[:12]}" in clinic.demo_output
        assert f"{twin}-{first[:8]}" in clinic.demo_output
    assert "Dr. Indra Gurung" in clinic.demo_output
    assert "SERVING" in clinic.demo_output
    assert "SLOTS" in clinic.demo_output


def test_every_twin_is_ready_and_verified_on_every_pod(clinic: Clinic) -> None:
    for twin in TWINS:
        assert clinic.is_true("twin", twin, "Ready")
        assert clinic.is_true("twin", twin, "Serving")
        pods = clinic.get("twin", twin)["status"]["pods"]
        assert pods["desired"] == pods["verified"] == len(clinic.pods("engine"))
    assert clinic.is_true("mp", "clinic", "Ready")


def test_the_twins_answer_differently_and_name_the_weights_that_did(clinic: Clinic) -> None:
    answers = {twin: clinic.ask(twin, max_tokens=60) for twin in TWINS}
    for twin, answer in answers.items():
        assert answer.status == 200, answer.body
        assert answer.headers["x-twin-adapter-digest"] == clinic.get("twin", twin)["status"]["activeVersion"]["digest"]
        assert answer.json["model"] == twin
    assert answers[TWINS[0]].text != answers[TWINS[1]].text


def test_without_the_token_nobody_is_answered(clinic: Clinic) -> None:
    body = {"model": TWINS[0], "messages": [{"role": "user", "content": "hello"}]}
    for token in (None, "wrong"):
        assert http("POST", f"{clinic.miner}/v1/chat/completions", body=body, token=token).status == 401


def test_kubectl_wait_and_describe_tell_health(clinic: Clinic) -> None:
    clinic.kubectl("wait", "--for=condition=Ready", "twin", "--all", "-n", "doctors", "--timeout=5s")
    described = clinic.kubectl("describe", "twin", TWINS[0], "-n", "doctors").stdout
    assert "Events:" in described
