"""What holds for every child of a pool: restricted pods, tokens only where needed, the same bytes each time."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.pod_overlay import OWNED_PATHS, OWNED_VARIABLES
from tests.unit.operator.children.pods import GPU, OVERLAY, VARIANTS, children, containers
from twin_operator.engine.apply import Owner, needs_apply, stamped

OWNER = Owner(api_version=names.API_VERSION, kind="MinerPool", namespace="clinic", name="p", uid="u")
TUNING = {"VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_NUM_OF_RESERVED_CPU"}


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
            "emptyDir", "persistentVolumeClaim", "secret", "configMap", "projected",
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


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_what_the_operator_sets_in_a_pod_no_overlay_may_set(spec: dict[str, Any]) -> None:
    asked = {mount["mountPath"] for mount in OVERLAY["volumes"]}
    for (kind, _), child in children(**spec).items():
        if kind != "Deployment":
            continue
        for container in containers(child["spec"]["template"]["spec"]).values():
            for variable in {each["name"] for each in container.get("env", [])} - TUNING - {"HF_TOKEN"}:
                assert any(re.fullmatch(pattern, variable) for pattern in OWNED_VARIABLES), variable
            for mount in container["volumeMounts"]:
                if mount["mountPath"] not in asked:
                    assert any(f"{mount['mountPath']}/".startswith(f"{path}/") for path in OWNED_PATHS), mount


def test_planning_twice_gives_the_same_bytes() -> None:
    assert json.dumps(list(children().values())) == json.dumps(list(children().values()))


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
