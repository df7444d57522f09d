"""What tenants may name: refused in words by the chart's admission policies, on a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bettertherapy_api import names
from tests.conftest import ROOT, Kubectl
from twin_operator.domain.bounds import Bounds

pytestmark = pytest.mark.cluster
Spec = dict[str, Any]
Try = Callable[..., str]

POOL: Spec = {"baseModel": {"name": "m", "uri": "pvc://models/m"}, "replicas": 0, "miner": {"replicas": 0}}
RUN: Spec = {"twinRef": {"name": "dr-a"}, "dataset": {"uri": "pvc://adapters/store/dr-a/interactions"}}
TWIN: Spec = {"doctor": {"name": "Dr. A", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {}}
VALIDATOR: Spec = {"chain": {"network": "finney", "netuid": 1}, "walletSecretRef": {"name": "hotkey"}}
UNDERSCORES = "--gpu_memory_utilization=0.9"
KINDS = ("doctortwins", "finetuneruns", "minerpools", "validators")
DIGEST = "sha256:" + "a" * 64
SETTINGS = (
    "--set", "tenants.images={registry.example/team/*}", "--set", "tenants.stores={pvc://adapters/*,s3://ours/*}",
    "--set", "tenants.endpoints={https://judge.example/*,http://gpu:8000}",
)  # fmt: skip
"""Narrower than the defaults, where those allow anything."""


@pytest.fixture(scope="module")
def attempt(render: Callable[..., list[Spec]], kubectl: Kubectl, namespace_once: str) -> Any:
    """Enforce the chart's policies in one namespace; `attempt("MinerPool", spec)` returns what a tenant is told."""
    namespace = namespace_once
    made = [
        each
        for each in render(
            "twin-operator", *SETTINGS, "--set", f"watchNamespace={namespace}", "--set", f"fullnameOverride={namespace}"
        )
        if each["kind"].startswith("ValidatingAdmissionPolicy") and ".tenants." in each["metadata"]["name"]
    ]
    assert len(made) == 8
    documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    kubectl("apply", "-f", "-", stdin=documents)
    role = "twin-tenant"
    kubectl(
        "create",
        "role",
        role,
        "--verb=create,get,patch,update",
        "-n",
        namespace,
        "--resource=" + ",".join(f"{kind}.bettertherapy.io" for kind in KINDS),
    )
    kubectl("create", "role", "approve", "--verb=approve", "--resource=doctortwins.bettertherapy.io", "-n", namespace)
    for each in (role, "approve"):
        kubectl("create", "rolebinding", each, f"--role={each}", "--user=tenant", "-n", namespace)

    def write(kind: str, spec: Spec, *, how: str = "create", name: str = "tried", dry: bool = True) -> str:
        thing = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        options = ["--dry-run=server"] if dry else []
        done = kubectl("-n", namespace, "--as=tenant", how, *options, "-f", "-", stdin=json.dumps(thing), check=False)
        return "" if done.returncode == 0 else done.stderr

    try:
        deadline = time.monotonic() + 30
        for kind, spec in (
            ("MinerPool", {**POOL, "engine": {"image": "evil"}}), ("FineTuneRun", {**RUN, "image": "evil"}),
            ("DoctorTwin", {**TWIN, "adapter": {"uri": "gs://x/y", "digest": DIGEST, "rank": 8}}),
            ("Validator", {**VALIDATOR, "gateway": {"image": "evil"}}),
        ):  # fmt: skip
            while "not for tenants" not in write(kind, spec):
                assert time.monotonic() < deadline, f"the policy of {kind} is not enforced"
                time.sleep(0.2)
        yield write
    finally:
        kubectl("delete", "-f", "-", stdin=documents)


