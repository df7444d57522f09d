"""The examiner's Job: who it is, what it runs, what it may read and what it may write."""

from __future__ import annotations

from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.network_policy import build_examiner_network_policy
from twin_operator.kinds.finetune_run.report_configmap import build_examination_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.settings import Images

CHILD = digest("b")
STORE = {"store": {"uri": "pvc://adapters/store", "secretRef": {"name": "s3"}}}


def job(*, prompt: bool = False, twin_fields: Any = None, pool_fields: Any = None, **spec: Any) -> Any:
    made = pool(**{**STORE, **(pool_fields or {})})
    return build_examiner_job(run(**spec), twin(**(twin_fields or {})), made, Images(), child=CHILD, prompt=prompt)


def pod(**fields: Any) -> Any:
    return job(**fields)["spec"]["template"]["spec"]


def container(**fields: Any) -> Any:
    [only] = pod(**fields)["containers"]
    return only


def mounts(made: Any) -> dict[str, Any]:
    return {each["mountPath"]: each for each in made["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_its_image_is_the_operators_whatever_run_and_pool_say(device: str) -> None:
    fields = {"engine": {"device": device}, "fineTune": {"image": "theirs:1"}}
    images = Images()
    expected = images.trainer_cpu if device == "CPU" else images.trainer_gpu
    assert container(pool_fields=fields, image="mine:2")["image"] == expected


def test_it_is_somebody_else_than_the_trainer() -> None:
    made = pod()
    assert made["serviceAccountName"] == "r1-examiner"
    assert made["automountServiceAccountToken"] is False
    assert build_role(run(), "r1-examiner", "examiner")["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["r1-examination"], "verbs": ["get", "patch"]}
    ]
    assert job()["metadata"]["name"] == "r1-examiner"
    assert "PROGRESS_CONFIGMAP" in {each["name"] for each in container()["env"]}
    [told] = [each["value"] for each in container()["env"] if each["name"] == "PROGRESS_CONFIGMAP"]
    assert told == build_examination_configmap(run(), prompt=None)["metadata"]["name"]


def test_a_run_with_the_longest_name_has_an_examiner_too() -> None:
    name = names.examiner_name("r" * 63)
    assert len(name) <= 63
    assert name != names.examiner_name("r" * 62 + "s")


def test_it_reads_the_twins_folder_and_writes_only_what_no_trainer_sees() -> None:
    gate = {"evalSetRef": {"uri": "pvc://adapters/evals/dr-a.jsonl", "digest": digest("e")}}
    made = pod(twin_fields={"gate": gate}, anchor={"digest": digest("c")})
    found = mounts(made)
    assert found["/mnt/pvc/adapters/store/dr-a"]["readOnly"] is True
    assert found["/mnt/pvc/adapters/evals"]["readOnly"] is True
    assert "/mnt/pvc/adapters" not in found
    claims = {each["name"] for each in made["volumes"] if "persistentVolumeClaim" in each}
    writable = [each for each in made["containers"][0]["volumeMounts"] if not each.get("readOnly")]
    assert [each.get("subPath") for each in writable if each["name"] in claims] == ["store/_examined/dr-a"]
    kept = found["/var/lib/bettertherapy/examined"]
    assert "--kept=/var/lib/bettertherapy/examined" in made["containers"][0]["args"]
    assert kept["subPath"] == "store/_examined/dr-a"
    declared = {volume["name"] for volume in made["volumes"]}
    for each in (*made["initContainers"], *made["containers"]):
        assert {one["name"] for one in each["volumeMounts"]} <= declared


def test_in_an_object_store_nothing_is_kept() -> None:
    made = pod(pool_fields={"store": {"uri": "s3://adapters/store"}})
    assert not [each for each in made["containers"][0]["args"] if each.startswith("--kept")]
    assert "/var/lib/bettertherapy/examined" not in mounts(made)


def test_a_model_in_the_engines_image_is_copied_from_there() -> None:
    inside = {"baseModel": {"name": "smollm2", "uri": "file:///opt/models/smollm2"}, "fineTune": {"image": "theirs:1"}}
    made = pod(pool_fields=inside)
    [copies] = made["initContainers"]
    assert copies["image"] == Images().engine_cpu
    assert copies["command"][-2:] == ["/opt/models/smollm2", "/mnt/headers/current"]
    assert "--base-model=/models/current" in made["containers"][0]["args"]
    assert mounts(made)["/models"]["readOnly"] is True


def test_nobody_reaches_it() -> None:
    policy = build_examiner_network_policy(run())["spec"]
    assert (policy["policyTypes"], policy["ingress"]) == (["Ingress"], [])
    labels = job()["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_pod_is_restricted() -> None:
    made = pod()
    assert made["securityContext"]["runAsNonRoot"] is True
    for each in (*made["initContainers"], *made["containers"]):
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_queue_and_a_deadline_are_the_runs() -> None:
    made = job(queueName="gpu", priorityClassName="low", retries=2, deadlineSeconds=120)
    assert made["spec"]["suspend"] is True
    assert (made["spec"]["backoffLimit"], made["spec"]["activeDeadlineSeconds"]) == (2, 120)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert made["spec"]["template"]["spec"]["priorityClassName"] == "low"
    rules = made["spec"]["podFailurePolicy"]["rules"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {"examiner"}
