"""The trainer's Job and what its pod may do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from bettertherapy_api.miner_pool import TuningStatus
from bettertherapy_api.pod_overlay import OWNED_PATHS, OWNED_VARIABLES
from tests.unit.operator.children.pods import computing
from tests.unit.operator.run_samples import run
from tests.unit.operator.samples import digest, pool, twin
from twin_operator.engine.apply import Owner, needs_apply, stamped
from twin_operator.kinds.finetune_run.examiner_job import build_examiner_job
from twin_operator.kinds.finetune_run.report_configmap import build_progress_configmap
from twin_operator.kinds.finetune_run.role import build_role
from twin_operator.kinds.finetune_run.trainer_job import build_trainer_job, trainer_arguments
from twin_operator.settings import Images

STORE = {"store": {"uri": "pvc://adapters/store", "secretRef": {"name": "s3"}}}


def job(
    *, prompt: bool = False, twin_fields: dict[str, Any] | None = None, pool_fields: Any = None, **spec: Any
) -> Any:
    made = pool(**{**STORE, **(pool_fields or {})})
    return build_trainer_job(run(**spec), twin(**(twin_fields or {})), made, Images(), prompt=prompt)


def pod(**fields: Any) -> Any:
    return job(**fields)["spec"]["template"]["spec"]


def examiner_pod(made: Any) -> Any:
    asked = build_examiner_job(run(), twin(), made, Images(), child=digest("c"), prompt=False)
    return asked["spec"]["template"]["spec"]


def arguments(**fields: Any) -> list[str]:
    args: list[str] = pod(**fields)["containers"][0]["args"]
    return args


def test_the_trainer_is_told_what_to_do() -> None:
    gate = {
        "evalSetRef": {"uri": "s3://eval/dr-a.jsonl", "digest": digest("e")},
        "minScorePercent": 70,
        "categoryFloors": {"emergency": 90},
    }
    fields = {
        "gate": gate,
        "fineTune": {"minInteractions": 12},
        "status": {"history": [{"digest": digest("c"), "servedName": "dr-a-cccccccc"}]},
    }
    assert arguments(twin_fields=fields, prompt=True, hyperparameters={"rank": 8, "learningRate": "0.0001"}) == [
        "--run=r1", "--twin=dr-a", "--store=pvc://adapters/store", "--base-model=/models/current",
        "--base-model-name=smollm2", "--parent-uri=pvc://adapters/dr-a/a", f"--parent-digest={digest('a')}",
        "--dataset-uri=pvc://adapters/store/dr-a/interactions", "--min-interactions=12", "--eval-uri=s3://eval/dr-a.jsonl",
        f"--eval-digest={digest('e')}",
        "--system-prompt-file=/etc/bettertherapy/run/system-prompt.txt", "--rank=8", "--learning-rate=0.0001",
        "--max-tokens=1024", "--seed=7", f"--keep={digest('a')}", f"--keep={digest('c')}", "--history-limit=10",
    ]  # fmt: skip


TRACKING = {
    "mlflow": {"endpoint": "http://mlflow.ml.svc:5000", "experiment": "nights", "secretRef": {"name": "mlflow"}},
    "tensorBoard": True,
}


def test_the_trainer_is_told_where_its_curves_go_and_gets_the_servers_credentials() -> None:
    made = pod(pool_fields={"fineTune": {"tracking": TRACKING}})["containers"][0]
    told = ["--mlflow-endpoint=http://mlflow.ml.svc:5000", "--mlflow-experiment=nights", "--tensorboard"]
    assert [each for each in made["args"] if each in told] == told
    given = {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in made["env"] if each["name"].startswith("MLFLOW")
    }
    assert given == {
        name: {"name": "mlflow", "key": name, "optional": True}
        for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    }


def test_without_tracking_nothing_is_said_of_it() -> None:
    made = pod(pool_fields={"fineTune": {"tracking": {"tensorBoard": False}}})["containers"][0]
    assert not [each for each in made["args"] if "mlflow" in each or "tensorboard" in each]
    assert not [each for each in made["env"] if each["name"].startswith("MLFLOW")]


SAFETY = {"uri": "pvc://platform/safety/hidden.jsonl", "digest": digest("9")}


def test_the_platforms_safety_items_are_the_examiners_alone() -> None:
    fields = {**STORE, "fineTune": {"safetySetRef": SAFETY}}
    examiner, trainer = examiner_pod(pool(**fields)), pod(pool_fields=fields)
    told = {f"--safety-uri={SAFETY['uri']}", f"--safety-digest={SAFETY['digest']}"}
    assert told <= set(examiner["containers"][0]["args"])
    claims = [
        [each["persistentVolumeClaim"]["claimName"] for each in made["volumes"] if "persistentVolumeClaim" in each]
        for made in (examiner, trainer)
    ]
    assert "platform" in claims[0]
    assert "platform" not in claims[1]
    assert "hidden" not in repr(trainer)


def test_the_examiner_gets_no_credentials_of_the_tracking_server() -> None:
    made = examiner_pod(pool(**{**STORE, "fineTune": {"tracking": TRACKING}}))["containers"][0]
    assert not [each for each in made["env"] if each["name"].startswith("MLFLOW")]


@pytest.mark.parametrize(("longest", "tokens"), [(512, 512), (8192, 1024), (None, 1024)])
def test_no_conversation_is_longer_than_the_engine_takes(longest: int | None, tokens: int) -> None:
    engine = {"device": "CPU", **({"maxModelLength": longest} if longest else {})}
    assert f"--max-tokens={tokens}" in arguments(pool_fields={"engine": engine})


@pytest.mark.parametrize(
    ("targets", "running", "told"),
    [
        ("AllLinear", "AllLinear", []),
        ("Attention", None, ["--targets=attention"]),
        ("Auto", None, []),
        ("Auto", "AllLinear", []),
        ("Auto", "Attention", ["--targets=attention"]),
    ],
)
def test_a_first_adapter_changes_what_the_engines_wrap(targets: str, running: str | None, told: list[str]) -> None:
    made = pool(**{**STORE, "engine": {"device": "CPU", "loraTargets": targets}})
    if running is not None:
        started = {
            "maxLoras": 8, "maxCpuLoras": 64, "maxLoraRank": 16, "loraTargets": running, "specializeActiveLora": True,
        }  # fmt: skip
        made = replace(made, tuning=TuningStatus.model_validate({"running": started}))
    found = trainer_arguments(run(), twin(), made, prompt=None)
    assert [each for each in found if each.startswith("--targets")] == told


@pytest.mark.parametrize(
    ("limit", "fields", "rank"),
    [
        (8, {"parentDigest": None}, "8"),
        (64, {"parentDigest": None}, None),
        (8, {"parentDigest": None, "hyperparameters": {"rank": 4}}, "4"),
        (8, {}, None),  # the parent's
    ],
)
def test_a_first_adapter_has_a_rank_that_the_engines_take(limit: int, fields: dict[str, Any], rank: str | None) -> None:
    told = arguments(pool_fields={"engine": {"device": "CPU", "maxLoraRank": limit}}, **fields)
    assert [each for each in told if each.startswith("--rank")] == ([f"--rank={rank}"] if rank else [])


def test_a_first_fine_tune_has_no_parent() -> None:
    assert not [each for each in arguments(parentDigest=None) if each.startswith("--parent")]


def test_a_parent_that_the_twin_forgot_is_where_the_trainer_puts_versions() -> None:
    found = arguments(parentDigest=digest("f"))
    assert f"--parent-uri=pvc://adapters/store/dr-a/{'f' * 64}" in found


def test_an_exact_dataset_is_trained_on_however_small() -> None:
    exact = {"uri": "s3://d/x.jsonl", "digest": digest("d")}
    found = arguments(dataset=exact)
    assert {"--dataset-uri=s3://d/x.jsonl", f"--dataset-digest={digest('d')}", "--min-interactions=1"} <= set(found)


def test_attempts_that_may_pass_are_counted_and_disruptions_are_not() -> None:
    spec = job(retries=5, deadlineSeconds=120)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (5, 120)
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Count", "FailJob"]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [75, 137, 143, 255]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "suspend" not in spec


def test_a_queue_suspends_the_job_and_names_itself() -> None:
    made = job(queueName="gpu", priorityClassName="low")
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert made["spec"]["template"]["spec"]["priorityClassName"] == "low"


def test_only_the_store_may_be_written() -> None:
    gate = {"evalSetRef": {"uri": "pvc://evals/dr-a.jsonl", "digest": digest("e")}}
    made = pod(twin_fields={"gate": gate})
    claims = {
        volume["persistentVolumeClaim"]["claimName"]: volume["persistentVolumeClaim"].get("readOnly", False)
        for volume in made["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"models": True, "adapters": False, "evals": True}
    mounted = {each["mountPath"]: each for each in made["containers"][0]["volumeMounts"]}
    own = mounted["/mnt/pvc/adapters/store/dr-a"]
    assert (own["subPath"], own.get("readOnly", False)) == ("store/dr-a", False)
    # The parent was set by hand, elsewhere on that claim; the root of the claim, with all other twins, isn't there.
    parent = mounted["/mnt/pvc/adapters/dr-a/a"]
    assert (parent["subPath"], parent["readOnly"]) == ("dr-a/a", True)
    assert "/mnt/pvc/adapters" not in mounted
    assert all(mounted[f"/mnt/pvc/{name}"]["readOnly"] for name in ("evals", "models"))
    names = {volume["name"] for volume in made["volumes"]}
    for container in (*made["initContainers"], *made["containers"]):
        assert {each["name"] for each in container["volumeMounts"]} <= names


@pytest.mark.parametrize(
    ("dataset", "mounts"),
    [
        ({"uri": "pvc://adapters/store/dr-a/interactions"}, set()),
        ({"uri": "pvc://adapters/days/1.jsonl"}, {"days"}),
        ({"uri": "pvc://adapters/days/new"}, {"days/new"}),
        ({"uri": "pvc://adapters/store/dr-b/interactions"}, {"store/dr-b/interactions"}),
        ({"uri": "pvc://adapters/x.jsonl"}, {""}),
        ({"uri": "pvc://elsewhere/days"}, set()),
    ],
)
def test_of_the_shared_claim_it_sees_what_it_must_read_and_writes_its_twins_folder(
    dataset: dict[str, str], mounts: set[str]
) -> None:
    made = pod(dataset=dataset, parentDigest=None, twin_fields={"adapter": None})
    found = _of_the_store(made)
    assert {each.get("subPath", "") for each in found if each.get("readOnly")} == mounts
    assert [each["subPath"] for each in found if not each.get("readOnly")] == ["store/dr-a"]
    # A mount may lie in another one; then it must come after it.
    assert [each["mountPath"] for each in found] == sorted(each["mountPath"] for each in found)


def _of_the_store(made: Any) -> list[Any]:
    return [each for each in made["containers"][0]["volumeMounts"] if each["mountPath"].startswith("/mnt/pvc/adapters")]


def test_a_store_at_the_root_of_its_claim_is_shared_too() -> None:
    made = pod(
        parentDigest=None, twin_fields={"adapter": None}, pool_fields={"store": {"uri": "pvc://adapters"}},
        dataset={"uri": "pvc://adapters/dr-a/interactions"},
    )  # fmt: skip
    [own] = _of_the_store(made)
    assert (own["mountPath"], own["subPath"]) == ("/mnt/pvc/adapters/dr-a", "dr-a")


@pytest.mark.parametrize("asked", [{"requests": {"nvidia.com/gpu": 4}}, {"limits": {"nvidia.com/gpu": "4"}}])
def test_it_gets_as_many_gpus_as_the_pool_or_the_run_asks_for(asked: dict[str, Any]) -> None:
    [count] = next(iter(asked.values())).values()
    of_the_pool = pod(pool_fields={"engine": {"device": "GPU"}, "fineTune": {"resources": asked}})
    of_the_run = pod(pool_fields={"engine": {"device": "GPU"}}, resources=asked)
    for made in (of_the_pool, of_the_run):
        assert computing(made["containers"][0]) == {
            "requests": {"nvidia.com/gpu": count}, "limits": {"nvidia.com/gpu": count}
        }  # fmt: skip
        [shm] = [each for each in made["volumes"] if each["name"] == "shm"]
        assert shm["emptyDir"]["medium"] == "Memory", "by which processes of several GPUs exchange what they compute"


def test_a_pool_says_in_how_many_processes_its_trainers_train_and_whether_they_shard() -> None:
    env = [{"name": "TRAINER_PROCESSES", "value": "2"}, {"name": "TRAINER_SHARDING", "value": "always"}]
    made = pod(pool_fields={"fineTune": {"pod": {"env": env}}})
    assert [each for each in made["containers"][0]["env"] if each["name"].startswith("TRAINER_")] == env


def test_it_runs_where_the_engines_run_with_what_the_run_or_the_pool_says() -> None:
    on_gpu = {
        "engine": {"device": "GPU"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
    }
    made = pod(pool_fields=on_gpu)
    assert computing(made["containers"][0])["limits"] == {"nvidia.com/gpu": 1}
    assert made["containers"][0]["image"] == Images().trainer_gpu
    assert pod()["containers"][0]["image"] == Images().trainer_cpu
    assert (made["nodeSelector"], made["runtimeClassName"]) == ({"gpu": "yes"}, "nvidia")
    assert made["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    own = {"fineTune": {"image": "mine:1", "resources": {"requests": {"cpu": "1"}}}}
    container = pod(pool_fields=own)["containers"][0]
    assert (container["image"], computing(container)) == ("mine:1", {"requests": {"cpu": "1"}})
    container = pod(pool_fields=own, image="its:2", resources={"requests": {"cpu": "3"}})["containers"][0]
    assert (container["image"], computing(container)) == ("its:2", {"requests": {"cpu": "3"}})


def test_the_pod_is_restricted() -> None:
    made = pod()
    assert made["securityContext"]["runAsNonRoot"] is True
    assert made["automountServiceAccountToken"] is False
    for container in (*made["initContainers"], *made["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "store-secret" in {each["name"] for each in made["containers"][0]["volumeMounts"]}
    variables = {each["name"] for each in made["containers"][0]["env"]}
    assert {"PROGRESS_CONFIGMAP", "POD_NAMESPACE", "POD_NAME", "POD_UID"} <= variables


def test_the_trainer_may_touch_its_one_configmap_and_nothing_else() -> None:
    assert build_role(run(), "r1-trainer", "trainer")["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["r1-progress"], "verbs": ["get", "patch"]}
    ]


@pytest.mark.parametrize("prompt", [None, "Be brief."])
def test_the_progress_configmap_states_only_the_prompt(prompt: str | None) -> None:
    assert build_progress_configmap(run(), prompt=prompt).get("data") == (
        {"system-prompt.txt": prompt} if prompt else None
    )


def test_a_job_that_exists_is_left_alone() -> None:
    owner = Owner(api_version="v1", kind="FineTuneRun", namespace="clinic", name="r1", uid="u")
    first, other = stamped(job(), owner), stamped(job(image="other:2"), owner)
    assert needs_apply(first, None) is not None
    assert needs_apply(other, first) is None


OVERLAY = {
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
    "volumes": [{"name": "data", "mountPath": "/data", "claimName": "c"}],
}


def test_the_pools_overlay_reaches_the_trainer_and_what_fetches_its_model() -> None:
    template = job(pool_fields={"fineTune": {"pod": OVERLAY}})["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["annotations"] == {"note": "b"}
    spec = template["spec"]
    [term] = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert {"name": "extra-data", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}} in spec["volumes"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert OVERLAY["env"][0] in container["env"]
        assert {"name": "extra-data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]


def test_what_the_operator_sets_in_a_trainers_pod_no_overlay_may_set() -> None:
    for container in (*pod(prompt=True)["initContainers"], *pod(prompt=True)["containers"]):
        for variable in container["env"]:
            assert any(re.fullmatch(pattern, variable["name"]) for pattern in OWNED_VARIABLES), variable
        for mount in container["volumeMounts"]:
            assert any(f"{mount['mountPath']}/".startswith(f"{path}/") for path in OWNED_PATHS), mount
