"""LeaderWorkerSet P-engine: a leader that answers, workers that compute with it, and nobody but them at their ports."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bettertherapy_api import names
from tests.unit.operator.children.pods import IMAGES, NOW, built, children, containers, pod_of
from tests.unit.operator.samples import pool
from twin_operator.domain.engine_groups import deployment_of
from twin_operator.domain.pool_facts import deployment_facts
from twin_operator.domain.pool_update import Pace, unproven
from twin_operator.domain.tuning import DWELL, Needs
from twin_operator.kinds.miner_pool.children import rollout_of
from twin_operator.kinds.miner_pool.engine_update import CAUSE_ANNOTATION
from twin_operator.kinds.miner_pool.plan import RUNS_PODS

GROUP: dict[str, Any] = {
    "engine": {"device": "GPU", "group": {"nodes": 2, "adaptersClaimName": "shared"}},
    "resources": {"limits": {"nvidia.com/gpu": 8}},
    "baseModel": {"name": "m", "uri": "hf://o/m"},
}
READY: dict[str, Any] = {
    "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
    "conditions": [{"type": "Available", "status": "True", "lastTransitionTime": "2026-01-05T11:00:00Z"}],
}  # fmt: skip


def said(**times: str) -> list[dict[str, Any]]:
    """Return conditions as the controller of LeaderWorkerSets writes them; those that end in ! are True. One that turns
    False keeps the time at which it became True.
    """
    return [
        {"type": name, "status": "True" if time.endswith("!") else "False", "lastTransitionTime": time.rstrip("!")}
        for name, time in times.items()
    ]


def group(**spec: Any) -> dict[str, Any]:
    return children(**{**GROUP, **spec})["LeaderWorkerSet", "p-engine"]


def templates(**spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    made = group(**spec)["spec"]["leaderWorkerTemplate"]
    return made["leaderTemplate"], made["workerTemplate"]


def pods(**spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    leader, worker = templates(**spec)
    return leader["spec"], worker["spec"]


def engine(pod: dict[str, Any]) -> dict[str, Any]:
    return containers(pod)["engine"]


def test_it_stands_in_place_of_the_deployment() -> None:
    made = children(**GROUP)
    assert ("LeaderWorkerSet", "p-engine") in made
    assert ("Deployment", "p-engine") not in made
    assert ("Deployment", "p-miner") in made
    assert not any(kind == "LeaderWorkerSet" for kind, _ in children())


def test_a_group_starts_together_and_goes_together() -> None:
    spec = group(replicas=3)["spec"]
    assert spec["replicas"] == 3
    assert spec["leaderWorkerTemplate"]["size"] == 2
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert spec["startupPolicy"] == "LeaderCreated"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (None, {"maxUnavailable": 0, "maxSurge": 1}),
        ({"type": "RollingUpdate", "maxUnavailable": 1, "maxSurge": 0}, {"maxUnavailable": 1, "maxSurge": 0}),
        ({"type": "Recreate"}, {"maxUnavailable": "100%", "maxSurge": 0}),
    ],
)
def test_an_update_replaces_groups_as_it_would_pods(strategy: Any, expected: dict[str, Any]) -> None:
    made = group(engine={**GROUP["engine"], **({"updateStrategy": strategy} if strategy else {})})
    assert made["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"] == expected


def test_tensors_are_split_within_a_node_and_layers_between_nodes() -> None:
    for pod in pods():
        arguments = engine(pod)["args"]
        assert {"--tensor-parallel-size=8", "--pipeline-parallel-size=2", "--nnodes=2"} <= set(arguments)
        assert "--master-addr=$(LWS_LEADER_ADDRESS)" in arguments


def test_leader_and_workers_know_their_place() -> None:
    leader, worker = (engine(pod) for pod in pods())
    assert "--node-rank=0" in leader["args"]
    assert "--headless" not in leader["args"]
    assert "--node-rank=$(LWS_WORKER_INDEX)" in worker["args"]
    assert "--headless" in worker["args"]
    assert "--node-rank=0" not in worker["args"]


def test_a_worker_runs_vllms_own_program_since_the_servers_module_knows_no_headless() -> None:
    leader, worker = (engine(pod) for pod in pods())
    assert leader["command"] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert worker["command"] == ["python3", "-m", "vllm.entrypoints.cli.main", "serve"]
    assert worker["args"][0] == "/models/current"
    assert not any(each.startswith(("--model=", "--uds=")) for each in worker["args"])


def test_agent_and_proofs_are_the_leaders_alone() -> None:
    leader, worker = pods()
    assert "agent" in containers(leader)
    assert set(containers(leader)) - set(containers(worker)) == {"agent"}
    volumes = {volume["name"] for volume in worker["volumes"]}
    assert not volumes & {"run", "agent-tmp", "api-token", names.POOL_TOKENS_VOLUME}
    assert "livenessProbe" not in engine(worker)
    assert "lifecycle" not in engine(worker)


def test_every_mount_has_its_volume() -> None:
    for pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for each in containers(pod).values() for mount in each["volumeMounts"]} <= volumes


def test_adapters_lie_on_a_claim_in_a_folder_for_each_group() -> None:
    for pod in pods():
        (volume,) = [each for each in pod["volumes"] if each["name"] == "adapters"]
        assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
        for container in containers(pod).values():
            mounts = [each for each in container["volumeMounts"] if each["name"] == "adapters"]
            if not mounts:
                continue
            assert mounts[0]["subPathExpr"] == "p/$(ENGINE_GROUP)"
            (variable,) = [each for each in container["env"] if each["name"] == "ENGINE_GROUP"]
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == "metadata.labels['leaderworkerset.sigs.k8s.io/group-index']"


def test_workers_read_adapters_and_write_none() -> None:
    _, worker = pods()
    (mount,) = [each for each in engine(worker)["volumeMounts"] if each["name"] == "adapters"]
    assert mount["readOnly"] is True


def test_processes_of_several_nodes_talk_at_the_pods_own_address() -> None:
    for pod in pods():
        variables = {each["name"]: each for each in engine(pod)["env"]}
        assert variables["VLLM_HOST_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        assert not variables.keys() & {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}


def test_nobody_but_the_pools_engines_reaches_those_ports() -> None:
    policy = children(**GROUP)["NetworkPolicy", "p-engine"]["spec"]
    everybody = policy["podSelector"]
    assert everybody["matchExpressions"][0]["values"] == ["engine", "engine-worker"]
    without_ports = [rule for rule in policy["ingress"] if "ports" not in rule]
    assert without_ports == [{"from": [{"podSelector": everybody}]}]
    alone = children()["NetworkPolicy", "p-engine"]["spec"]
    assert all("ports" in rule for rule in alone["ingress"])


def test_workers_are_told_apart_from_engines() -> None:
    leader, worker = (each["metadata"]["labels"] for each in templates())
    assert leader[names.LABEL_COMPONENT] == "engine"
    assert worker[names.LABEL_COMPONENT] == "engine-worker"
    assert leader[names.LABEL_POOL] == worker[names.LABEL_POOL] == "p"


def test_a_drain_that_takes_a_worker_counts() -> None:
    budget = children(**GROUP, replicas=2)["PodDisruptionBudget", "p-engine"]["spec"]
    assert budget["selector"]["matchExpressions"][0]["values"] == ["engine", "engine-worker"]


def test_what_the_user_says_of_parallelism_stands() -> None:
    made = pods(engine={**GROUP["engine"], "args": ["--tensor-parallel-size=16"]})
    for pod in made:
        said = [each for each in engine(pod)["args"] if "parallel-size" in each]
        assert said == ["--tensor-parallel-size=16"]
        assert "--nnodes=2" in engine(pod)["args"]


def test_a_groups_status_is_told_as_a_deployments() -> None:
    live = {**group(), "status": READY}
    live["metadata"] = {**live["metadata"], "generation": 3}
    facts = deployment_facts(deployment_of(live))
    assert (facts.wanted, facts.ready, facts.rolled_out) == (1, 1, True)
    assert facts.follows_slices
    assert facts.brings_tokens
    fresh = deployment_facts(deployment_of({**live, "status": {}}))
    assert (fresh.ready, fresh.rolled_out) == (0, False)


def test_an_update_of_the_operators_waits_for_its_window_as_a_deployments() -> None:
    window = {"maintenanceWindow": {"schedule": "0 3 * * *", "seconds": 3600}}
    spec = {**GROUP, "engine": {**GROUP["engine"], "updateStrategy": window}}
    live = {**children(**spec)["LeaderWorkerSet", "p-engine"], "status": READY}
    live["metadata"] = {**live["metadata"], "generation": 1}
    before = pod_of(deployment_of(live) or {})
    changed = {**spec, "baseModel": {"name": "m", "uri": "hf://o/other"}}
    plan = built(spec=changed, engine=deployment_of(live))
    assert plan.held is not None
    (made,) = [each for each in plan.manifests if each["kind"] == "LeaderWorkerSet"]
    assert made["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"] == before
    assert made["spec"] == live["spec"]


SCALED: dict[str, Any] = {
    "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
    "conditions": said(Progressing="2026-01-05T11:59:00Z!", Available="2026-01-05T10:00:00Z"),
}  # fmt: skip
"""A second group has just been asked for."""
REPLACED: dict[str, Any] = {
    "replicas": 3, "readyReplicas": 2, "updatedReplicas": 1,
    "conditions": said(
        Progressing="2026-01-05T11:59:00Z!", Available="2026-01-05T10:00:00Z", UpdateInProgress="2026-01-05T11:59:00Z!"
    ),
}  # fmt: skip
CLOSED = {"maintenanceWindow": {"schedule": "0 3 * * *", "seconds": 3600}}
TWO: dict[str, Any] = {**GROUP, "replicas": 2, "engine": {**GROUP["engine"], "updateStrategy": CLOSED}}
MORE_TWINS = Needs(adapters=40, twins=40, rank=16)


def running(status: dict[str, Any]) -> dict[str, Any]:
    live = {**group(**TWO), "status": status}
    live["metadata"] = {**live["metadata"], "generation": 2}
    found = deployment_of(live)
    assert found is not None
    return found


def test_groups_that_are_scaled_are_not_replaced_so_what_they_lack_takes_its_time() -> None:
    made = built(spec=TWO, engine=running(SCALED), needs=MORE_TWINS)
    assert made.tuning is not None
    assert (made.tuning.restarts, made.tuning.due) == (False, NOW + DWELL)


def test_an_update_waits_for_its_window_while_groups_are_scaled() -> None:
    newer = replace(IMAGES, engine_gpu="g:2")
    assert built(spec=TWO, engine=running(SCALED), images=newer).held is not None
    assert built(spec=TWO, engine=running(REPLACED), images=newer).held is None


def test_groups_that_are_replaced_take_along_what_they_lack() -> None:
    made = built(spec=TWO, engine=running(REPLACED), needs=MORE_TWINS)
    assert made.tuning is not None
    assert made.tuning.restarts


def test_groups_that_come_up_for_the_first_time_are_on_their_way() -> None:
    first = {**SCALED, "conditions": said(Progressing="2026-01-05T11:59:00Z!")}
    made = built(spec=TWO, engine=running(first), needs=MORE_TWINS)
    assert made.tuning is not None
    assert made.tuning.restarts


@pytest.mark.parametrize(("began", "broken"), [("2026-01-05T10:00:30Z!", True), ("2026-01-05T11:59:00Z!", False)])
def test_since_when_groups_are_not_all_ready_tells_whether_the_update_broke_them(began: str, broken: bool) -> None:
    live = running({**SCALED, "conditions": said(Progressing=began, Available="2026-01-05T10:00:00Z")})
    live["metadata"]["annotations"] = {**live["metadata"]["annotations"], CAUSE_ANNOTATION: "Operator"}
    rollout = rollout_of(pool(**TWO), IMAGES, needs=Needs(), engine=live, now=NOW)
    assert rollout.finished == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert unproven(rollout, pace=Pace(), now=NOW) is broken


def test_the_pods_of_a_pool_come_from_one_kind_of_object() -> None:
    for spec in ({}, GROUP):
        kinds = [kind for kind, name in children(**spec) if name == "p-engine" and kind in RUNS_PODS]
        assert len(kinds) == 1
