"""Everything the charts make is valid by the schemas of the API server itself (kubeconform, without downloads)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import SUBNET_OWNER
from tests.conftest import Kubectl

ROOT = Path(__file__).resolve().parents[2]
RECURSIVE = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
CASES = {
    "operator": ("twin-operator", []),
    "operator-one-namespace": ("twin-operator", ["--set", "watchNamespace=clinic"]),
    "operator-strict-network": (
        "twin-operator",
        ["--set", "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring"],
    ),
    "miner": ("twin-miner", []),
    "local-subnet": ("local-subnet", list(SUBNET_OWNER)),
    "miner-cpu": ("twin-miner", ["-f", str(ROOT / "charts/twin-miner/ci/cpu-values.yaml")]),
    "miner-volumes": (
        "twin-miner",
        ["--set", "persistence.store.enabled=true", "--set", "persistence.cache.enabled=true"],
    ),
    "miner-twins": (
        "twin-miner",
        ["--set-json", 'twins=[{"name":"dr-a","doctor":{"name":"Dr. A","licence":"1"}}]'],
    ),
}


def inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Write references out; objects with known fields refuse others; quantities may be numbers or strings."""
    if isinstance(node, list):
        return [inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        if name == RECURSIVE:
            return {}
        if name.endswith((".IntOrString", ".Quantity")):
            return {"type": ["string", "number"]}
        return inlined(definitions[name], definitions)
    out = {
        key: {name: inlined(child, definitions) for name, child in value.items()}
        if key == "properties"
        else inlined(value, definitions)
        for key, value in node.items()
        if key not in {"description", "format"} and not key.startswith("x-kubernetes-")
    }
    if "properties" in out and "additionalProperties" not in out:
        out["additionalProperties"] = False
    return out


@pytest.fixture(scope="module")
def schemas(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JSON schemas: those of the API server, and those of our CustomResourceDefinitions."""
    folder = tmp_path_factory.mktemp("schemas")
    definitions = json.loads(kubectl("get", "--raw", "/openapi/v2").stdout)["definitions"]
    for definition in definitions.values():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if kind["group"] == "bettertherapy.io" or kind["kind"].endswith(("List", "Options", "Event")):
                continue
            parts = [kind["kind"], *([kind["group"].split(".")[0]] if kind["group"] else []), kind["version"]]
            (folder / f"{'-'.join(parts).lower()}.json").write_text(json.dumps(inlined(definition, definitions)))
    for path in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())
        schema = inlined(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], {})
        schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        (folder / f"{crd['spec']['names']['singular']}-bettertherapy-v1alpha1.json").write_text(json.dumps(schema))
    return folder


def validate(tool: Callable[[str], str], schemas: Path, manifests: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            tool("kubeconform"), "-strict", "-summary", "-verbose",
            "-schema-location", f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", "-",
        ],
        input=manifests, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES)
def test_rendered_objects_are_valid(case: str, helm: Callable, tool: Callable[[str], str], schemas: Path) -> None:
    chart, arguments = CASES[case]
    text = helm("template", "rel", str(ROOT / "charts" / chart), "--namespace", "ns", *arguments).stdout
    done = validate(tool, schemas, text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout


@pytest.mark.cluster
@pytest.mark.parametrize(("right", "wrong"), [("replicas: 2", "replicsa: 2"), ("replicas: 2", "replicas: two")])
def test_a_wrong_field_would_be_found(
    right: str, wrong: str, helm: Callable, tool: Callable[[str], str], schemas: Path
) -> None:
    text = helm("template", "rel", str(ROOT / "charts/twin-operator"), "--set", "crds.install=false").stdout
    assert right in text
    assert validate(tool, schemas, text.replace(right, wrong)).returncode != 0
