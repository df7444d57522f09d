"""A round's Jobs: what each is told, what each may, and beside which gateway it runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bettertherapy_api.round_progress import RoundOrder, read_document
from neurons.validator.rounds.settings import parse
from tests.unit.operator.rounds.samples import ALL, STARTED, round_
from tests.unit.operator.samples import digest
from tests.unit.operator.validator.validators import POSTGRES, validator
from twin_operator.kinds.validator_round.jobs import build_recompute_job, build_round_job, build_weights_job
from twin_operator.kinds.validator_round.network_policy import build_network_policy
from twin_operator.kinds.validator_round.order import order_of
from twin_operator.kinds.validator_round.role import build_role
from twin_operator.settings import Images

IMAGES = Images(neuron="n:1")


def job(which: str = "run", **spec: Any) -> Any:
    made, owner = round_(status=STARTED), validator(**{**ALL, **spec})
    if which == "recompute":
        return build_recompute_job(made, owner, IMAGES, token="t")
    build = build_round_job if which == "run" else build_weights_job
    return build(made, owner, IMAGES, prometheus_url="http://prometheus:9090")


def pod(which: str = "run", **spec: Any) -> Any:
    return job(which, **spec)["spec"]["template"]["spec"]


def variables(found: Any) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in found["containers"][0]["env"]}


def mounts(found: Any) -> set[str]:
    return {each["name"] for each in found["containers"][0]["volumeMounts"]}


def test_each_job_is_told_its_part_of_the_order() -> None:
    for which in ("run", "weights", "recompute"):
        [container] = pod(which)["containers"]
        assert container["command"] == ["python", "-m", "neurons.validator.rounds", which]
        assert container["args"][0] == "--order=/etc/bettertherapy/round/round.json"
        assert container["image"] == "n:1"
    assert pod("recompute")["containers"][0]["args"][1:] == ["--token=t"]


def test_a_round_waits_for_answers_as_the_gateway_does_and_spreads_its_questions_as_the_validator_says() -> None:
    given = pod(gateway={"deadlineSeconds": 120}, rounds={"spreadPercent": 15})["containers"][0]["args"][1:]
    assert given == ["--answer-seconds=120", "--ask-share=0.15"]
    assert pod()["containers"][0]["args"][1:] == ["--answer-seconds=30", "--ask-share=0.5"]
    read = parse(["run", *given], {"LEDGER_URL": "sqlite:////l.db"})
    assert (read.answer_seconds, read.ask_share) == (120, 0.15)
    assert pod("weights")["containers"][0]["args"][1:] == []


def test_names_deadlines_and_attempts() -> None:
    shown = {each: job(each) for each in ("run", "weights")}
    assert [made["metadata"]["name"] for made in shown.values()] == ["r1", "r1-weights"]
    run = shown["run"]["spec"]
    assert (run["activeDeadlineSeconds"], run["backoffLimit"], run["podReplacementPolicy"]) == (1800, 3, "Failed")
    assert shown["weights"]["spec"]["activeDeadlineSeconds"] >= 2 * 72 * 60, "two epochs until weights are revealed"


def test_what_may_pass_is_tried_again_and_what_was_taken_away_is_not_counted() -> None:
    rules = job()["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Count", "FailJob"]
    assert 75 in rules[1]["onExitCodes"]["values"]
    assert {0, 75} <= set(rules[2]["onExitCodes"]["values"])


def test_the_hotkey_is_where_something_is_signed_and_nowhere_else() -> None:
    assert {"wallet", "twins"} <= mounts(pod("run"))
    assert "wallet" in mounts(pod("weights"))
    assert not {"wallet", "twins"} & mounts(pod("recompute"))
    assert "hotkey" not in json.dumps(pod("recompute"))


@pytest.mark.parametrize("which", ["run", "weights", "recompute"])
def test_an_embedded_ledger_is_opened_on_its_gateways_node_and_a_database_anywhere(which: str) -> None:
    found = pod(which)
    [term] = found["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    values = term["labelSelector"]["matchExpressions"][0]["values"]
    template = job(which)["spec"]["template"]["metadata"]["labels"]
    assert "gateway" in values
    assert template["bettertherapy.io/component"] in values, "it counts itself where no gateway runs"
    assert template["bettertherapy.io/validator"] == "v"
    assert variables(found)["LEDGER_URL"].startswith("sqlite:///")
    elsewhere = pod(which, **POSTGRES)
    assert "affinity" not in elsewhere
    assert "state" not in mounts(elsewhere)
    assert variables(elsewhere)["LEDGER_URL"]["secretKeyRef"] == {"name": "pg", "key": "uri"}


def test_prometheus_and_the_judges_key_are_given_where_there_are_some() -> None:
    judge = {"endpoint": "http://judge:8000/v1", "model": "m", "secretRef": {"name": "judge"}}
    parts = {"correctness": 50, "speed": 20, "satisfaction": 20, "participation": 10}
    found = variables(pod(scoring={"weightsPercent": parts, "judge": judge}))
    assert found["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert found["JUDGE_API_KEY"]["secretKeyRef"] == {"name": "judge", "key": "key"}
    assert "JUDGE_API_KEY" not in variables(pod())
    assert "PROMETHEUS_URL" not in variables(pod("recompute"))


def test_a_pod_is_as_the_restricted_standard_asks_and_may_write_one_configmap() -> None:
    found = pod()
    assert found["automountServiceAccountToken"] is False
    assert found["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert build_role(round_())["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["r1-progress"], "verbs": ["get", "patch"]}
    ]
    policy = build_network_policy(round_())["spec"]
    assert (policy["ingress"], policy["podSelector"]) == ([], {"matchLabels": {"bettertherapy.io/round": "r1"}})


def test_own_questions_lie_on_their_claim() -> None:
    own = {"challenges": {"uri": "pvc://sets/gold/a.jsonl", "digest": digest("c")}}
    found = pod(rounds=own)
    assert {"name": "claim-0", "persistentVolumeClaim": {"claimName": "sets", "readOnly": True}} in found["volumes"]
    order = order_of(round_(status=STARTED), validator(rounds=own))
    assert (order.challenges, order.challenge_digest) == ("file:///mnt/pvc/sets/gold/a.jsonl", digest("c"))


def test_the_order_says_what_round_and_validator_ask_for() -> None:
    parts = {"correctness": 70, "speed": 10, "satisfaction": 10, "participation": 10}
    owner = validator(
        chain={"network": "local", "netuid": 3}, rounds={"itemsPerTwin": 5},
        scoring={"weightsPercent": parts, "sources": ["medlineplus"], "alphaPercent": 40},
        rewards={"topMiners": 10, "burnPercent": 5},
    )  # fmt: skip
    made = round_(status=STARTED, seed=9, twins=["dr-a"], challengeDigest=digest("c"))
    order = read_document(RoundOrder, order_of(made, owner).to_json())
    assert isinstance(order, RoundOrder)
    assert (order.network, order.netuid) == ("http://subnet.clinic.svc:9944", 3)
    assert (order.seed, order.twins, order.challenge_digest, order.items_per_twin) == (9, ("dr-a",), digest("c"), 5)
    assert order.scoring.weights_percent.correctness == 70
    assert (order.scoring.sources, order.scoring.alpha_percent) == (("medlineplus",), 40)
    assert order.rewards is not None
    assert (order.rewards.top_miners, order.rewards.burn_percent, order.rewards.commit_reveal) == (10, 5, True)
    assert order_of(made, validator()).rewards is None


def test_tasks_are_ordered_where_the_validator_offers_them_and_nowhere_else() -> None:
    made = round_(status=STARTED)
    store = {"uri": "s3://adapters"}
    offers = {"publicUrl": "https://ask.clinic.example", "maxInteractions": 50}
    given = order_of(made, validator(fineTuneTasks={"store": store, "timeZone": "Asia/Kathmandu", "offers": offers}))
    assert given.tasks is not None
    assert (given.tasks.url, given.tasks.time_zone, given.tasks.max_interactions, given.tasks.min_interactions) == (
        "https://ask.clinic.example", "Asia/Kathmandu", 50, 20,
    )  # fmt: skip
    assert read_document(RoundOrder, given.to_json()) == given
    assert order_of(made, validator(fineTuneTasks={"store": store})).tasks is None
    assert order_of(made, validator(fineTuneTasks={"store": store, "offers": offers, "suspend": True})).tasks is None
    assert order_of(made, validator()).tasks is None
