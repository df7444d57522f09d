"""Upgrade from the charts of the release before, back to them, up again, and removal, on a real API server.

`former/` has those charts as they were packed; docs/releasing.md says when they are replaced. No pod runs here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import ROOT, Helm
from tests.conftest import Kubectl

FORMER = ROOT / "tests" / "chart" / "former"
CHARTS = ROOT / "charts"
VALUES: dict[str, dict[str, Any]] = {
    "twin-miner": {
        "pool": {"replicas": 0, "miner": {"replicas": 0}},
        "persistence": {"store": {"enabled": True}},
        "twins": [{"name": "dr-a", "doctor": {"name": "Dr. A", "licence": "0123"}, "systemPrompt": "Be kind."}],
    },
    "twin-validator": {
        "validator": {"gateway": {"replicas": 0}},
        "twins": [
            {
                "name": "dr-b", "doctor": {"name": "Dr. B", "licence": "1"}, "baseModel": {"name": "m"},
                "poolSelector": {},
            }
        ],
    },
}  # fmt: skip
OWN = {
    "twin-miner": ["minerpool/rel", "doctortwin/dr-a", "persistentvolumeclaim/rel-store"],
    "twin-validator": ["validator/rel", "doctortwin/dr-b"],
}
KEPT = {"persistentvolumeclaim/rel-store"}
"""What outlives the release."""

Release = Callable[..., str]


def former(chart: str) -> Path:
    [found] = FORMER.glob(f"{chart}-*.tgz")
    return found


@pytest.fixture
def release(helm: Helm, kubeconfig: Path, namespace: str) -> Release:
    """Run helm on the namespace: `release("upgrade", "rel", path)`."""

    def run(verb: str, *args: str) -> str:
        return helm(verb, *args, "-n", namespace, "--kubeconfig", str(kubeconfig)).stdout

    return run


@pytest.mark.parametrize("chart", ["twin-operator", "twin-miner", "twin-validator"])
def test_the_release_before_is_another(helm: Helm, chart: str) -> None:
    packed = yaml.safe_load(helm("show", "chart", str(former(chart))).stdout)
    present = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert packed["name"] == present["name"]
    assert packed["version"] != present["version"]
    rendered = [helm("show", "all", str(each)).stdout for each in (former(chart), CHARTS / chart)]
    assert rendered[0] != rendered[1]


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chart", VALUES)
def test_pools_twins_validators_and_claims_stay_the_same_objects(
    release: Release, kubectl: Kubectl, namespace: str, tmp_path: Path, chart: str
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(VALUES[chart]))
    values = ["-f", str(file)]

    def objects() -> dict[str, Any]:
        found = {name: json.loads(kubectl("get", name, "-n", namespace, "-o", "json").stdout) for name in OWN[chart]}
        return {name: (each["metadata"]["uid"], each["spec"]) for name, each in found.items()}

    def tested() -> str:
        [image] = re.findall(r"image: \"?(\S+?)\"?$", release("get", "hooks", "rel"), re.MULTILINE)
        return str(image)

    release("install", "rel", str(former(chart)), *values)
    before, image = objects(), tested()
    for step in (["upgrade", "rel", str(CHARTS / chart), *values], ["rollback", "rel", "1"],
                 ["upgrade", "rel", str(CHARTS / chart), *values]):  # fmt: skip
        release(*step)
        assert objects() == before, step
        # What `helm test` runs is of the release that is there.
        assert (tested() == image) == (step[0] == "rollback")
    release("uninstall", "rel", "--wait")
    there = {name for name in OWN[chart] if kubectl("get", name, "-n", namespace, check=False).returncode == 0}
    assert there == KEPT & set(OWN[chart])


@pytest.fixture
def definitions_restored(kubectl: Kubectl, crds: None) -> Iterator[None]:
    """Have the definitions and policies afterwards that the other tests count on."""
    yield
    kubectl("apply", "--server-side", "--force-conflicts", "-R", "-f", str(ROOT / "crds"))


TWIN = {
    "apiVersion": "bettertherapy.io/v1alpha1", "kind": "DoctorTwin", "metadata": {"name": "dr-a"},
    "spec": {"doctor": {"name": "Dr. A", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {}},
}  # fmt: skip
QUIET = ["--set", "replicas=0,rbac.aggregateToDefaultRoles=false"]
NEW = ["--set", "rbac.peoplesRoles=false"]
"""Of values that the release before hasn't: ClusterRoles under names that are the same in every release."""
TAKEN_OVER = ["--take-ownership", "--force-conflicts"]
"""The definitions were made by `kubectl apply`."""


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_definitions_rights_and_policies_follow_the_operators_release(
    release: Release, helm: Helm, kubectl: Kubectl, namespace: str, definitions_restored: None
) -> None:
    name = f"up-{namespace}"
    named = ["--set", f"fullnameOverride={name}", *QUIET]

    def wanted(chart: Path, *values: str) -> tuple[dict[str, Any], set[str], Any]:
        rendered = helm("template", name, str(chart), *named, *values).stdout
        documents = [each for each in yaml.safe_load_all(rendered) if each]
        return (
            {
                each["metadata"]["name"]: schema(each)
                for each in documents
                if each["kind"] == "CustomResourceDefinition"
            },
            {each["metadata"]["name"] for each in documents if each["kind"] == "ValidatingAdmissionPolicy"},
            next(each["rules"] for each in documents if each["kind"] == "ClusterRole"),
        )

    def owned(kind: str) -> list[dict[str, Any]]:
        found = json.loads(kubectl("get", kind, "-o", "json").stdout)["items"]
        note = "meta.helm.sh/release-name"
        return [each for each in found if each["metadata"].get("annotations", {}).get(note) == name]

    def there() -> tuple[dict[str, Any], set[str], Any]:
        return (
            {each["metadata"]["name"]: schema(each) for each in owned("customresourcedefinitions")},
            {each["metadata"]["name"] for each in owned("validatingadmissionpolicies")},
            json.loads(kubectl("get", "clusterrole", name, "-o", "json").stdout)["rules"],
        )

    def twin() -> str:
        return kubectl("get", "doctortwin", "dr-a", "-n", namespace, "-o", "jsonpath={.metadata.uid} {.spec}").stdout

    old, new = wanted(former("twin-operator")), wanted(CHARTS / "twin-operator", *NEW)
    assert old != new
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(TWIN))
    release("install", name, str(former("twin-operator")), *named, *TAKEN_OVER)
    before = twin()
    assert there() == old
    for step, state in (
        (["upgrade", name, str(CHARTS / "twin-operator"), *named, *NEW, *TAKEN_OVER], new),
        (["rollback", name, "1"], (old[0], old[1] | (new[1] & kept_policies()), old[2])),
        (["upgrade", name, str(CHARTS / "twin-operator"), *named, *NEW, *TAKEN_OVER], new),
    ):
        release(*step)
        assert there() == state, step
        assert twin() == before, step
    release("uninstall", name, "--wait")
    assert twin() == before
    assert {each["metadata"]["name"] for each in owned("validatingadmissionpolicies")} == kept_policies()


def kept_policies() -> set[str]:
    """Those that belong to the definitions, and stay as these do."""
    documents = [each for path in (ROOT / "crds" / "policies").glob("*.yaml") for each in _all(path)]
    return {each["metadata"]["name"] for each in of(documents, "ValidatingAdmissionPolicy")}


def _all(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def of(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in documents if each["kind"] == kind]


def schema(definition: dict[str, Any]) -> Any:
    return definition["spec"]["versions"][0]["schema"]
