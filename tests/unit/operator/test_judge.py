"""The judge that a twin's gate names: who may judge it, where the examiner finds it, and what a run does without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.addresses import is_link_local
from bettertherapy_api.doctor_twin import Gate
from bettertherapy_api.gate.budget import Look
from tests.unit.operator.run_samples import found, run
from tests.unit.operator.samples import BASE, pool, twin
from twin_operator.domain.judge import Judge, judge_of
from twin_operator.domain.objects import Pool, Twin
from twin_operator.domain.reasons import Reason
from twin_operator.domain.verdict import judged
from twin_operator.engine.conditions import Finding
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job, judge_arguments
from twin_operator.kinds.finetune_run.job_parts import Task
from twin_operator.kinds.finetune_run.network_policy import build_examiner_network_policy
from twin_operator.kinds.finetune_run.plan import JUDGE_LOOKED_FOR, RunView, plan_run
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.settings import Images

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OF_JUDGES = pool("judges", labels={"tier": "judge"}, baseModel={"name": "big", "uri": "pvc://models/big"})
SELECTS = {"matchLabels": {"tier": "judge"}}
JUDGE = twin("assessor", adapter=None, baseModel={"name": "big"}, poolSelector=SELECTS)
STORE = {"store": {"uri": "pvc://adapters/store"}}


def asked(
    *, pools: tuple[Pool, ...] = (OF_JUDGES,), twins: tuple[Twin, ...] = (JUDGE,), **ref: Any
) -> Judge | Finding | None:
    by_name = {each.name: each for each in twins}
    return judge_of(twin(gate={"judgeRef": ref}), pools=pools, twin_named=by_name.get)


def refused(**ref: Any) -> str:
    found = asked(**ref)
    assert isinstance(found, Finding), found
    assert found.reason is Reason.NO_JUDGE
    return found.message


def test_a_twin_without_a_judge_has_none() -> None:
    assert judge_of(twin(gate={}), pools=(), twin_named=lambda _: None) is None
    assert judge_of(twin(), pools=(), twin_named=lambda _: None) is None


def test_an_endpoint_is_asked_as_it_stands_with_its_secret() -> None:
    found = asked(endpoint="https://judge.example/v1", model="m", secretRef={"name": "s"})
    assert isinstance(found, Judge)
    assert (found.endpoint, found.models, found.secret, found.key) == ("https://judge.example/v1", ("m",), "s", "key")


def test_a_pools_judge_is_asked_at_its_miners_with_the_pools_token() -> None:
    found = asked(poolRef={"name": "judges"}, model="assessor")
    assert isinstance(found, Judge)
    assert found.endpoint == "http://judges-miner.clinic.svc/v1"
    assert (found.secret, found.key, found.version) == (names.access_secret_name("judges"), "default", "big")
    own = asked(poolRef={"name": "judges"}, model="assessor", secretRef={"name": "s"})
    assert isinstance(own, Judge)
    assert (own.secret, own.key) == ("s", "key")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("dr-a", "dr-a is the twin itself, and no version judges itself"),
        ("dr-a-0123abcd", "dr-a-0123abcd is the twin itself"),
        (BASE, f"{BASE} is the base model that the twin was trained from"),
    ],
)
def test_no_version_judges_itself_nor_does_what_it_was_trained_from(model: str, told: str) -> None:
    assert told in refused(endpoint="https://elsewhere.example/v1", model=model)
    assert told in refused(endpoint="https://elsewhere.example/v1", model="m", secondModel=model)
    assert told in refused(poolRef={"name": "judges"}, model=model)
    assert isinstance(asked(endpoint="https://j.example/v1", model="dr-ab"), Judge), "a name that only begins alike"


@pytest.mark.parametrize(
    "host",
    [
        "p-miner",
        "p-miner.clinic",
        "P-miner.clinic.svc:80",
        "p-miner.clinic.svc.cluster.local",
        "p-miner.clinic.svc.corp.example",
    ],
)
def test_the_twins_own_pool_is_known_by_whatever_address(host: str) -> None:
    told = f"MinerPool p serves {BASE}, which the twin was trained from"
    assert told in refused(pools=(pool("p"),), endpoint=f"http://{host}/v1", model="another-twin")
    assert told in refused(pools=(pool("p"),), poolRef={"name": "p"}, model="another-twin")


def test_a_pools_judge_by_its_address_is_held_to_what_holds_by_its_name() -> None:
    address = "http://judges-miner.clinic.svc/v1"
    learns = twin("assessor", adapter=None, baseModel={"name": "big"}, poolSelector=SELECTS, fineTune={})
    assert "is fine-tuned" in refused(twins=(learns,), endpoint=address, model="assessor")
    assert "serves no DoctorTwin nobody" in refused(endpoint=address, model="nobody")
    found = asked(endpoint=address, model="assessor", secretRef={"name": "s"})
    assert isinstance(found, Judge)
    assert (found.endpoint, found.secret, found.version) == (address, "s", "big"), "another version is calibrated anew"


def test_the_twins_base_model_under_another_name_is_no_judge() -> None:
    same = pool("judges", labels={"tier": "judge"}, baseModel={"name": "big", "uri": "pvc://models/smollm2"})
    told = f"MinerPool judges serves {BASE}, which the twin was trained from, as big"
    assert told in refused(pools=(pool("p"), same), poolRef={"name": "judges"}, model="assessor")
    assert told in refused(pools=(pool("p"), same), endpoint="http://judges-miner/v1", model="assessor")


def test_what_a_pool_can_not_judge_by_is_told() -> None:
    assert "MinerPool nowhere does not exist" in refused(poolRef={"name": "nowhere"}, model="assessor")
    assert "serves no DoctorTwin nobody" in refused(poolRef={"name": "judges"}, model="nobody")
    learns = twin("assessor", adapter=None, baseModel={"name": "big"}, poolSelector=SELECTS, fineTune={})
    assert "is fine-tuned" in refused(twins=(learns,), poolRef={"name": "judges"}, model="assessor")
    elsewhere = twin("assessor", adapter=None, baseModel={"name": "big"})
    assert "serves no DoctorTwin assessor" in refused(twins=(elsewhere,), poolRef={"name": "judges"}, model="assessor")
    tokens = pool("judges", labels={"tier": "judge"}, baseModel={"name": "big", "uri": "pvc://models/big"},
                  miner={"accessSecretRef": {"name": "own"}})  # fmt: skip
    told = refused(pools=(tokens,), poolRef={"name": "judges"}, model="assessor")
    assert "name it in gate.judgeRef.secretRef" in told


@pytest.mark.parametrize(
    ("endpoint", "hides"),
    [
        ("http://169.254.169.254/latest", True), ("http://[fe80::1]/v1", True), ("http://[FE80::1]:80/v1", True),
        ("http://[::ffff:169.254.169.254]/", True), ("http://[::ffff:a9fe:a9fe]/", True),
        ("http://2852039166/v1", True),
        ("http://0xa9fea9fe/", True), ("http://0251.0376.0251.0376/", True), ("http://[fd00:ec2::254]/", True),
        ("http://metadata.google.internal/v1", True), ("http://metadata/v1", True),
        ("http://judge:8000/v1", False), ("https://10.0.0.1/v1", False), ("http://[2001:db8::7]:8000/v1", False),
        ("https://metadata-judge.example/v1", False), ("http://1judge.models.svc:8000/v1", False),
    ],
)  # fmt: skip
def test_where_clouds_hand_out_keys_nobody_judges(endpoint: str, hides: bool) -> None:
    assert is_link_local(endpoint) is hides
    if hides:
        assert "link-local" in refused(endpoint=endpoint, model="m")


def test_the_judges_key_is_the_examiners_alone_and_its_address_is_let_through() -> None:
    cared_for = twin(gate={"judgeRef": {"endpoint": "https://j.example/v1", "model": "m", "secretRef": {"name": "s"}}})
    judge = judge_of(cared_for, pools=(), twin_named=lambda _: None)
    made = pool(**STORE)
    examiner = build_examiner_job(
        run(), cared_for, made, Images(), child="sha256:" + "b" * 64, prompt=False, judge=judge
    )
    trainer = build_trainer_job(run(), cared_for, made, Images(), prompt=False)
    assert "'secretName': 's'" in str(examiner)
    assert "'secretName': 's'" not in str(trainer)
    assert "judge" not in str(trainer["spec"]["template"]["spec"]["containers"])
    policy = build_examiner_network_policy(run())["spec"]
    assert (policy["policyTypes"], "egress" in policy) == (["Ingress"], False), "judges may be anywhere"


@pytest.mark.parametrize(("deadline", "seconds"), [(60, 20), (600, 200), (7200, 2400), (21600, 3600)])
def test_a_judge_that_takes_all_its_time_leaves_some_of_the_deadline(deadline: int, seconds: int) -> None:
    cared_for = twin(gate={"judgeRef": {"endpoint": "https://j.example/v1", "model": "m"}})
    task = Task(
        run=run(deadlineSeconds=deadline), twin=cared_for, prompt=False,
        judge=judge_of(cared_for, pools=(), twin_named=lambda _: None),
    )  # fmt: skip
    assert f"--judge-seconds={seconds}" in judge_arguments(task, folder="/x")
    assert 2 * seconds < deadline, "its graders may be calibrated for as long"


def test_a_run_is_not_begun_for_which_nobody_could_judge_and_looks_again() -> None:
    why = Finding(Reason.NO_JUDGE, "the judge of gate.judgeRef is not asked: MinerPool x does not exist")
    plan = plan_run(RunView(run=run(), twin=twin(), pool=pool(**STORE), obstacle=why, judge=why), Images(), now=NOW)
    [queued] = [each for each in plan.conditions if each.type == "Queued"]
    assert (queued.status, queued.reason, queued.message) == ("True", "NoJudge", why.message)
    assert plan.wake_at == NOW + JUDGE_LOOKED_FOR == NOW + timedelta(minutes=1)
    assert plan.children == ()


def test_of_an_examiner_that_tells_nothing_of_how_items_were_scored_nothing_is_said() -> None:
    told = judged(found(run()), Gate(), attempt=1, look=Look(), begun=NOW, now=NOW)
    assert (told.verdict, told.judging) == ("Promote", None)
    assert "scored" not in str(told.message)
