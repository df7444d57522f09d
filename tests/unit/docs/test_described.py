"""What `kubectl explain` says of what is absent, and of defaults, is what the operator and the programs do then."""

from __future__ import annotations

import re
from typing import Any

import pytest

from neurons.examiner.arguments import ANSWER_TOKENS
from neurons.miner.limits import Limits
from neurons.miner.settings import Settings as MinerSettings
from neurons.trainer.arguments import KL_WEIGHT, REHEARSAL_PERCENT, VALIDATION_PERCENT, parser
from neurons.trainer.schedule import DEFAULT_EPOCHS
from tests.unit.docs.schemas import definitions, fields_of
from twin_operator.kinds.miner_pool import engine_deployment, miner_deployment
from twin_operator.kinds.podspec import disk
from twin_operator.kinds.validator import datasets_cronjob, gateway_deployment, made_once
from twin_operator.kinds.validator_round import jobs

RESOURCES: dict[tuple[str, str], Any] = {
    ("MinerPool", "spec.miner.resources"): miner_deployment.RESOURCES,
    ("MinerPool", "spec.agent.resources"): engine_deployment.AGENT_RESOURCES,
    ("Validator", "spec.gateway.resources"): gateway_deployment.RESOURCES,
    ("Validator", "spec.rounds.resources"): jobs.RESOURCES,
    ("Validator", "spec.fineTuneTasks.resources"): datasets_cronjob.RESOURCES,
}


def said(kind: str, path: str) -> str:
    return re.sub(r"\s+", " ", fields_of(kind)[path]["description"])


@pytest.mark.parametrize(("kind", "path"), list(RESOURCES))
def test_resources_that_are_absent_are_those_that_are_told(kind: str, path: str) -> None:
    given = RESOURCES[kind, path]
    asked, most = given["requests"], given["limits"]["memory"]
    assert f"absent means {asked['cpu']} CPU and {asked['memory']}, at most {most}" in said(kind, path)


def test_every_other_sentence_of_that_form_is_known_here() -> None:
    """So that a new field with resources of its own is held to them, too."""
    told = {
        (kind, path)
        for kind in definitions()
        for path, schema in fields_of(kind).items()
        if re.search(r"absent means \d+m CPU", re.sub(r"\s+", " ", schema.get("description", "")))
    }
    assert told == set(RESOURCES)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("learningRate", 'default "0.0002"'),
        ("preferenceLearningRate", 'default "0.000005"'),
        ("epochs", f"default {DEFAULT_EPOCHS}."),
        ("batchSize", "default 4"),
        ("rehearsalPercent", f"default {REHEARSAL_PERCENT}"),
        ("klWeight", f'default "{KL_WEIGHT}"'),
        ("validationPercent", f"default {VALIDATION_PERCENT}"),
    ],
)
def test_hyperparameters_that_are_absent_are_the_trainers(path: str, sentence: str) -> None:
    assert sentence in said("DoctorTwin", f"spec.fineTune.hyperparameters.{path}")
    words = {"preferenceLearningRate": "preferenceRate"}.get(path, path)
    flag = "--" + re.sub(r"([A-Z])", lambda found: f"-{found[1].lower()}", words)
    actions = [action for action in all_actions(parser()) if flag in action.option_strings]
    number = re.findall(r"[\d.]*\d", sentence)[0]
    assert actions
    assert {float(action.default) for action in actions if action.default is not None} <= {float(number)}


def all_actions(program: Any) -> list[Any]:
    found = []
    for action in program._actions:
        found.append(action)
        for below in getattr(action, "choices", None) or ():
            if hasattr(action.choices, "values") and hasattr(action.choices[below], "_actions"):
                found += all_actions(action.choices[below])
    return found


@pytest.mark.parametrize(
    ("kind", "path", "sentence"),
    [
        ("MinerPool", "spec.miner.limits.messages", f"absent means {Limits.messages}"),
        ("MinerPool", "spec.miner.limits.answers", f"absent means {Limits.answers}"),
        ("MinerPool", "spec.miner.limits.clientRequests", f"absent means {MinerSettings.client_requests}"),
        ("MinerPool", "spec.miner.limits.clientMemoryPercent", f"absent means {MinerSettings.client_memory_percent}"),
        ("MinerPool", "spec.agent.resources", f"absent means {disk.ADAPTERS_SIZE}"),
        (
            "MinerPool", "spec.cache.sizeLimit",
            f"absent means {disk.MODEL_SIZES['CPU']} with device CPU and {disk.MODEL_SIZES['GPU']} with GPU",
        ),
        ("Validator", "spec.ledger.size", f"absent means {made_once.STATE_SIZE}"),
    ],
)  # fmt: skip
def test_what_is_absent_is_as_told(kind: str, path: str, sentence: str) -> None:
    assert sentence in said(kind, path)


def test_the_longest_examined_answer_is_the_examiners() -> None:
    assert fields_of("DoctorTwin")["spec.gate.answerTokens"]["default"] == ANSWER_TOKENS
