"""Deployment V-gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from bettertherapy_api.pod_overlay import OWNED_PATHS, OWNED_VARIABLES
from neurons.cluster.access import SERVICE_ACCOUNT_DIR
from neurons.ledger.database import parse_url
from neurons.validator.gateway import settings
from neurons.validator.gateway.files import FileError, FollowedFile
from neurons.validator.gateway.keys import KeysFile
from tests.unit.operator.validator.validators import (
    OVERLAY,
    PAGES,
    POSTGRES,
    VARIANTS,
    children,
    gateway_container,
    gateway_pod,
)


def volumes(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {volume["name"]: volume for volume in pod["volumes"]}


def parsed(**spec: Any) -> settings.Settings:
    container = gateway_container(**spec)
    variables = {each["name"]: each.get("value", "") for each in container["env"]}
    return settings.parse(container["args"], variables)


def test_what_the_operator_says_is_what_a_gateway_understands() -> None:
    given = parsed(
        gateway={
            "replicas": 1, "minersPerQuery": 5, "deadlineSeconds": 12, "country": "NP",
            "corsOrigins": ["https://a.example", "http://localhost:3000"],
        }
    )  # fmt: skip
    assert (given.chain, given.netuid, given.port) == ("finney", 42, names.GATEWAY_PORT)
    assert (given.patience.miners, given.patience.deadline, given.country) == (5, 12.0, "NP")
    assert given.cors_origins == frozenset({"https://a.example", "http://localhost:3000"})
    assert given.drain_seconds == 42.0
    assert given.ledger_url is not None
    assert parse_url(given.ledger_url).database == f"{names.STATE_DIR}/ledger.db"


def test_a_gateway_is_told_whose_report_it_writes_and_has_the_token_for_it() -> None:
    pod = {
        "metadata.name": "v-gateway-1", "metadata.namespace": "clinic", "metadata.uid": "uid-1",
        "metadata.labels['bettertherapy.io/validator']":
            children()["Deployment", "v-gateway"]["spec"]["template"]["metadata"]["labels"][names.LABEL_VALIDATOR],
    }  # fmt: skip
    container = gateway_container()
    said = {each["name"]: pod[each["valueFrom"]["fieldRef"]["fieldPath"]] for each in container["env"]
            if "fieldRef" in each.get("valueFrom", {})}  # fmt: skip
    own = settings.parse(container["args"], said).own_pod
    assert own == settings.OwnPod(validator="v", namespace="clinic", name="v-gateway-1", uid="uid-1")
    [mount] = [each for each in container["volumeMounts"] if each["mountPath"] == str(SERVICE_ACCOUNT_DIR)]
    assert mount["readOnly"] is True
    assert "projected" in volumes(gateway_pod())[mount["name"]]


def test_prometheus_is_told_where_a_gateways_metrics_are_unless_the_spec_says_otherwise() -> None:
    def annotations(**pod: Any) -> dict[str, str]:
        deployment = children(gateway={"pod": pod} if pod else {})["Deployment", "v-gateway"]
        found: dict[str, str] = deployment["spec"]["template"]["metadata"]["annotations"]
        return {key: value for key, value in found.items() if key.startswith("prometheus.io/")}

    [port] = [each for each in gateway_container()["ports"] if each["name"] == "metrics"]
    assert port["containerPort"] == parsed().metrics_port != parsed().port
    told = {"prometheus.io/scrape": "true", "prometheus.io/port": "8091", "prometheus.io/path": "/metrics"}
    assert annotations() == told
    assert annotations(annotations={"prometheus.io/scrape": "false"}) == {**told, "prometheus.io/scrape": "false"}
    [leads] = children()["Service", "v-gateway"]["spec"]["ports"]
    assert leads["targetPort"] == parsed().port, "the Service is for those who ask"


def test_each_file_that_a_gateway_reads_is_mounted_where_it_looks() -> None:
    given, container = parsed(), gateway_container()
    mounted = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    found = volumes(gateway_pod())
    for path, secret in (
        (given.wallet_dir, "hotkey"), (given.keys_file, "v-gateway-keys"), (given.secret_file, "v-gateway-sessions"),
    ):  # fmt: skip
        assert path is not None
        mount = mounted[str(path if str(path) in mounted else path.parent)]
        assert mount["readOnly"] is True
        source = found[mount["name"]]["secret"]
        assert (source["secretName"], source["defaultMode"]) == (secret, 0o440)
        if path != given.wallet_dir:
            assert [item["path"] for item in source["items"]] == [path.name]
    assert given.twins_file is not None
    twins = found[mounted[str(given.twins_file.parent)]["name"]]["configMap"]["name"]
    [data] = children()["ConfigMap", twins]["data"]
    assert data == given.twins_file.name
    assert mounted[str(given.state_dir)].get("readOnly") is None
    assert Path(names.STATE_DIR) == given.state_dir


def test_pages_are_served_where_the_spec_names_their_origin_and_nowhere_else() -> None:
    assert parsed().pages_origin is None
    given = parsed(gateway={"pages": PAGES})
    assert (given.pages_origin, given.pages_per_minute) == ("https://ask.clinic.example", 30)
    assert (given.licence_registers, given.interactions_store) == (("nppes",), "pvc://adapters/clinic")
    least = parsed(gateway={"pages": {"origin": "http://localhost:8090"}})
    assert (least.pages_origin, least.pages_per_minute) == ("http://localhost:8090", 120)
    assert (least.licence_registers, least.interactions_store) == ((), None)


def test_the_store_of_doctors_conversations_is_where_the_gateway_looks_for_it() -> None:
    pod, container = (make(gateway={"pages": PAGES}) for make in (gateway_pod, gateway_container))
    [mount] = [each for each in container["volumeMounts"] if each["mountPath"] == f"{names.PVC_DIR}/adapters"]
    assert mount.get("readOnly") is None
    assert volumes(pod)[mount["name"]]["persistentVolumeClaim"] == {"claimName": "adapters"}
    remote = {"pages": {**PAGES, "store": {"uri": "s3://b/x", "secretRef": {"name": "s3"}}}}
    pod, container = (make(gateway=remote) for make in (gateway_pod, gateway_container))
    [mount] = [each for each in container["volumeMounts"] if each["mountPath"] == names.STORE_SECRET_DIR]
    assert mount["readOnly"] is True
    assert volumes(pod)[mount["name"]]["secret"] == {"secretName": "s3", "defaultMode": 0o440}


def test_a_local_subnet_is_the_service_of_that_name_in_the_namespace() -> None:
    assert parsed(chain={"network": "local", "netuid": 1}).chain == "http://subnet.clinic.svc:9944"


def test_the_wallets_secret_is_mounted_whole_and_nowhere_else() -> None:
    # Not optional, and no items picked: a missing Secret keeps the pod from starting, a coldkey in it is found.
    wallet = volumes(gateway_pod())["wallet"]
    assert wallet == {"name": "wallet", "secret": {"secretName": "hotkey", "defaultMode": 0o440}}
    for (kind, name), child in children(**POSTGRES).items():
        assert ('"hotkey"' in json.dumps(child)) is ((kind, name) == ("Deployment", "v-gateway"))


def test_an_embedded_ledger_lies_on_a_claim_that_two_gateways_never_write() -> None:
    deployment = children()["Deployment", "v-gateway"]["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    assert volumes(deployment["template"]["spec"])["state"]["persistentVolumeClaim"]["claimName"] == "v-gateway-state"


def test_a_databases_address_comes_out_of_its_secret_and_stands_in_no_manifest() -> None:
    deployment = children(**POSTGRES)["Deployment", "v-gateway"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "emptyDir" in volumes(deployment["template"]["spec"])["state"]
    [address] = [each for each in gateway_container(**POSTGRES)["env"] if each["name"] == "LEDGER_URL"]
    assert address == {"name": "LEDGER_URL", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "uri"}}}


def test_a_gateway_starts_without_its_keys_and_says_which_are_missing() -> None:
    """Else the kubelet waits for the key of the Secret for ever, and the Validator can't say for what."""
    mounted = volumes(gateway_pod(gateway={"replicas": 1, "keysSecretRef": {"name": "mine"}}))
    assert mounted["keys"]["secret"]["optional"] is True
    with pytest.raises(FileError, match=r"it lacks the key keys\.json"):
        FollowedFile(Path("/nowhere/keys.json"), KeysFile, what="API keys")


