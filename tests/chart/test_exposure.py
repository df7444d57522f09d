"""Ways in from outside: Ingress, Gateway API and one more Service lead to the pods that the operator makes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.definitions import folder
from tests.conftest import Kubectl
from tests.unit.operator.children.pods import children
from tests.unit.operator.validator.validators import validator
from twin_operator.kinds.validator.service import build_service

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ("twin-miner", "twin-validator")
SERVICE = {"twin-miner": "rel-miner", "twin-validator": "rel-gateway"}
NAMES = ["ask.example.org", "fragen.example.org"]
Manifest = dict[str, Any]
WAYS: dict[str, dict[str, Any]] = {
    "ingress": {"ingress": {"enabled": True, "hosts": NAMES, "tlsSecret": "tls", "className": "nginx"}},
    "ingress-without-tls": {"ingress": {"enabled": True, "hosts": NAMES}},
    "made-gateway": {"gateway": {"enabled": True, "hosts": NAMES, "className": "cilium", "tlsSecret": "tls"}},
    "made-gateway-without-tls": {"gateway": {"enabled": True, "hosts": ["*.example.org"], "className": "cilium"}},
    "own-gateway": {
        "gateway": {"enabled": True, "hosts": NAMES, "parentRefs": [{"name": "public", "namespace": "gw", "port": 443}]}
    },
    "load-balancer": {"service": {"type": "LoadBalancer", "sourceRanges": ["10.0.0.0/8"], "loadBalancerClass": "x/y"}},
    "node-port": {"service": {"type": "NodePort", "nodePort": 30080, "sourceRanges": ["10.0.0.0/8"]}},
}


def exposed(render: Callable, chart: str, way: str) -> list[Manifest]:
    documents: list[Manifest] = render(chart, "--set-json", f"exposure={json.dumps(WAYS[way])}")
    kinds = {"Ingress", "Gateway", "HTTPRoute", "Service"}
    return [each for each in documents if each["kind"] in kinds]


def operators_service(chart: str) -> Manifest:
    """Return the Service that the operator makes, for an object named as the release."""
    if chart == "twin-miner":
        return children()["Service", "p-miner"]
    return build_service(validator())


@pytest.mark.parametrize("chart", CHARTS)
def test_nothing_is_exposed_unasked(chart: str, render: Callable) -> None:
    assert not [each for each in render(chart) if each["kind"] in {"Ingress", "Gateway", "HTTPRoute", "Service"}]
    assert not [each for each in render(chart, "--set-json", "exposure=null") if each["kind"] == "Ingress"]


@pytest.mark.parametrize("chart", CHARTS)
def test_an_ingress_leads_to_the_operators_service_by_tls(chart: str, render: Callable) -> None:
    (ingress,) = exposed(render, chart, "ingress")
    assert ingress["spec"]["tls"] == [{"secretName": "tls", "hosts": NAMES}]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == NAMES
    (port,) = operators_service(chart)["spec"]["ports"]
    for rule in ingress["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": SERVICE[chart], "port": {"name": port["name"]}}


@pytest.mark.parametrize("chart", CHARTS)
def test_a_gateway_is_made_with_tls_for_each_name(chart: str, render: Callable) -> None:
    gateway, route = exposed(render, chart, "made-gateway")
    assert [each["hostname"] for each in gateway["spec"]["listeners"]] == NAMES
    for listener in gateway["spec"]["listeners"]:
        assert (listener["protocol"], listener["port"]) == ("HTTPS", 443)
        assert listener["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "tls"}]
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
    (port,) = operators_service(chart)["spec"]["ports"]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": SERVICE[chart], "port": port["port"]}]
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "600s"}


@pytest.mark.parametrize("chart", CHARTS)
def test_a_route_belongs_to_a_gateway_of_yours(chart: str, render: Callable) -> None:
    (route,) = exposed(render, chart, "own-gateway")
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gw", "port": 443}]


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("way", ["load-balancer", "node-port"])
def test_one_more_service_finds_the_same_pods_at_the_same_port(chart: str, way: str, render: Callable) -> None:
    (service,) = exposed(render, chart, way)
    operators = operators_service(chart)
    assert service["metadata"]["name"] not in {operators["metadata"]["name"], SERVICE[chart]}
    assert service["spec"]["selector"].keys() == operators["spec"]["selector"].keys()
    (wanted,) = [name for name, value in operators["spec"]["selector"].items() if name.endswith("component")]
    assert service["spec"]["selector"][wanted] == operators["spec"]["selector"][wanted]
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == operators["spec"]["ports"][0]["targetPort"]
    assert ("loadBalancerSourceRanges" in service["spec"]) == (way == "load-balancer")
    assert port.get("nodePort") == (30080 if way == "node-port" else None)


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ingress": {"enabled": True}}, "exposure.ingress.hosts is empty"),
        ({"gateway": {"enabled": True, "hosts": NAMES}}, "name Gateways of yours in parentRefs, or a className"),
        (
            {"gateway": {"enabled": True, "hosts": NAMES, "className": "a", "parentRefs": [{"name": "b"}]}},
            "remove one of them",
        ),
        (
            {"gateway": {"enabled": True, "hosts": NAMES, "tlsSecret": "a", "parentRefs": [{"name": "b"}]}},
            "TLS belongs to the Gateways in parentRefs",
        ),
        ({"ingress": {"enabled": True, "hosts": ["https://a.org"]}}, "/exposure/ingress/hosts/0"),
        ({"service": {"type": "ClusterIP"}}, "/exposure/service/type"),
    ],
)
def test_what_would_lead_nowhere_is_refused_in_words(
    chart: str, values: dict[str, Any], said: str, helm: Callable
) -> None:
    arguments = ["--set-json", f"exposure={json.dumps(values)}"]
    done = helm("template", "rel", str(ROOT / "charts" / chart), *arguments, check=False)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("chart", CHARTS)
def test_notes_say_where_it_answers_and_what_is_in_the_open(chart: str, helm: Callable) -> None:
    def notes(way: str) -> str:
        values = ["--set-json", f"exposure={json.dumps(WAYS[way])}"]
        shown = helm("install", "rel", str(ROOT / "charts" / chart), "--dry-run=client", "-n", "ns", *values).stdout
        return str(shown).split("NOTES:")[1]

    assert "https://ask.example.org" in notes("ingress")
    assert "kubectl -n ns create secret tls tls --cert" in notes("ingress")
    assert "Without TLS" not in notes("ingress")
    assert "http://ask.example.org" in notes("ingress-without-tls")
    assert "Without TLS everybody on the way reads tokens" in notes("ingress-without-tls")
    assert "https://ask.example.org" in notes("own-gateway")
    assert f"get service {SERVICE[chart]}-public" in notes("node-port")


EXAMPLES = sorted((ROOT / "examples" / "exposure").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_render(path: Path, render: Callable) -> None:
    (chart,) = re.findall(r"charts/(twin-\w+)", path.read_text())
    values = yaml.safe_load(path.read_text())
    kinds = {each["kind"] for each in render(chart, "-f", str(path))}
    assert ("Ingress" in kinds) == ("ingress" in values["exposure"])
    assert ("HTTPRoute" in kinds) == ("gateway" in values["exposure"])


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.fixture(scope="module")
def gateway_api(kubectl: Kubectl) -> None:
    """Have the API server know the Gateway API by its own definitions."""
    crds = folder("sigs.k8s.io/gateway-api") / "config/crd/standard"
    for name in ("gateways", "httproutes"):
        kubectl("apply", "--server-side", "-f", str(crds / f"gateway.networking.k8s.io_{name}.yaml"))
        kubectl("wait", "--for=condition=Established", f"crd/{name}.gateway.networking.k8s.io", "--timeout=30s")


@pytest.mark.cluster
@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_api_server_takes_what_is_rendered(
    chart: str, way: str, render: Callable, kubectl: Kubectl, namespace_once: str, gateway_api: None
) -> None:
    found = exposed(render, chart, way)
    assert found
    for each in found:
        each["metadata"]["namespace"] = namespace_once
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(each))
