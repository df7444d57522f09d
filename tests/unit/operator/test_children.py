"""The children of a pool: restricted pods, the engine's command line, least privilege."""

# ruff: noqa: E501  # tables of cases read better with one case a line

from __future__ import annotations

import json
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.samples import deployment_object, pool, report_configmap
from twin_operator.domain.pool_facts import read_facts
from twin_operator.engine.apply import Owner, needs_apply, stamped
from twin_operator.kinds.miner_pool.plan import Gathered, plan_pool
from twin_operator.settings import Images

IMAGES = Images(neuron="n:1", engine_cpu="c:1", engine_gpu="g:1")


def children(**spec: Any) -> dict[tuple[str, str], dict[str, Any]]:
    facts = read_facts([deployment_object(), report_configmap()], pool="p")
    plan = plan_pool(Gathered(pool=pool(**spec), facts=facts, candidates=[], previous=None), IMAGES)
    return {(child["kind"], child["metadata"]["name"]): child for child in plan.children}


def engine_pod(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = children(**spec)["Deployment", "p-engine"]["spec"]["template"]["spec"]
    return found


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {container["name"]: container for container in [*pod.get("initContainers", []), *pod["containers"]]}


GPU = {"engine": {"device": "GPU"}}
ENDPOINT = {"engine": {"endpoint": "http://gpu:8000", "secretRef": {"name": "key"}}, "baseModel": {"name": "m"}}
VARIANTS: list[dict[str, Any]] = [
    {}, GPU, ENDPOINT, {"cache": {"claimName": "c"}}, {"cache": {"sizeLimit": "9Gi"}}, {"baseModel": {"name": "m", "uri": "file:///m"}},
    {"store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}, "miner": {"replicas": 3}},
]  # fmt: skip


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_every_pod_satisfies_the_restricted_standard(spec: dict[str, Any]) -> None:
    for (kind, _), child in children(**spec).items():
        if kind != "Deployment":
            continue
        pod = child["spec"]["template"]["spec"]
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["seccompProfile"]) == (
            True,
            65532,
            {"type": "RuntimeDefault"},
        )
        assert pod["automountServiceAccountToken"] is False
        assert {next(key for key in volume if key != "name") for volume in pod["volumes"]} <= {
            "emptyDir", "persistentVolumeClaim", "secret", "projected",
        }  # fmt: skip
        for container in containers(pod).values():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_every_mount_has_its_volume(spec: dict[str, Any]) -> None:
    for (kind, _), child in children(**spec).items():
        if kind == "Deployment":
            pod = child["spec"]["template"]["spec"]
            mounted = {mount["name"] for container in containers(pod).values() for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_only_agent_and_miner_hold_an_api_token(spec: dict[str, Any]) -> None:
    holders = {
        name
        for (kind, _), child in children(**spec).items()
        if kind == "Deployment"
        for name, container in containers(child["spec"]["template"]["spec"]).items()
        if any(mount["name"] == "api-token" for mount in container["volumeMounts"])
    }
    assert holders == {"agent", "miner"}


def test_the_engine_opens_no_port_and_listens_on_the_socket_only() -> None:
    engine = containers(engine_pod())["engine"]
    assert "ports" not in engine
    assert f"--uds={names.ENGINE_SOCKET}" in engine["args"]
    assert not any(argument.startswith(("--host", "--port")) for argument in engine["args"])


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_the_engines_own_processes_talk_over_loopback_only(device: str) -> None:
    variables = {v["name"]: v["value"] for v in containers(engine_pod(engine={"device": device}))["engine"]["env"]}
    assert variables["VLLM_HOST_IP"] == "127.0.0.1"
    assert variables["GLOO_SOCKET_IFNAME"] == variables["NCCL_SOCKET_IFNAME"] == "lo"


def test_our_arguments_come_after_the_users() -> None:
    arguments = containers(
        engine_pod(engine={"device": "CPU", "args": ["--seed=1"], "maxLoras": "Auto", "maxModelLength": 512})
    )["engine"]["args"]
    assert arguments.index("--seed=1") < arguments.index("--model=/models/current")
    assert {
        "--enable-lora",
        "--max-loras=8",
        "--max-lora-rank=16",
        "--max-model-len=512",
        "--shutdown-timeout=60",
    } <= set(arguments)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (None, {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}}),
        ({"requests": {"nvidia.com/gpu": 2}}, {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}),
        ({"limits": {"nvidia.com/gpu": 2}}, {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1"}}),
    ],
)
def test_gpus_are_requested_and_limited_alike(resources: Any, expected: dict[str, Any]) -> None:
    assert (
        containers(engine_pod(**GPU, **({"resources": resources} if resources else {})))["engine"]["resources"]
        == expected
    )


def test_where_engines_run_follows_the_spec() -> None:
    pod = engine_pod(
        **GPU,
        runtimeClassName="nvidia",
        nodeSelector={"gpu": "h100"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )
    assert (pod["runtimeClassName"], pod["nodeSelector"]) == ("nvidia", {"gpu": "h100"})
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]


@pytest.mark.parametrize(("device", "image"), [("CPU", "c:1"), ("GPU", "g:1")])
def test_images_are_the_operators_unless_the_spec_names_others(device: str, image: str) -> None:
    assert containers(engine_pod(engine={"device": device}))["engine"]["image"] == image
    own = containers(engine_pod(engine={"device": device, "image": "own:2"}, miner={"image": "mine:3"}))
    assert (own["engine"]["image"], own["agent"]["image"], own["model"]["image"]) == ("own:2", "mine:3", "mine:3")


def test_a_pod_may_drain_before_it_is_killed() -> None:
    pod = engine_pod(drainSeconds=90)
    assert pod["terminationGracePeriodSeconds"] == 120
    command = containers(pod)["engine"]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert names.ENGINE_DRAIN_FILE in command
    assert names.ENGINE_DRAINED_FILE in command


def test_an_endpoint_pool_runs_agents_only() -> None:
    pod = engine_pod(**ENDPOINT)
    assert list(containers(pod)) == ["agent"]
    variables = {variable["name"]: variable.get("value") for variable in containers(pod)["agent"]["env"]}
    assert variables["ENGINE_ENDPOINT"] == "http://gpu:8000"
    assert variables["ENGINE_ENDPOINT_KEY_FILE"] == "/etc/bettertherapy/endpoint/apiKey"


def test_a_model_in_the_engines_image_is_used_in_place() -> None:
    pod = engine_pod(baseModel={"name": "m", "uri": "file:///opt/m"})
    assert "model" not in containers(pod)
    assert "--model=/opt/m" in containers(pod)["engine"]["args"]


def test_store_credentials_reach_only_who_reads_the_store() -> None:
    found = containers(engine_pod(store={"uri": "s3://b/x", "secretRef": {"name": "s3"}}))
    assert {name for name, container in found.items() if container.get("envFrom")} == {"model", "agent"}


def test_roles_name_the_pools_own_configmaps_only() -> None:
    found = children()
    assert found["Role", "p-engine"]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["p-routing"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["p-report"], "verbs": ["get", "patch"]},
    ]
    assert found["Role", "p-miner"]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["p-routing", "p-report"],
            "verbs": ["get", "list", "watch"],
        }
    ]


