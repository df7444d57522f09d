"""The operator's Job against the examiner that it starts: every argument, every place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from kubectl_twin.ask import DEFAULT_MAX_TOKENS
from neurons.examiner import __main__ as examiner
from neurons.examiner import adopting
from neurons.examiner.arguments import parser
from neurons.examiner.judging import JudgeSettings
from neurons.store.locations import local_folder
from neurons.trainer import progress
from neurons.trainer.reporting import progress_of_environment
from tests.unit.finetune.test_job_and_trainer import ITEMS, PARENT, POOL, WHOLE_RUN, WHOLE_TWIN
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.domain.judge import judge_of
from twin_operator.kinds.finetune_run.adoption_job import build_adoption_job
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.settings import Images

Json = dict[str, Any]
CHILD = digest("b")
NOBODY_JUDGES: Json = {
    "judge_endpoint": None, "judge_models": [], "judge_version": None, "judge_key_file": None, "judge_language": "en",
    "judge_seconds": 3600, "judge_concurrency": 8, "no_judge": None,
}  # fmt: skip


def container(*, prompt: bool = True, **spec: Any) -> Json:
    made = build_examiner_job(run(**spec), twin(**WHOLE_TWIN), pool(**POOL), Images(), child=CHILD, prompt=prompt)
    [only] = made["spec"]["template"]["spec"]["containers"]
    assert only["command"] == ["python", "-m", "neurons.examiner"]
    found: Json = only
    return found


def understood(**spec: Any) -> argparse.Namespace:
    """What the examiner makes of the Job's command line; argparse exits on what it doesn't know."""
    return parser().parse_args(container(**spec)["args"])


def test_every_field_arrives() -> None:
    told = vars(understood(**WHOLE_RUN))
    assert told.pop("run_uid").startswith("uid-r1-")
    assert told == {
        "run": "r1", "twin": "dr-a", "store": "pvc://adapters/store", "base_model": Path("/models/current"),
        "base_model_name": "smollm2", "base_model_revision": "r7", "base_model_digest": None, "child_digest": CHILD,
        "parent_uri": "pvc://adapters/dr-a/a", "parent_digest": PARENT, "anchor": None, "anchor_uri": None,
        "eval_uri": "pvc://evals/dr-a/items.jsonl", "eval_digest": ITEMS,
        "system_prompt_file": Path("/etc/bettertherapy/run/system-prompt.txt"), "answer_tokens": DEFAULT_MAX_TOKENS,
        "safety_uri": None, "safety_digest": None, "trained_by": None, "dataset_digest": None, "held_out_digest": None,
        "kept": Path("/var/lib/bettertherapy/examined"), "work_dir": None, "languages": None,
        **NOBODY_JUDGES,
        "progress_configmap": None,
    }  # fmt: skip


def judged_by(ref: Json, *, deadline: int = 86400) -> tuple[argparse.Namespace, Json]:
    """What the examiner understands of a twin's judge, and its pod."""
    cared_for = twin(**{**WHOLE_TWIN, "gate": {**WHOLE_TWIN["gate"], "judgeRef": ref}})
    judge = judge_of(cared_for, pools=[], twin_named=lambda _: None)
    made = build_examiner_job(
        run(**WHOLE_RUN | {"deadlineSeconds": deadline}), cared_for, pool(**POOL), Images(), child=CHILD, prompt=True,
        judge=judge,
    )["spec"]["template"]["spec"]  # fmt: skip
    return parser().parse_args(made["containers"][0]["args"]), made


def test_what_brings_a_candidate_understands_all_that_it_is_told() -> None:
    task = "11111111-1111-4111-8111-111111111111"
    own = {
        "task": task, "validator": "v", "miner": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "digest": CHILD,
        "delivered": f"pvc://deliveries/tasks/{task}/{'b' * 64}", "deadline": "2030-01-01T00:00:00Z",
        "heldOut": {"uri": f"https://v/v1/tasks/{task}/examination?x=1", "digest": digest("e")},
    }  # fmt: skip
    dataset = {"uri": f"https://v/v1/tasks/{task}/examination?x=2", "digest": digest("d")}
    made = run(candidate=own, dataset=dataset)
    assert made.spec.candidate is not None
    job = build_adoption_job(made, made.spec.candidate, twin(**WHOLE_TWIN), pool(**POOL), Images())
    told = vars(adopting.parser().parse_args(job["spec"]["template"]["spec"]["containers"][0]["args"]))
    assert told == {
        "run": "r1", "twin": "dr-a", "store": "pvc://adapters/store", "base_model_name": "smollm2",
        "delivered": own["delivered"], "adapter_digest": CHILD, "task": task, "parent_digest": PARENT,
        "dataset_uri": dataset["uri"], "dataset_digest": digest("d"), "held_out_uri": own["heldOut"]["uri"],  # type: ignore[index]
        "held_out_digest": digest("e"), "progress_configmap": None, "work_dir": None,
        "parent_uri": "pvc://adapters/dr-a/a", "earlier": [],
    }  # fmt: skip
    examined = understood(candidate=own, dataset=dataset)
    assert (examined.trained_by, examined.dataset_digest, examined.held_out_digest) == (
        f"task-{task}", digest("d"), digest("e"),
    )  # fmt: skip


