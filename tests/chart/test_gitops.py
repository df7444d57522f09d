"""Argo CD and Flux: the same render each time, nothing that an autoscaler decides, health by each tool's own rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from tests.chart.conftest import SUBNET_OWNER
from tests.chart.definitions import folder
from tests.conftest import Kubectl
from twin_operator.domain.appearances import TABLES
from twin_operator.domain.reasons import Reason

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "examples" / "gitops"
KINDS = {"twin": "DoctorTwin", "pool": "MinerPool", "validator": "Validator"}
Manifest = dict[str, Any]
RENDERED = {
    "twin-operator": [], "local-subnet": list(SUBNET_OWNER),
    "twin-miner": [
        "--set", "persistence.store.enabled=true,persistence.cache.enabled=true", "--set-json",
        'twins=[{"name":"dr-a","doctor":{"name":"Dr. A","licence":"1"}}]',
    ],
    "twin-validator": ["--set", "exposure.ingress.enabled=true,exposure.ingress.hosts={a.example.org}"],
}  # fmt: skip


@pytest.mark.parametrize("chart", RENDERED)
def test_nothing_differs_between_two_renders(chart: str, helm: Callable) -> None:
    arguments = ["template", "rel", str(ROOT / "charts" / chart), "-n", "ns", *RENDERED[chart]]
    assert helm(*arguments).stdout == helm(*arguments).stdout


@pytest.mark.parametrize("path", sorted((ROOT / "charts").glob("*/templates/**/*.*")), ids=lambda path: path.name)
def test_no_template_asks_for_chance_or_the_time(path: Path) -> None:
    """Rendering twice in one second would not show a clock."""
    called = r"\b(rand\w+|gen(CA|PrivateKey|SelfSignedCert|SignedCert)\w*|uuidv4|now|ago|htpasswd|bcrypt|encryptAES)\b"
    for expression in re.findall(r"\{\{-?(.*?)-?\}\}", path.read_text(), re.DOTALL):
        if not expression.lstrip().startswith("/*"):
            assert not re.search(called, re.sub(r'"(?:\\.|[^"\\])*"', "", expression)), expression


def test_replicas_are_an_autoscalers_where_one_is_named(render: Callable) -> None:
    def spec(*settings: str) -> Manifest:
        (pool,) = [each for each in render("twin-miner", *settings) if each["kind"] == "MinerPool"]
        return dict(pool["spec"])

    assert "replicas" not in spec()
    assert spec("--set", "pool.replicas=2")["replicas"] == 2
    named = spec("--set", "pool.replicas=2,pool.autoscaling.mode=External,pool.autoscaling.max=4")
    assert "replicas" not in named
    assert named["autoscaling"] == {"mode": "External", "max": 4}


def test_replicas_of_gateways_are_left_out_by_default(render: Callable) -> None:
    (validator,) = [each for each in render("twin-validator") if each["kind"] == "Validator"]
    assert "replicas" not in validator["spec"].get("gateway", {})


@pytest.fixture(scope="module")
def health() -> Callable[[Manifest], tuple[str, str]]:
    """Run the check as Argo CD does: the object is `obj`, Lua 5.1, and a table with status and message comes back."""
    config = yaml.safe_load((SAMPLES / "argocd-health.yaml").read_text())
    assert (config["kind"], config["metadata"]["name"]) == ("ConfigMap", "argocd-cm")
    (pattern, custom), *others = yaml.safe_load(config["data"]["resource.customizations"]).items()
    assert not others
    assert pattern == "bettertherapy.io/*"

    def run(manifest: Manifest) -> tuple[str, str]:
        lua = LuaRuntime(register_eval=False, unpack_returned_tuples=True)
        for library in ("os", "io", "package", "require", "debug", "dofile", "loadfile"):  # Argo CD opens none of them
            lua.globals()[library] = None
        lua.globals().obj = lua.table_from(manifest, recursive=True)
        said = lua.execute(custom["health.lua"])
        return said["status"], said["message"]

    return run


def thing(kind: str, generation: int = 3, **status: Any) -> Manifest:
    return {
        "apiVersion": "bettertherapy.io/v1alpha1", "kind": kind,
        "metadata": {"name": "x", "namespace": "ns", "generation": generation},
        **({"status": status} if status else {}),
    }  # fmt: skip


def ready(status: str, reason: str, message: str = "words") -> list[Manifest]:
    return [
        {"type": "CapacityAvailable", "status": "True", "reason": "Sufficient", "message": "m"},
        {"type": "Ready", "status": status, "reason": reason, "message": message, "observedGeneration": 3},
    ]


def reasons(status: str) -> Iterator[tuple[str, Reason]]:
    """Yield (kind, reason) of all that the condition Ready may say with this status."""
    for table in TABLES:
        if table.name in KINDS:
            for place in table.places:
                if place.where == f"Ready={status}":
                    yield from ((KINDS[table.name], reason) for reason in place.reasons)


RESTING = {Reason.SCALED_TO_ZERO, Reason.ASLEEP}
OF_THE_POOL = {Reason.POOL_NOT_READY}
"""The pool's own health says whether one has to wait."""


