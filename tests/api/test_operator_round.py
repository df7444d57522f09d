"""ValidatorRounds at a real API server: what it refuses, what can't change, and which columns it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Kubectl

pytestmark = pytest.mark.cluster


def round_object(name: str = "r1", **spec: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "bettertherapy.io/v1alpha1",
            "kind": "ValidatorRound",
            "metadata": {"name": name},
            "spec": {"validatorRef": {"name": "clinic"}, **spec},
        }
    )


@pytest.fixture
def create(kubectl: Kubectl, namespace: str) -> Callable[..., Any]:
    """Create a round; returns what kubectl says."""

    def made(name: str = "r1", **spec: Any) -> Any:
        return kubectl("create", "-n", namespace, "-f", "-", stdin=round_object(name, **spec), check=False)

    return made


def test_a_round_is_taken_with_its_defaults(create: Callable[..., Any], kubectl: Kubectl, namespace: str) -> None:
    done = create(seed=4294967295, twins=["dr-a"])
    assert done.returncode == 0, done.stderr
    spec = json.loads(kubectl("get", "round", "r1", "-n", namespace, "-o", "json").stdout)["spec"]
    assert (spec["deadlineSeconds"], spec["retries"], spec["ttlSeconds"]) == (1800, 3, 604800)


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("r1", {"seed": -1}, "seed"),
        ("r1", {"seed": 4294967296}, "seed"),
        ("r1", {"seed": 1.5}, "seed"),
        ("r1", {"twins": []}, "twins"),
        ("r1", {"twins": ["dr-a", "dr-a"]}, "Duplicate"),
        ("r1", {"twins": ["Dr A"]}, "twins"),
        ("r1", {"challengeDigest": "sha256:x"}, "challengeDigest"),
        ("r1", {"deadlineSeconds": 59}, "deadlineSeconds"),
        ("r1", {"retries": 21}, "retries"),
        ("r1", {"ttlSeconds": 0}, "ttlSeconds"),
        ("r1", {"validatorRef": {"name": "A"}}, "validatorRef"),
        ("r.1", {}, "must not contain dots"),
        ("x" * 55, {}, "at most 54 characters"),
    ],
)
def test_what_is_wrong_is_refused_in_words(
    create: Callable[..., Any], name: str, spec: dict[str, Any], why: str
) -> None:
    done = create(name, **spec)
    assert done.returncode != 0
    assert why in done.stderr


def test_a_rounds_spec_cannot_change(create: Callable[..., Any], kubectl: Kubectl, namespace: str) -> None:
    create(seed=1)
    for patch in ('{"spec":{"seed":2}}', '{"spec":{"seed":null}}', '{"spec":{"twins":["dr-b"]}}'):
        done = kubectl("patch", "round", "r1", "-n", namespace, "--type=merge", "-p", patch, check=False)
        assert done.returncode != 0
        assert "create another ValidatorRound instead" in done.stderr


def test_columns_show_what_a_person_asks_for(create: Callable[..., Any], kubectl: Kubectl, namespace: str) -> None:
    create()
    complete = {
        "type": "Complete",
        "status": "True",
        "reason": "ResultsStored",
        "message": "m",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {
        "scored": "18/20",
        "best": "uid 7, 91%",
        "duration": "3m12s",
        "weights": {"state": "Revealed", "reason": "InForce"},
        "conditions": [complete],
    }
    patch = json.dumps({"status": status})
    kubectl("patch", "round", "r1", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    head, line = kubectl("get", "rounds", "-n", namespace).stdout.splitlines()
    assert head.split() == ["NAME", "VALIDATOR", "COMPLETE", "SCORED", "BEST", "WEIGHTS", "DURATION", "AGE"]
    for part in ("clinic", "True", "18/20", "uid 7, 91%", "Revealed", "3m12s"):
        assert part in line
    selected = kubectl(
        "get", "rounds", "-n", namespace, "--field-selector", "spec.validatorRef.name=clinic", "-o", "json"
    )
    assert [each["metadata"]["name"] for each in json.loads(selected.stdout)["items"]] == ["r1"]
