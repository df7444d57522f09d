"""The Jobs of several runs: what each is told, and what their pods see."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from bettertherapy_api.doctor_twin import JudgeRef
from bettertherapy_api.examination import PROMPT_KEY
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.domain.judge import Judge
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Finding
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.job_parts import Task
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job
from twin_operator.settings import Images

STORE = {"store": {"uri": "pvc://adapters/store"}}


def task(number: int, *, prompt: bool = False, **spec: Any) -> Task:
    made = run(f"r{number}", twin=f"dr-{number}", **spec)
    return Task(run=made, twin=twin(f"dr-{number}", adapter=None), prompt=prompt, child=digest("b"))


REF = {"endpoint": "http://judge.models.svc:8000/v1", "model": "m"}


def with_judge(made: Task, *, secret: str | None = None) -> Task:
    ref = JudgeRef.model_validate(REF)
    return replace(made, judge=Judge(ref=ref, endpoint=ref.endpoint or "", models=("m",), secret=secret))


def job(*tasks: Task, component: str = "trainer", **pool_fields: Any) -> Any:
    first, *along = tasks
    made = pool(**{**STORE, **pool_fields})
    if component == "trainer":
        return build_trainer_job(first.run, first.twin, made, Images(), prompt=first.prompt, along=along)
    return build_examiner_job(
        first.run, first.twin, made, Images(), child=first.child or "", prompt=first.prompt, judge=first.judge,
        along=along,
    )  # fmt: skip


def pod(*tasks: Task, **fields: Any) -> Any:
    return job(*tasks, **fields)["spec"]["template"]["spec"]


def groups(made: Any) -> list[list[str]]:
    args = made["containers"][0]["args"]
    return [list(each) for plus, each in itertools.groupby(args, lambda argument: argument == "+") if not plus]


def of_the_store(made: Any) -> dict[str, bool]:
    """Return which folders of the shared claim are mounted, and whether they may be written."""
    mounts = made["containers"][0]["volumeMounts"]
    return {
        each["subPath"]: not each.get("readOnly", False)
        for each in mounts
        if each["name"].startswith("claim-") and "subPath" in each
    }


@pytest.mark.parametrize(("component", "report"), [("trainer", "progress"), ("examiner", "examination")])
def test_each_run_is_told_what_it_is_told_alone_and_where_it_reports(component: str, report: str) -> None:
    tasks = [task(number) for number in (1, 2, 3)]
    found = groups(pod(*tasks, component=component))
    for each, group in zip(tasks, found, strict=True):
        assert group[0] == f"--progress-configmap={each.run.name}-{report}"
        alone = groups(pod(each, component=component))[0]
        kept = "--kept=/var/lib/bettertherapy/examined"
        told = [f"{kept}/{each.twin.name}" if argument == kept else argument for argument in alone]
        assert group[1:] == told
    assert "PROGRESS_CONFIGMAP" not in {
        each["name"] for each in pod(*tasks, component=component)["containers"][0]["env"]
    }  # fmt: skip


def test_a_trainer_sees_the_folders_of_its_runs_and_no_others() -> None:
    assert of_the_store(pod(task(1), task(2))) == {"store/dr-1": True, "store/dr-2": True}


def test_an_examiner_reads_these_and_keeps_what_each_version_said_apart() -> None:
    made = pod(task(1), task(2), component="examiner")
    assert of_the_store(made) == {
        "store/dr-1": False, "store/dr-2": False, "store/_examined/dr-1": True, "store/_examined/dr-2": True,
    }  # fmt: skip
    paths = [each["mountPath"] for each in made["containers"][0]["volumeMounts"]]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("component", ["trainer", "examiner"])
def test_each_prompt_has_a_place_of_its_own(component: str) -> None:
    made = pod(task(1, prompt=True), task(2), task(3, prompt=True), component=component)
    files = [[each for each in group if each.startswith("--system-prompt-file")] for group in groups(made)]
    assert files == [
        ["--system-prompt-file=/etc/bettertherapy/run/r1/system-prompt.txt"], [],
        ["--system-prompt-file=/etc/bettertherapy/run/r3/system-prompt.txt"],
    ]  # fmt: skip
    [config] = [each for each in made["volumes"] if each["name"] == "config"]
    report = "progress" if component == "trainer" else "examination"
    assert [each["configMap"] for each in config["projected"]["sources"]] == [
        {"name": f"{name}-{report}", "optional": True, "items": [{"key": PROMPT_KEY, "path": f"{name}/{PROMPT_KEY}"}]}
        for name in ("r1", "r3")
    ]


@pytest.mark.parametrize("component", ["trainer", "examiner"])
def test_the_deadline_is_the_sum_of_the_runs(component: str) -> None:
    tasks = [task(number, deadlineSeconds=120, retries=2) for number in (1, 2, 3)]
    spec = job(*tasks, component=component)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (360, 2)


@pytest.mark.parametrize("component", ["trainer", "examiner"])
def test_datasets_and_evaluation_sets_on_other_claims_are_all_mounted(component: str) -> None:
    gates = [{"evalSetRef": {"uri": f"pvc://evals-{number}/x.jsonl", "digest": digest("e")}} for number in (1, 2)]
    tasks = [
        Task(
            run=run(f"r{number}", twin=f"dr-{number}"), twin=twin(f"dr-{number}", gate=gate), prompt=False,
            child=digest("b"),
        )
        for number, gate in enumerate(gates)
    ]  # fmt: skip
    made = pod(*tasks, component=component)
    volumes = {each["name"]: each for each in made["volumes"]}
    mounted = {volumes[each["name"]].get("persistentVolumeClaim", {}).get("claimName") for each in mounts_of(made)}
    assert {"evals-1", "evals-2", "models", "adapters"} <= mounted
    assert {each["name"] for each in mounts_of(made)} <= set(volumes)


def mounts_of(made: Any) -> list[Any]:
    return [each for part in ("containers", "initContainers") for one in made[part] for each in one["volumeMounts"]]


@pytest.mark.parametrize(("component", "report"), [("trainer", "progress"), ("examiner", "examination")])
def test_the_role_reaches_the_reports_of_its_runs_by_name(component: str, report: str) -> None:
    [rule] = build_role(run(), f"r1-{component}", component, along=["r2", "r3"])["rules"]
    assert rule["resourceNames"] == [f"{name}-{report}" for name in ("r1", "r2", "r3")]
    assert rule["verbs"] == ["get", "patch"]


def test_each_run_has_the_judge_of_its_own_twin_and_no_other_ones_key() -> None:
    made = pod(
        with_judge(task(1), secret="one"), with_judge(task(2)), task(3), with_judge(task(4), secret="four"),
        component="examiner",
    )  # fmt: skip
    keys = [[each for each in group if each.startswith("--judge-key-file")] for group in groups(made)]
    folder = "/etc/bettertherapy/judge"
    assert keys == [[f"--judge-key-file={folder}/r1/key"], [], [], [f"--judge-key-file={folder}/r4/key"]]
    judged = [any(each.startswith("--judge-endpoint") for each in group) for group in groups(made)]
    assert judged == [True, True, False, True]
    [volume] = [each for each in made["volumes"] if each["name"] == "judge"]
    found = {
        each["secret"]["name"]: (each["secret"]["items"], each["secret"]["optional"])
        for each in volume["projected"]["sources"]
    }
    assert found == {
        "one": ([{"key": "key", "path": "r1/key"}], True), "four": ([{"key": "key", "path": "r4/key"}], True),
    }  # fmt: skip


def test_why_a_run_has_no_judge_is_told_it_alone() -> None:
    why = Finding(Reason.NO_JUDGE, "the judge of gate.judgeRef is not asked: its pool is gone")
    made = pod(replace(task(1), judge=why), task(2), component="examiner")
    told = [[each for each in group if "judge" in each] for group in groups(made)]
    assert told == [[f"--no-judge={why.message}"], []]
    assert not [each for each in made["volumes"] if each["name"] == "judge"]