@pytest.mark.parametrize(("kind", "reason"), sorted(set(reasons("False"))))
def test_each_reason_has_the_health_that_its_remedy_says(kind: str, reason: Reason, health: Callable) -> None:
    found, message = health(thing(kind, observedGeneration=3, conditions=ready("False", reason.value)))
    waits = reason.remedy.startswith("wait") or reason in OF_THE_POOL
    wanted = "Suspended" if reason in RESTING else "Progressing" if waits else "Degraded"
    assert found == wanted
    assert "words" in message


@pytest.mark.parametrize("kind", KINDS.values())
def test_ready_is_healthy_once_the_newest_spec_was_seen(kind: str, health: Callable) -> None:
    conditions = ready("True", "AllReady")
    assert health(thing(kind, observedGeneration=3, conditions=conditions))[0] == "Healthy"
    assert health(thing(kind, observedGeneration=2, conditions=conditions))[0] == "Progressing"
    assert health(thing(kind, observedGeneration=3, conditions=ready("Unknown", "EntryUnreadable")))[0] == "Progressing"
    assert health(thing(kind))[0] == "Progressing"
    assert health(thing(kind, observedGeneration=3))[0] == "Progressing"


@pytest.mark.parametrize("kind", ["FineTuneRun", "ValidatorRound"])
def test_work_is_healthy_when_it_has_ended_and_degraded_when_it_failed(kind: str, health: Callable) -> None:
    running = [{"type": "Running", "status": "True", "reason": "StageTrain", "message": "m"}]
    failed = [{"type": "Failed", "status": "True", "reason": "Diverged", "message": "the loss is no number"}]
    rejected = [{"type": "Rejected", "status": "True", "reason": "Reject", "message": "m"}]
    assert health(thing(kind, stage="Train", conditions=running)) == ("Progressing", "Train")
    assert health(thing(kind, stage="Failed", completionTime="t", conditions=failed)) == (
        "Degraded", "the loss is no number",
    )  # fmt: skip
    assert health(thing(kind, stage="Rejected", completionTime="t", conditions=rejected))[0] == "Healthy"


@pytest.mark.parametrize("kind", ["PodReport", "RoutingSlice"])
def test_what_has_no_status_is_healthy(kind: str, health: Callable) -> None:
    assert health(thing(kind))[0] == "Healthy"


def applications() -> Iterator[tuple[str, str, Manifest]]:
    """Yield (sample, chart, values) of every release in the samples."""
    for each in yaml.safe_load_all((SAMPLES / "argocd.yaml").read_text()):
        source = each["spec"]["source"]
        yield f"argocd:{each['metadata']['name']}", source["chart"], source["helm"]["valuesObject"]
    for each in yaml.safe_load_all((SAMPLES / "flux.yaml").read_text()):
        if each["kind"] == "HelmRelease":
            yield f"flux:{each['metadata']['name']}", each["spec"]["chartRef"]["name"], each["spec"]["values"]


@pytest.mark.parametrize(("name", "chart", "values"), list(applications()), ids=lambda value: str(value)[:24])
def test_values_of_the_samples_render(
    name: str, chart: str, values: Manifest, render: Callable, tmp_path: Path
) -> None:
    (tmp_path / "values.json").write_text(json.dumps(values))
    documents = render(chart, "-f", str(tmp_path / "values.json"))
    assert documents
    assert "registry.example.org/team/" in json.dumps(documents)
    assert all("replicas" not in each["spec"] for each in documents if each["kind"] == "MinerPool"), name


def test_the_samples_name_each_other() -> None:
    documents = list(yaml.safe_load_all((SAMPLES / "flux.yaml").read_text()))
    sources = {each["metadata"]["name"]: each for each in documents if each["kind"] == "OCIRepository"}
    releases = {each["metadata"]["name"]: each for each in documents if each["kind"] == "HelmRelease"}
    for release in releases.values():
        source = sources[release["spec"]["chartRef"]["name"]]
        assert source["spec"]["url"].endswith("/" + source["metadata"]["name"])
        assert (ROOT / "charts" / source["metadata"]["name"] / "Chart.yaml").exists()
        assert {each["name"] for each in release["spec"].get("dependsOn", [])} <= releases.keys()


CRDS = {
    "argocd.yaml": [("github.com/argoproj/argo-cd/v3", "manifests/crds/application-crd.yaml")],
    "flux.yaml": [
        ("github.com/fluxcd/helm-controller", "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml"),
        ("github.com/fluxcd/source-controller", "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml"),
    ],
}


@pytest.mark.cluster
@pytest.mark.parametrize("sample", CRDS)
def test_samples_are_valid_by_the_tools_own_definitions(sample: str, kubectl: Kubectl, namespace: str) -> None:
    for module, path in CRDS[sample]:
        definition = folder(module) / path
        name = yaml.safe_load(definition.read_text())["metadata"]["name"]
        kubectl("apply", "--server-side", "-f", str(definition))
        kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    for document in yaml.safe_load_all((SAMPLES / sample).read_text()):
        document["metadata"]["namespace"] = namespace
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))