def test_only_miners_and_prometheus_reach_the_agents() -> None:
    policy = children()["NetworkPolicy", "p-engine"]["spec"]
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {names.LABEL_POOL: "p", names.LABEL_COMPONENT: "miner"}}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}},
    ]


def test_the_report_configmap_states_no_data() -> None:
    assert "data" not in children()["ConfigMap", "p-report"]


def test_planning_twice_gives_the_same_bytes() -> None:
    assert json.dumps(list(children().values())) == json.dumps(list(children().values()))


OWNER = Owner(api_version=names.API_VERSION, kind="MinerPool", namespace="clinic", name="p", uid="u")


def test_a_field_taken_out_of_the_plan_is_noticed() -> None:
    before = stamped(children(**GPU, nodeSelector={"a": "b"})["Deployment", "p-engine"], OWNER)
    after = stamped(children(**GPU)["Deployment", "p-engine"], OWNER)
    assert needs_apply(before, before) is None
    assert needs_apply(after, before) is not None


def test_a_change_by_somebody_else_is_noticed() -> None:
    wanted = stamped(children()["Service", "p-miner"], OWNER)
    live = json.loads(json.dumps(wanted))
    live["spec"]["ports"][0]["targetPort"] = 9
    assert "targetPort" in (needs_apply(wanted, live) or "")