def test_keys_come_from_the_validators_secret_or_the_one_it_names() -> None:
    for asked, secret in (({}, "v-gateway-keys"), ({"keysSecretRef": {"name": "mine"}}, "mine")):
        assert volumes(gateway_pod(gateway={"replicas": 1, **asked}))["keys"]["secret"]["secretName"] == secret


def test_a_pod_has_time_to_end_its_answers_and_to_write_them_down() -> None:
    pod = gateway_pod(gateway={"replicas": 1, "deadlineSeconds": 600})
    assert pod["terminationGracePeriodSeconds"] >= 5 + 3 * 630


def test_several_gateways_are_spread_over_nodes_unless_the_spec_says_how() -> None:
    assert "topologySpreadConstraints" not in gateway_pod()
    [spread] = gateway_pod(**POSTGRES, gateway={"replicas": 2})["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    [asked] = gateway_pod(**POSTGRES, gateway={"replicas": 2, "pod": OVERLAY})["topologySpreadConstraints"]
    own = {names.LABEL_VALIDATOR: "v", names.LABEL_COMPONENT: "gateway"}
    assert (asked["topologyKey"], asked["labelSelector"]) == ("zone", {"matchLabels": own})


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_what_the_operator_sets_no_overlay_may_set(spec: dict[str, Any]) -> None:
    for variable in {each["name"] for each in gateway_container(**spec)["env"]} - {"OMP_NUM_THREADS"}:
        assert any(re.fullmatch(pattern, variable) for pattern in OWNED_VARIABLES), variable
    for mount in gateway_container(**spec)["volumeMounts"]:
        if mount["mountPath"] != "/ca":
            assert any(f"{mount['mountPath']}/".startswith(f"{path}/") for path in OWNED_PATHS), mount