REFUSED: dict[str, tuple[str, Spec, str]] = {
    "a run with its own image": ("FineTuneRun", {**RUN, "image": "evil:1"}, "the image evil:1"),
    "a run with a system priority": (
        "FineTuneRun", {**RUN, "priorityClassName": "system-node-critical"}, "the PriorityClass system-node-critical"
    ),
    "a run on another bucket": ("FineTuneRun", {**RUN, "dataset": {"uri": "s3://theirs/x"}}, "the place s3://theirs/x"),
    "a run whose bucket only begins so": ("FineTuneRun", {**RUN, "dataset": {"uri": "s3://ours-not/x"}}, "the place"),
    "a run that leads out of its bucket": (
        "FineTuneRun", {**RUN, "dataset": {"uri": "pvc://adapters/%2e%2e/x"}}, "no . or .. as a part"
    ),
    "an engine image": ("MinerPool", {**POOL, "engine": {"image": "evil"}}, "the image evil"),
    "a registry that only begins so": (
        "MinerPool", {**POOL, "miner": {"image": "registry.example/teams/x"}}, "the image"
    ),
    "a trainer image": ("MinerPool", {**POOL, "fineTune": {"image": "evil"}}, "the image evil"),
    "a folder of the node": ("MinerPool", {**POOL, "cache": {"hostPath": "/etc"}}, "the folder of the node /etc"),
    "a runtime class": ("MinerPool", {**POOL, "runtimeClassName": "unconfined"}, "the RuntimeClass unconfined"),
    "a priority of engines": (
        "MinerPool", {**POOL, "engine": {"pod": {"priorityClassName": "system-cluster-critical"}}}, "the PriorityClass"
    ),
    "a priority of miners": (
        "MinerPool", {**POOL, "miner": {"pod": {"priorityClassName": "p"}}}, "the PriorityClass p"
    ),
    "a priority of trainers": ("MinerPool", {**POOL, "fineTune": {"priorityClassName": "p"}}, "the PriorityClass p"),
    "a store": ("MinerPool", {**POOL, "store": {"uri": "s3://theirs/x"}}, "the place s3://theirs/x"),
    "a server": (
        "MinerPool", {"baseModel": {"name": "m"}, "engine": {"endpoint": "http://bank:80"}}, "the server http://bank:80"
    ),
    "a tracker": (
        "MinerPool", {**POOL, "fineTune": {"tracking": {"mlflow": {"endpoint": "http://bank:80"}}}}, "the server"
    ),
    "an adapter's place": (
        "DoctorTwin", {**TWIN, "adapter": {"uri": "gs://x/y", "digest": DIGEST, "rank": 8}}, "the place gs://x/y"
    ),
    "a judge": (
        "DoctorTwin", {**TWIN, "gate": {"judgeRef": {"endpoint": "https://bank/v1", "model": "j"}}},
        "the server https://bank/v1",
    ),
    "a claim to be written to": (
        "Validator",
        {
            **VALIDATOR,
            "fineTuneTasks": {
                "store": {"uri": "pvc://adapters/store"},
                "offers": {"publicUrl": "https://v.example", "deliveries": "pvc://payroll/x"},
            },
        },
        "the place pvc://payroll/x",
    ),
    "a gateway image": ("Validator", {**VALIDATOR, "gateway": {"image": "evil"}}, "the image evil"),
    "the pages' store": (
        "Validator",
        {**VALIDATOR, "gateway": {"pages": {"origin": "https://a.example", "store": {"uri": "pvc://others/reviews"}}}},
        "pvc://others/reviews",
    ),
}  # fmt: skip
FLAGS = (
    "--kv-events-config={}", "--kv-transfer-config={}", "--grpc", "--trust-remote-code", "--trust_remote_code",
    "--allowed-local-media-path=/", "--tool-parser-plugin=/x.py", "--enable-log-outputs", "--enable-log-out",
    "--kv-transfer-config.kv_connector=x", "--hf-token=x", "--load-format=pt", "--speculative-config={}",
    "--compilation-config={}", "--tokenizer=x", "--logits-processors=os:system", "--data-parallel-size=2",
    "--worker-cls=x", "--gpu-memory-util=0.5", "--download-dir=/x", "--lora-mod=x=/y",
)  # fmt: skip
BY_SCHEMA = {
    "--api-k=x": "flag that the operator sets itself", "--api_k=x": "flag that the operator sets itself",
    "--po=1": "flag that the operator sets itself", "--ssl-key=x": "flag that the operator sets itself",
    "--lora-modules.x=y": "flag that the operator sets itself", "--config": "flag that the operator sets itself",
    "evil/model": "write each argument in one element", "-tp=2": "write each argument in one element",
    "--": "write each argument in one element", "- -x": "write each argument in one element",
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_out_of_bounds_is_refused_in_words(attempt: Try, what: str) -> None:
    kind, spec, says = REFUSED[what]
    said = attempt(kind, spec)
    assert says in said
    assert "no . or .." in said or "is not for tenants to use here: leave it out, or ask who runs the platform" in said


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_that_is_not_on_the_list_is_refused(attempt: Try, flag: str) -> None:
    said = attempt("MinerPool", {**POOL, "engine": {"args": ["--seed=1", flag]}})
    assert "the flag --" in said or "flag that the operator sets itself" in said, said


@pytest.mark.parametrize("argument", BY_SCHEMA)
def test_a_flag_of_the_operators_is_refused_however_it_is_written(attempt: Try, argument: str) -> None:
    said = attempt("MinerPool", {**POOL, "engine": {"args": [argument]}})
    assert BY_SCHEMA[argument] in said


@pytest.mark.parametrize(
    "endpoint",
    ["http://169.254.169.254", "http://2852039166", "http://0xa9.0xfe.0xa9.0xfe", "http://169.16689662",
     "http://[::ffff:169.254.169.254]", "http://[fe80::1]", "http://metadata.google.internal.",
     "http://0251.0376.0251.0376",
     "http://100.100.100.200", "http://instance-data", "http://gpu:8000/?x=y", "http://me:pw@gpu:8000"],
)  # fmt: skip
def test_servers_where_keys_are_handed_out_are_refused(attempt: Try, endpoint: str) -> None:
    said = attempt("MinerPool", {"baseModel": {"name": "m"}, "engine": {"endpoint": endpoint}})
    assert "link-local address" in said or "write the endpoint as http(s)://host" in said


@pytest.mark.parametrize(
    "network",
    ["http://169.254.169.254", "ws://169.254.169.254:80/latest", "wss://2852039166", "http://[fe80::1]:80",
     "ws://metadata.google.internal"],
)  # fmt: skip
def test_nor_is_such_a_server_a_chain(attempt: Try, network: str) -> None:
    chain = {"network": network, "netuid": 1}
    assert "the network is a link-local address" in attempt("Validator", {**VALIDATOR, "chain": chain})


@pytest.mark.parametrize(
    "network", ["finney", "local", "ws://127.0.0.1:9944", "wss://node.example:443/x", "http://10.0.0.7"]
)
def test_a_chain_elsewhere_is(attempt: Try, network: str) -> None:
    assert attempt("Validator", {**VALIDATOR, "chain": {"network": network, "netuid": 1}}) == ""


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("MinerPool", {**POOL, "engine": {"image": "registry.example/team/vllm:1", "args": [UNDERSCORES]},
                       "runtimeClassName": "nvidia", "store": {"uri": "pvc://adapters/store"}}),
        ("MinerPool", {**POOL, "miner": {"image": "bettertherapy/neuron:0.1.0"}}),
        ("MinerPool", {"baseModel": {"name": "m"}, "engine": {"endpoint": "http://gpu:8000"}}),
        ("MinerPool", {**POOL, "engine": {"args": ["--limit-mm-per-prompt.image=1", "--chat-template=/x.jinja"]}}),
        ("FineTuneRun", RUN),
        ("DoctorTwin", {**TWIN, "gate": {"judgeRef": {"endpoint": "https://judge.example/v1", "model": "j"}}}),
        ("Validator", VALIDATOR),
    ],
)  # fmt: skip
def test_what_is_within_bounds_is_taken(attempt: Try, kind: str, spec: Spec) -> None:
    assert attempt(kind, spec) == ""