def test_the_judge_arrives_with_its_key_and_nothing_else_of_its_secret() -> None:
    ref = {"endpoint": "https://judge.example/v1", "model": "one", "secondModel": "two", "language": "ne",
           "secretRef": {"name": "judge"}, "seconds": 7200, "concurrency": 3}  # fmt: skip
    told, made = judged_by(ref)
    settings = JudgeSettings.of(told)
    assert settings == JudgeSettings(
        endpoint="https://judge.example/v1", models=("one", "two"), language="ne", seconds=7200, concurrency=3,
        key_file=Path("/etc/bettertherapy/judge/key"),
    )  # fmt: skip
    [volume] = [each for each in made["volumes"] if each["name"] == "judge"]
    assert volume["secret"]["items"] == [{"key": "key", "path": "key"}]
    [place] = [each for each in made["containers"][0]["volumeMounts"] if each["name"] == "judge"]
    assert (place["mountPath"], place["readOnly"]) == ("/etc/bettertherapy/judge", True)
    assert all(each["name"] != "judge" for one in made["initContainers"] for each in one["volumeMounts"])


def test_a_judge_without_a_key_and_no_judge_at_all_mount_nothing() -> None:
    for ref in (
        {"endpoint": "http://judge:8000/v1", "model": "one"},
        {"endpoint": "http://169.254.1.1/v1", "model": "m"},
    ):
        _, made = judged_by(ref)
        assert all(each["name"] != "judge" for each in made["volumes"])


def test_there_is_time_left_for_the_versions_before_the_jobs_deadline() -> None:
    told, _ = judged_by({"endpoint": "http://judge:8000/v1", "model": "one"}, deadline=600)
    assert told.judge_seconds == 200


def test_why_the_judge_is_not_asked_arrives_in_words() -> None:
    told, _ = judged_by({"endpoint": "http://169.254.169.254/v1", "model": "one"})
    assert JudgeSettings.of(told) is None
    assert told.no_judge.startswith("the judge of gate.judgeRef is not asked: its endpoint is a link-local address")


@pytest.mark.parametrize(
    ("anchor", "told"),
    [
        ({"digest": digest("c")}, (digest("c"), f"pvc://adapters/store/dr-a/{'c' * 64}")),
        ({}, ("base", None)),
        (None, (None, None)),
    ],
)
def test_the_anchor_is_told_of(anchor: Json | None, told: tuple[str | None, str | None]) -> None:
    options = understood(**WHOLE_RUN, **({"anchor": anchor} if anchor is not None else {}))
    assert (options.anchor, options.anchor_uri) == told


def test_every_place_that_the_examiner_is_told_of_is_mounted_to_read() -> None:
    options = understood(**WHOLE_RUN, anchor={"digest": digest("c")})
    mounts = {
        each["mountPath"]: each.get("readOnly", False)
        for each in container(**WHOLE_RUN, anchor={"digest": digest("c")})["volumeMounts"]
    }
    child = f"{options.store}/{options.twin}/{'b' * 64}"
    for uri in (child, options.parent_uri, options.anchor_uri, options.eval_uri):
        folder = local_folder(uri)
        assert folder is not None
        around = [str(each) for each in (folder, *folder.parents) if str(each) in mounts]
        assert mounts[around[0]] is True, uri
    assert mounts[str(options.kept)] is False


def test_its_environment_says_where_it_reports_and_its_role_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"metadata.name": "r1-x", "metadata.namespace": "clinic", "metadata.uid": "uid-7"}
    for variable in container()["env"]:
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        monkeypatch.setenv(variable["name"], fields[path] if path else variable["value"])
    [rule] = build_role(run(), "r1-examiner", "examiner")["rules"]
    target = progress.Target(namespace="clinic", configmap=rule["resourceNames"][0])
    told = progress_of_environment(field_manager=examiner.FIELD_MANAGER)
    assert (told.document.attempt, told.target) == ("uid-7", target)
    [trainers] = build_role(run(), "r1-trainer", "trainer")["rules"]
    assert not {*rule["resourceNames"]} & {*trainers["resourceNames"]}, "neither writes the other's"
