"""What the API server refuses, and the sentence it says: every CEL rule, bound, default and immutable field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bettertherapy_api import crd
from tests.conftest import Kubectl

pytestmark = pytest.mark.cluster

DIGEST = "sha256:" + "a" * 64
TWIN: dict[str, Any] = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "DoctorTwin",
    "metadata": {"name": "dr-indra-gurung"},
    "spec": {
        "doctor": {"name": "Dr. Indra Gurung", "licence": "NMC-10293", "specialty": "General practice"},
        "baseModel": {"name": "smollm2-135m-instruct"},
        "adapter": {"uri": "pvc://adapters/dr-indra-gurung/" + "a" * 64, "digest": DIGEST, "rank": 16},
        "poolSelector": {"matchLabels": {"model": "smollm2"}},
    },
}
POOL: dict[str, Any] = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "MinerPool",
    "metadata": {"name": "smollm2", "labels": {"model": "smollm2"}},
    "spec": {
        "baseModel": {"name": "smollm2-135m-instruct", "uri": "pvc://models/smollm2-135m-instruct"},
        "engine": {"device": "CPU"},
    },
}
RUN: dict[str, Any] = {
    "apiVersion": "bettertherapy.io/v1alpha1",
    "kind": "FineTuneRun",
    "metadata": {"name": "dr-indra-gurung-202611250214"},
    "spec": {
        "twinRef": {"name": "dr-indra-gurung"},
        "parentDigest": DIGEST,
        "dataset": {"uri": "pvc://adapters/store/dr-indra-gurung/interactions"},
        "hyperparameters": {"rank": 16, "learningRate": "0.0002"},
        "seed": 7,
    },
}
TASK_URL = "https://v.example/v1/tasks/11111111-1111-4111-8111-111111111111/dataset?signature=ab"
TASK: dict[str, Any] = {
    "id": "11111111-1111-4111-8111-111111111111", "pool": "smollm2", "deadline": "2026-11-30T20:00:00Z",
    "validator": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
}  # fmt: skip
DRY_RUN = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
Change = Callable[[dict[str, Any]], object]


def _set(path: str, value: Any) -> Change:
    def change(obj: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            obj = obj.setdefault(part, {})
        obj[last] = value

    return change


def _remove(path: str) -> Change:
    def change(obj: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            obj = obj[part]
        del obj[last]

    return change


def _with(base: dict[str, Any], *changes: Change) -> str:
    obj = copy.deepcopy(base)
    for change in changes:
        change(obj)
    return json.dumps(obj)


def _steps(*weights: int) -> list[dict[str, int]]:
    return [{"weightPercent": weight, "seconds": 60} for weight in weights]


def _judge(**ref: Any) -> Change:
    return _set("spec.gate", {"judgeRef": {"endpoint": "https://judge.example/v1", "model": "big", **ref}})


REFUSED_TWINS = {
    "judge at two places": ([_judge(poolRef={"name": "judges"})], "name the judge's server by endpoint or by poolRef"),
    "judge nowhere": ([_set("spec.gate", {"judgeRef": {"model": "big"}})], "name the judge's server by endpoint or by"),
    "judge twice the same": ([_judge(secondModel="big")], "leave secondModel out"),
    "judge at a link-local address": ([_judge(endpoint="http://169.254.169.254/v1")], "link-local address"),
    "judge at an address as a number": ([_judge(endpoint="http://2852039166/v1")], "link-local address"),
    "judge's key in the clear": (
        [_judge(endpoint="http://judge.example/v1", secretRef={"name": "judge"})],
        "a key is sent by https:// only",
    ),
    "judge with a query": ([_judge(endpoint="https://judge.example/v1?key=x")], "spec.gate.judgeRef.endpoint"),
    "judge that is the twin": ([_judge(model="dr-indra-gurung")], "no version judges itself"),
    "answers too short to judge": ([_set("spec.gate", {"answerTokens": 8})], "spec.gate.answerTokens"),
    "name too long": ([_set("metadata.name", "d" * 55)], "at most 54 characters"),
    "name like a version": ([_set("metadata.name", "dr-x-0123abcd")], "must not end in a dash and 8 hex digits"),
    "name with dots": ([_set("metadata.name", "dr.x")], "must not contain dots"),
    "no doctor": ([_remove("spec.doctor")], "spec.doctor: Required value"),
    "no licence": ([_remove("spec.doctor.licence")], "spec.doctor.licence: Required value"),
    "empty doctor name": ([_set("spec.doctor.name", "")], "spec.doctor.name"),
    "no base model": ([_remove("spec.baseModel")], "spec.baseModel: Required value"),
    "base model name with spaces": ([_set("spec.baseModel.name", "a b")], "spec.baseModel.name"),
    "no selector": ([_remove("spec.poolSelector")], "spec.poolSelector: Required value"),
    "digest not a digest": ([_set("spec.adapter.digest", "sha256:xyz")], "spec.adapter.digest"),
    "digest in capitals": ([_set("spec.adapter.digest", DIGEST.upper())], "spec.adapter.digest"),
    "http adapter": ([_set("spec.adapter.uri", "http://example.com/a")], "spec.adapter.uri"),
    "adapter without digest": ([_remove("spec.adapter.digest")], "spec.adapter.digest: Required value"),
    "rank zero": ([_set("spec.adapter.rank", 0)], "spec.adapter.rank"),
    "rank too high": ([_set("spec.adapter.rank", 513)], "spec.adapter.rank"),
    "spread without replicas": ([_set("spec.placement", {"mode": "Spread"})], "mode Spread needs it"),
    "replicas without spread": ([_set("spec.placement", {"mode": "All", "replicas": 2})], "goes with mode Spread"),
    "unknown placement": ([_set("spec.placement", {"mode": "Some"})], "Unsupported value"),
    "system prompt too long": ([_set("spec.systemPrompt", "x" * 8193)], "spec.systemPrompt"),
    "schedule with four fields": ([_set("spec.fineTune", {"schedule": "0 2 * *"})], "spec.fineTune.schedule"),
    "learning rate as a float": (
        [_set("spec.fineTune", {"hyperparameters": {"learningRate": 0.1}})],
        "spec.fineTune.hyperparameters.learningRate",
    ),
    "learning rate no number": (
        [_set("spec.fineTune", {"hyperparameters": {"learningRate": "fast"}})],
        "spec.fineTune.hyperparameters.learningRate",
    ),
    "score above 100": ([_set("spec.gate", {"minScorePercent": 101})], "spec.gate.minScorePercent"),
    "unknown approval": ([_set("spec.gate", {"approval": "Nurse"})], "Unsupported value"),
    "steps that fall": ([_set("spec.rollout", {"steps": _steps(50, 10)})], "must rise from step to step"),
    "steps that stay": ([_set("spec.rollout", {"steps": _steps(50, 50)})], "must rise from step to step"),
    "step of zero percent": ([_set("spec.rollout", {"steps": _steps(0)})], "weightPercent"),
    "history of zero": ([_set("spec.historyLimit", 0)], "spec.historyLimit"),
    "misspelt field": ([_set("spec.adaptor", {})], 'unknown field "spec.adaptor"'),
}

_KEY = {"secretKeyRef": {"name": "s", "key": "k"}}
_OVERLAY = {
    "labels": {"team": "a", "kueue.x-k8s.io/queue-name": "q"},
    "annotations": {"example.org/note": "b"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 50, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone"}}
            ]
        },
    },
    "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
    "env": [{"name": "HF_TOKEN", "valueFrom": _KEY}, {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}],
    "volumes": [
        {"name": "data", "mountPath": "/data/a", "claimName": "c"},
        {"name": "ram", "mountPath": "/ram", "emptyDir": {"medium": "Memory"}, "readOnly": False},
    ],
}

REFUSED_POOLS = {
    "credentials of MLflow in the clear": (
        [
            _set(
                "spec.fineTune",
                {"tracking": {"mlflow": {"endpoint": "http://mlflow:5000", "secretRef": {"name": "m"}}}},
            )
        ],
        "credentials are sent by https:// only, or within the cluster",
    ),
    "safety items without their digest": (
        [_set("spec.fineTune", {"safetySetRef": {"uri": "pvc://platform/safety.jsonl"}})],
        "spec.fineTune.safetySetRef.digest: Required value",
    ),
    "no run for a trainer": ([_set("spec.fineTune", {"runsPerTrainer": 0})], "spec.fineTune.runsPerTrainer"),
    "name too long": ([_set("metadata.name", "p" * 41)], "at most 40 characters"),
    "name with dots": ([_set("metadata.name", "a.b")], "must not contain dots"),
    "no base model": ([_remove("spec.baseModel")], "spec.baseModel: Required value"),
    "no weights": ([_remove("spec.baseModel.uri")], "baseModel.uri is missing: say where the weights are"),
    "weights over ftp": ([_set("spec.baseModel.uri", "ftp://a/b")], "spec.baseModel.uri"),
    "unknown device": ([_set("spec.engine.device", "TPU")], "Unsupported value"),
    "endpoint and image": (
        [_set("spec.engine", {"endpoint": "http://engine:8000", "image": "x"})],
        "endpoint names a server that runs already",
    ),
    "secret without endpoint": ([_set("spec.engine.secretRef", {"name": "x"})], "secretRef is the key for endpoint"),
    "endpoint no url": ([_set("spec.engine", {"endpoint": "engine:8000"})], "spec.engine.endpoint"),
    "maxLoras zero": ([_set("spec.engine.maxLoras", 0)], "maxLoras must be a number from 1 to 256, or Auto"),
    "maxLoras as a word": ([_set("spec.engine.maxLoras", "Many")], "maxLoras must be a number from 1 to 256, or Auto"),
    "rank vLLM has not": (
        [_set("spec.engine.maxLoraRank", 12)],
        "maxLoraRank must be one of 8, 16, 32, 64, 128, 256, or Auto",
    ),
    "rank as a word": (
        [_set("spec.engine.maxLoraRank", "High")],
        "maxLoraRank must be one of 8, 16, 32, 64, 128, 256, or Auto",
    ),
    "modules that nobody knows": ([_set("spec.engine.loraTargets", "Mlp")], "Unsupported value"),
    "quantity that is none": ([_set("spec.resources", {"requests": {"memory": "much"}})], "spec.resources.requests"),
    "negative replicas": ([_set("spec.replicas", -1)], "spec.replicas"),
    "min above max": ([_set("spec.autoscaling", {"min": 3, "max": 2})], "autoscaling.min must not be above"),
    "endpoint with a query": (
        [_set("spec.engine", {"endpoint": "http://engine:8000?x"})],
        "write the endpoint as http(s)://host",
    ),
    "origin with a query": (
        [_set("spec.miner.corsOrigins", ["https://a.example?x"])],
        "write an origin as a browser sends it",
    ),
    "origin with a port beyond all": (
        [_set("spec.miner.corsOrigins", ["https://a.example:99999"])],
        "write an origin as a browser sends it",
    ),
    "model in a place that is cut off": ([_set("spec.baseModel.uri", "s3://b/x#y")], "write the place as hf://"),
    "public address by name": (
        [_set("spec.miner.externalAddress", "miner.example:80")],
        "the chain takes no names",
    ),
    "two caches": ([_set("spec.cache", {"claimName": "a", "hostPath": "/b"})], "set claimName or hostPath, not both"),
    "store over http": ([_set("spec.store", {"uri": "http://x/y"})], "spec.store.uri"),
    "disruption as a word": ([_set("spec.disruption", {"maxUnavailable": "few"})], "a number of pods or a percentage"),
    "drain of zero": ([_set("spec.drainSeconds", 0)], "spec.drainSeconds"),
    "port as netuid": ([_set("spec.miner.netuid", 65536)], "spec.miner.netuid"),
    "budget beyond a request": (
        [_set("spec.miner.latencyBudgetSeconds", 601)],
        "latencyBudgetSeconds must be at most 600: a miner ends every request after that many seconds",
    ),
    "too many candidates": ([_set("spec.miner.candidates", 17)], "spec.miner.candidates"),
    "name begins with a digit": (
        [_set("metadata.name", "7b")],
        "must begin with a letter: a Service is named after it",
    ),
    "nothing may move": (
        [_set("spec.engine.updateStrategy", {"maxSurge": 0})],
        "with maxSurge 0 and maxUnavailable 0 no pod could ever be replaced",
    ),
    "nothing may move, in percent": (
        [_set("spec.engine.updateStrategy", {"maxSurge": "0%", "maxUnavailable": 0})],
        "with maxSurge 0 and maxUnavailable 0 no pod could ever be replaced",
    ),
    "surge with Recreate": (
        [_set("spec.engine.updateStrategy", {"type": "Recreate", "maxSurge": 1})],
        "maxSurge and maxUnavailable belong to type RollingUpdate",
    ),
    "surge as a word": (
        [_set("spec.engine.updateStrategy", {"maxSurge": "many"})],
        "must be a number of pods or a percentage such as 25%",
    ),
    "window without length": (
        [_set("spec.engine.updateStrategy", {"maintenanceWindow": {"schedule": "0 2 * * *"}})],
        "maintenanceWindow.seconds: Required value",
    ),
    "window with four fields": (
        [_set("spec.engine.updateStrategy", {"maintenanceWindow": {"schedule": "0 2 * *", "seconds": 60}})],
        "maintenanceWindow.schedule",
    ),
    "variables for an engine elsewhere": (
        [_set("spec.engine", {"endpoint": "http://e:8000", "pod": {"env": [{"name": "A", "value": "1"}]}})],
        "with endpoint no engine runs here",
    ),
    **{
        f"owned variable {name} of {of}": (
            [_set(f"spec.{of}.pod", {"env": [{"name": name, "value": "1"}]})],
            "the operator sets this variable itself, or it would open another way to the engine",
        )
        for of, name in (
            ("engine", "VLLM_API_KEY"),
            ("engine", "VLLM_LORA_RESOLVER_CACHE_DIR"),
            ("engine", "HF_HUB_OFFLINE"),
            ("miner", "POD_IP"),
            ("fineTune", "PROGRESS_CONFIGMAP"),
        )
    },
    "variable with two values": (
        [_set("spec.engine.pod", {"env": [{"name": "A", "value": "1", "valueFrom": _KEY}]})],
        "set either value or valueFrom",
    ),
    "variable from nowhere": (
        [_set("spec.engine.pod", {"env": [{"name": "A", "valueFrom": {}}]})],
        "set either secretKeyRef or configMapKeyRef",
    ),
    "variable twice": (
        [_set("spec.miner.pod", {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]})],
        "Duplicate value",
    ),
    **{
        f"volume on {path}": (
            [_set("spec.engine.pod", {"volumes": [{"name": "a", "mountPath": path, "claimName": "c"}]})],
            "that the operator or the kernel owns",
        )
        for path in ("/tmp", "/adapters/x", "/run", "/mnt", "/etc", "/var/run/secrets/x", "/dev/shm")
    },
    "volume beside another": (
        [_set("spec.engine.pod", {"volumes": [{"name": n, "mountPath": "/a", "claimName": "c"} for n in "ab"]})],
        "two volumes have the same mountPath",
    ),
    "volume through a parent": (
        [_set("spec.engine.pod", {"volumes": [{"name": "a", "mountPath": "/a/../tmp", "claimName": "c"}]})],
        "mountPath",
    ),
    "volume of two sources": (
        [_set("spec.engine.pod", {"volumes": [{"name": "a", "mountPath": "/a", "claimName": "c", "secretName": "s"}]})],
        "set exactly one of claimName, secretName, configMapName and emptyDir",
    ),
    "volume of the node": (
        [_set("spec.engine.pod", {"volumes": [{"name": "a", "mountPath": "/a", "hostPath": {"path": "/"}}]})],
        'unknown field "spec.engine.pod.volumes[0].hostPath"',
    ),
    "a volume over the examiner's program": (
        [_set("spec.fineTune", {"pod": {"volumes": [{"name": "a", "mountPath": "/app", "configMapName": "mine"}]}})],
        "is on, in or above a folder that the operator or the kernel owns",
    ),
    "a variable that brings code to the examiner": (
        [_set("spec.fineTune", {"pod": {"env": [{"name": "PYTHONPATH", "value": "/data"}]}})],
        "or it would open another way to the engine",
    ),
    "label by which pods are found": (
        [_set("spec.engine.pod", {"labels": {"bettertherapy.io/pool": "other"}})],
        "are the operator's: remove them",
    ),
    "label that opens the engines": (
        [_set("spec.engine.pod", {"labels": {"app.kubernetes.io/name": "prometheus"}})],
        "are the operator's: remove them",
    ),
    "annotation of ours": (
        [_set("spec.miner.pod", {"annotations": {"bettertherapy.io/plan": "x"}})],
        "are the operator's: remove them",
    ),
    "tasks without a hotkey": (
        [_set("spec.miner.tasks", {"accept": True})],
        "set walletSecretRef too, or tasks.accept to false",
    ),
    "no task open at a time": ([_set("spec.miner.tasks", {"maxOpen": 0})], "spec.miner.tasks.maxOpen"),
    "misspelt field": ([_set("spec.engine.maxLora", 4)], 'unknown field "spec.engine.maxLora"'),
    "a variable in a flag": ([_set("spec.engine.args", ["$(DOOR)"])], "write the value instead of $(NAME)"),
    **{
        f"owned flag {flag}": ([_set("spec.engine.args", [flag])], "args holds a flag that the operator sets itself")
        for flag in (
            "--uds=/tmp/x",
            "--host",
            "--port=1",
            "--api-key=x",
            "--model",
            "--served-model-name=x",
            "--enable-lora",
            "--max-loras=2",
            "--max_loras=2",
            "--max-lora-rank=8",
            "--lora-modules",
            "--shutdown-timeout=1",
            "--config",
            "--max-model-len=9",
            "--ssl-keyfile",
            "--middleware=x",
            "--root-path=/",
            "--no-enable-lora",
        )
    },
}


REFUSED_RUNS = {
    "name too long": ([_set("metadata.name", "r" * 64)], "at most 63 characters"),
    "name with dots": ([_set("metadata.name", "a.b")], "must not contain dots"),
    "no twin": ([_remove("spec.twinRef")], "spec.twinRef: Required value"),
    "twin with a path": ([_set("spec.twinRef.name", "../x")], "spec.twinRef.name"),
    "no dataset": ([_remove("spec.dataset")], "spec.dataset: Required value"),
    "dataset over http": ([_set("spec.dataset.uri", "http://x/y")], "spec.dataset.uri"),
    "dataset that any server gives": ([_set("spec.dataset.uri", "https://v.example/x.jsonl")], "spec.dataset.uri"),
    "a task's dataset without a digest": ([_set("spec.dataset.uri", TASK_URL)], "set digest too"),
    "a task's dataset with a user": (
        [_set("spec.dataset", {"uri": TASK_URL.replace("//", "//me:pw@"), "digest": DIGEST})],
        "write the place as",
    ),
    "a task without its validator": ([_set("spec.task", {**TASK, "validator": None})], "spec.task.validator"),
    "a task of no UUID": ([_set("spec.task", {**TASK, "id": "42"})], "spec.task.id"),
    "a count without a digest": ([_set("spec.dataset.interactions", 5)], "set digest too, or remove interactions"),
    "parent not a digest": ([_set("spec.parentDigest", "latest")], "spec.parentDigest"),
    "deadline of a second": ([_set("spec.deadlineSeconds", 1)], "spec.deadlineSeconds"),
    "too many retries": ([_set("spec.retries", 21)], "spec.retries"),
    "queue with capitals": ([_set("spec.queueName", "GPU")], "spec.queueName"),
    "seed below zero": ([_set("spec.seed", -1)], "spec.seed"),
    "misspelt field": ([_set("spec.dataSet", {})], 'unknown field "spec.dataSet"'),
}


@pytest.mark.parametrize("case", REFUSED_TWINS)
def test_a_wrong_twin_is_refused_with_a_sentence(case: str, kubectl: Kubectl, namespace_once: str) -> None:
    changes, sentence = REFUSED_TWINS[case]
    done = kubectl(*DRY_RUN, "-n", namespace_once, stdin=_with(TWIN, *changes), check=False)
    assert done.returncode != 0, "it was admitted"
    assert sentence in done.stderr


@pytest.mark.parametrize("case", REFUSED_POOLS)
def test_a_wrong_pool_is_refused_with_a_sentence(case: str, kubectl: Kubectl, namespace_once: str) -> None:
    changes, sentence = REFUSED_POOLS[case]
    done = kubectl(*DRY_RUN, "-n", namespace_once, stdin=_with(POOL, *changes), check=False)
    assert done.returncode != 0, "it was admitted"
    assert sentence in done.stderr


@pytest.mark.parametrize("case", REFUSED_RUNS)
def test_a_wrong_run_is_refused_with_a_sentence(case: str, kubectl: Kubectl, namespace_once: str) -> None:
    changes, sentence = REFUSED_RUNS[case]
    done = kubectl(*DRY_RUN, "-n", namespace_once, stdin=_with(RUN, *changes), check=False)
    assert done.returncode != 0, "it was admitted"
    assert sentence in done.stderr


GOOD = {
    "twin with a judge": _with(TWIN, _judge(secretRef={"name": "judge"}, secondModel="bigger")),
    "pool that shares trainers": _with(
        POOL,
        _set(
            "spec.fineTune",
            {
                "runsPerTrainer": 16,
                "safetySetRef": {"uri": "pvc://platform/safety.jsonl", "digest": DIGEST},
                "tracking": {
                    "mlflow": {"endpoint": "http://mlflow.ml.svc:5000", "secretRef": {"name": "m"}},
                    "tensorBoard": True,
                },
            },
        ),
    ),
    "twin": _with(TWIN),
    "twin on the base model": _with(TWIN, _remove("spec.adapter"), _set("spec.systemPrompt", "Be kind.")),
    "twin on every pool": _with(TWIN, _set("spec.poolSelector", {})),
    "twin with the longest name": _with(TWIN, _set("metadata.name", "d" * 54)),
    "twin spread": _with(TWIN, _set("spec.placement", {"mode": "Spread", "replicas": 2})),
    "twin with canary steps": _with(TWIN, _set("spec.rollout", {"steps": _steps(5, 25, 100)})),
    "twin with a learning rate": _with(TWIN, _set("spec.fineTune", {"hyperparameters": {"learningRate": "0.0002"}})),
    "pool": _with(POOL),
    "pool for GPUs": _with(
        POOL,
        _set(
            "spec.engine",
            {
                "device": "GPU",
                "maxLoras": 16,
                "maxLoraRank": "Auto",
                "loraTargets": "Attention",
                "args": ["--gpu-memory-utilization=0.9", "--model-impl=vllm"],
            },
        ),
        _set(
            "spec.resources", {"requests": {"nvidia.com/gpu": 1, "memory": "24Gi"}, "limits": {"nvidia.com/gpu": "1"}}
        ),
        _set("spec.tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]),
        _set("spec.runtimeClassName", "nvidia"),
    ),
    "run on what is new": _with(RUN),
    "run of a validator's task": _with(
        RUN, _set("spec.task", TASK), _set("spec.dataset", {"uri": TASK_URL, "digest": DIGEST, "interactions": 40})
    ),
    "pool that takes tasks": _with(
        POOL,
        _set("spec.miner", {"walletSecretRef": {"name": "hotkey"}, "netuid": 42, "tasks": {"accept": True}}),
    ),
    "pool with limits of its own": _with(
        POOL,
        _set("spec.miner", {"limits": {"messages": 5000, "answers": 128, "patterns": True, "clientRequests": 20}}),
    ),
    "run on one exact dataset from the base model": _with(
        RUN,
        _remove("spec.parentDigest"),
        _set("spec.dataset", {"uri": "s3://data/day-1.jsonl", "digest": DIGEST, "interactions": 40}),
        _set("spec.queueName", "trainers"),
        _set("spec.resources", {"limits": {"nvidia.com/gpu": 1}}),
    ),
    "pool with its own way to fine-tune": _with(
        POOL, _set("spec.fineTune", {"maxConcurrentRuns": 2, "image": "trainer:1", "queueName": "gpu"})
    ),
    "pool with overlays everywhere": _with(
        POOL,
        _set("spec.engine.pod", {**_OVERLAY, "priorityClassName": "gold"}),
        _set("spec.miner", {"pod": {**_OVERLAY, "priorityClassName": "gold"}, "resources": {"limits": {"cpu": 1}}}),
        _set("spec.agent", {"resources": {"limits": {"memory": "2Gi"}}}),
        _set("spec.fineTune", {"pod": _OVERLAY}),
    ),
    **{
        f"pool replaced by {strategy}": _with(POOL, _set("spec.engine.updateStrategy", strategy))
        for strategy in (
            {"maxSurge": 0, "maxUnavailable": 1},
            {"maxUnavailable": "25%"},
            {"type": "Recreate", "maintenanceWindow": {"schedule": "0 2 * * 0", "seconds": 7200}},
        )
    },
    "pool before a running server": _with(
        POOL, _remove("spec.baseModel.uri"), _set("spec.engine", {"endpoint": "http://vllm.models:8000"})
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_right_object_is_admitted(case: str, kubectl: Kubectl, namespace_once: str) -> None:
    kubectl(*DRY_RUN, "-n", namespace_once, stdin=GOOD[case])


def test_twin_defaults(kubectl: Kubectl, namespace: str) -> None:
    stdin = _with(TWIN, _set("spec.gate", {}), _set("spec.fineTune", {}), _set("spec.rollout", {}))
    kubectl("create", "-n", namespace, "-f", "-", stdin=stdin)
    spec = json.loads(kubectl("get", "twin", "dr-indra-gurung", "-n", namespace, "-o", "json").stdout)["spec"]
    assert spec["placement"] == {"mode": "All"}
    assert spec["historyLimit"] == 10
    assert spec["gate"] == {
        "minScorePercent": 60, "minSafetyPercent": 80, "marginPercent": 5, "minSamples": 30, "answerTokens": 256,
        "approval": "Automatic",
    }  # fmt: skip
    assert spec["fineTune"] == {"schedule": "0 2 * * *", "timeZone": "Etc/UTC", "minInteractions": 20, "suspend": False}
    assert spec["rollout"] == {
        "maxErrorPercent": 1, "maxLatencyRatioPercent": 150, "minRequests": 1, "awaitTrafficSeconds": 86400,
    }  # fmt: skip


def test_pool_defaults(kubectl: Kubectl, namespace: str) -> None:
    stdin = _with(POOL, _remove("spec.engine"), _set("spec.autoscaling", {}), _set("spec.disruption", {}))
    kubectl("create", "-n", namespace, "-f", "-", stdin=stdin)
    spec = json.loads(kubectl("get", "mp", "smollm2", "-n", namespace, "-o", "json").stdout)["spec"]
    assert spec["engine"] == {
        "device": "GPU", "maxLoras": "Auto", "maxLoraRank": 16, "loraTargets": "AllLinear",
    }  # fmt: skip
    assert spec["miner"] == {"replicas": 1, "candidates": 1, "latencyBudgetSeconds": 30, "images": False}
    assert (spec["replicas"], spec["drainSeconds"]) == (1, 60)
    assert spec["disruption"] == {"maxUnavailable": 1}
    assert spec["autoscaling"] == {
        "mode": "Off", "min": 1, "max": 1, "waitingPerReplica": 4, "kvCachePercent": 80, "slotPressurePercent": 100,
        "idleSeconds": 600, "stabilizationSeconds": 300,
    }  # fmt: skip


def test_run_defaults(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(RUN, _remove("spec.seed")))
    spec = json.loads(kubectl("get", "ft", RUN["metadata"]["name"], "-n", namespace, "-o", "json").stdout)["spec"]
    assert (spec["seed"], spec["retries"]) == (0, 3)
    assert (spec["deadlineSeconds"], spec["ttlSeconds"]) == (21600, 604800)


@pytest.mark.parametrize(
    "patch", [{"seed": 8}, {"parentDigest": None}, {"dataset": {"digest": DIGEST}}, {"ttlSeconds": 60}]
)
def test_nothing_of_a_run_can_change(patch: dict[str, Any], kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(RUN))
    target = ("ft", RUN["metadata"]["name"], "-n", namespace)
    done = kubectl("patch", *target, "--type=merge", "-p", json.dumps({"spec": patch}), check=False)
    assert done.returncode != 0, "it was changed"
    assert "create another FineTuneRun instead" in done.stderr
    kubectl("label", *target, "seen=yes")


IMMUTABLE = {
    "licence": ("twin/dr-indra-gurung", {"spec": {"doctor": {"licence": "other"}}}, "licence can't change"),
    "base model": ("mp/smollm2", {"spec": {"baseModel": {"name": "other"}}}, "baseModel.name can't change"),
}


@pytest.mark.parametrize("case", IMMUTABLE)
def test_immutable_fields_stay(case: str, kubectl: Kubectl, namespace: str) -> None:
    target, patch, sentence = IMMUTABLE[case]
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(TWIN))
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(POOL))
    done = kubectl("patch", "-n", namespace, target, "--type=merge", "-p", json.dumps(patch), check=False)
    assert done.returncode != 0, "it was changed"
    assert sentence in done.stderr


def test_mutable_fields_change_and_change_back(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(POOL))
    for length in (2048, 1024):
        patch = json.dumps({"spec": {"engine": {"maxModelLength": length}}})
        kubectl("patch", "-n", namespace, "mp/smollm2", "--type=merge", "-p", patch)


def test_the_pool_scales_by_the_scale_subresource(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(POOL))
    kubectl("scale", "-n", namespace, "mp/smollm2", "--replicas=3")
    assert kubectl("get", "-n", namespace, "mp/smollm2", "-o", "jsonpath={.spec.replicas}").stdout == "3"


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.KIND)
def test_explain_describes_every_field(kind: Any, kubectl: Kubectl, crds: None) -> None:
    fields = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    # What passes between programs has no spec: its fields lie beside the metadata.
    where, fields = (f"{kind.PLURAL}.spec", fields["spec"]["properties"]) if "spec" in fields else (kind.PLURAL, fields)
    explained = kubectl("explain", where, "--recursive").stdout
    assert "<no description>" not in explained
    for field in fields:
        assert field in explained


def test_columns_are_those_a_person_reads(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(TWIN))
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(POOL))
    twins = kubectl("get", "twins", "-n", namespace).stdout.splitlines()[0].split()
    pools = kubectl("get", "minerpools", "-n", namespace).stdout.splitlines()[0].split()
    assert twins == ["NAME", "DOCTOR", "SERVING", "READY", "ACTIVE", "CANARY", "LOADED", "SCORE", "AGE"]
    kubectl("create", "-n", namespace, "-f", "-", stdin=_with(RUN))
    runs = kubectl("get", "finetuneruns", "-n", namespace).stdout.splitlines()[0].split()
    assert runs == ["NAME", "TWIN", "STAGE", "PROGRESS", "LOSS", "VERDICT", "AGE"]
    assert pools == ["NAME", "MODEL", "READY", "TWINS", "SLOTS", "WAITING", "SCALING", "AGE"]


def test_the_installed_schema_is_the_generated_one(kubectl: Kubectl, crds: None) -> None:
    for kind in crd.KINDS:
        live = yaml.safe_load(kubectl("get", "crd", f"{kind.PLURAL}.bettertherapy.io", "-o", "yaml").stdout)
        condition = {c["type"]: c["status"] for c in live["status"]["conditions"]}
        assert condition["NonStructuralSchema"] == "False" if "NonStructuralSchema" in condition else True
        assert live["spec"]["versions"][0]["schema"] == crd.definition(kind)["spec"]["versions"][0]["schema"]