def test_what_was_there_before_keeps_nobody_from_changing_something_else(
    attempt: Try, kubectl: Kubectl, namespace_once: str
) -> None:
    """Bounds may become narrower; a deletion, a scaling and another field still go."""
    kind = {"apiVersion": names.API_VERSION, "kind": "MinerPool"}
    old = {**kind, "metadata": {"name": "old"}, "spec": {**POOL, "store": {"uri": "pvc://adapters/store"}}}
    kubectl("-n", namespace_once, "apply", "-f", "-", stdin=json.dumps(old))
    assert attempt("MinerPool", {**old["spec"], "replicas": 1}, how="replace", name="old") == ""
    changed = {**old["spec"], "engine": {"image": "evil"}}
    assert "the image evil" in attempt("MinerPool", changed, how="replace", name="old")


def test_the_operator_and_the_chart_have_the_same_bounds() -> None:
    values = yaml.safe_load((ROOT / "charts/twin-operator/values.yaml").read_text())["tenants"]
    assert Bounds.model_validate(values) == Bounds()
    assert json.loads(Bounds().model_dump_json(by_alias=True)) == values


def test_the_operator_is_told_of_them(render: Callable[..., list[Spec]]) -> None:
    [deployment] = [each for each in render("twin-operator", *SETTINGS) if each["kind"] == "Deployment"]
    env = {each["name"]: each.get("value") for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert Bounds.model_validate_json(env["TWIN_TENANTS"]).images == ("registry.example/team/*",)
