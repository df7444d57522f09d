"""What the pages say that the charts make and may do is what Helm renders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import ROOT, SUBNET_OWNER, Render
from tests.chart.test_exposure import WAYS
from tests.chart.test_monitoring import HAVE
from twin_operator.kinds.resources import BY_KIND

SECURITY = (ROOT / "docs" / "security.md").read_text()
KIND_OF = {(each.group, each.plural): kind for kind, each in BY_KIND.items()}
TWINS = [
    "--set-json",
    'twins=[{"name": "a", "doctor": {"name": "A", "licence": "1"}, "baseModel": {"name": "m"}, "poolSelector": {}}]',
]  # fmt: skip
EXPOSED = [["--set-json", f"exposure={json.dumps(way)}"] for way in WAYS.values()]
RENDERED: dict[str, list[list[str]]] = {
    "twin-operator": [[], ["--set", "watchNamespace=clinic"], [*HAVE, "--set", "monitoring.dashboards.enabled=true"]],
    "twin-miner": [["-f", str(ROOT / "charts/twin-miner/ci/cpu-values.yaml"), *TWINS], *EXPOSED],
    "twin-validator": [["-f", str(ROOT / "charts/twin-validator/ci/local-values.yaml"), *TWINS], *EXPOSED],
    "local-subnet": [[*SUBNET_OWNER]],
}
"""Values with which each chart makes all that it can."""
WITH_A_CLUSTER = {"Secret"}
"""Made only beside what an earlier release left."""


def readme(chart: str) -> str:
    return (ROOT / "charts" / chart / "README.md").read_text()


def chapter(text: str, title: str) -> str:
    [found] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


KNOWN = {*BY_KIND, "Ingress", "Gateway", "HTTPRoute", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
         "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ServiceMonitor", "PodMonitor",
         "PrometheusRule"}  # fmt: skip


def named(kinds: set[str], text: str) -> set[str]:
    """Which of these kinds the text names, in the singular or the plural."""
    return {kind for kind in kinds if re.search(rf"\b{kind}(?:s|es)?\b", text.replace("Policies", "Policys"))}


@pytest.mark.parametrize("chart", RENDERED)
def test_a_readme_names_what_its_chart_makes_and_nothing_else(render: Render, chart: str) -> None:
    made = {str(document["kind"]) for values in RENDERED[chart] for document in render(chart, *values)}
    told = named(KNOWN | made, chapter(readme(chart), "What it makes"))
    assert told - WITH_A_CLUSTER == made


def test_the_operators_readme_names_every_kind_that_it_brings(render: Render) -> None:
    brought = {
        document["spec"]["names"]["kind"] for document in render("twin-operator")
        if document["kind"] == "CustomResourceDefinition"
    }  # fmt: skip
    assert named(brought, readme("twin-operator").partition("## ")[0]) == brought


def rules(documents: list[dict[str, Any]], name: str) -> set[tuple[str, str, tuple[str, ...]]]:
    [role] = [each for each in documents if each["metadata"]["name"] == name and "rules" in each]
    return {
        (group, resource, tuple(rule["verbs"]))
        for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
    }  # fmt: skip


def test_the_table_of_rights_is_the_rendered_role(render: Render) -> None:
    rows = re.findall(r"^\| (\S+) \| (`.+`) \| (.+) \|$", chapter(readme("twin-operator"), "Rights"), re.MULTILINE)
    told = {
        ("" if group == "core" else group, resource, tuple(verbs.split(", ")))
        for group, resources, verbs in rows for resource in re.findall(r"`(.+?)`", resources)
    }  # fmt: skip
    assert told == rules(render("twin-operator"), "rel-twin-operator")


def test_security_tells_of_each_kind_what_the_operator_may_do_with_it(render: Render) -> None:
    text = chapter(SECURITY, "What the operator may do")
    sentences = {
        verbs: sentence
        for sentence in re.findall(r"^- (.+)$", text, re.MULTILINE)
        for verbs in [
            ("patch",) if "status" in sentence else ("create",) if sentence.startswith("creates") else
            ("create", "patch", "delete") if sentence.startswith("makes") else ()
        ]
    }  # fmt: skip
    assert sentences.keys() == {("patch",), ("create",), ("create", "patch", "delete"), ()}
    for group, resource, verbs in rules(render("twin-operator"), "rel-twin-operator"):
        if "/" in resource:
            assert resource.partition("/")[2].rstrip("s") in sentences["patch",]
            continue
        kind = KIND_OF[group, resource]
        changes = tuple(verb for verb in verbs if verb not in {"get", "list", "watch"})
        sentence = {("create", "delete"): (), ("create",): ("patch",) if kind == "Event" else ("create",)}.get(
            changes, changes
        )
        assert named({kind}, sentences[sentence]), f"{kind}: {changes}"


@pytest.mark.parametrize("role", ["twin-doctor", "twin-editor"])
@pytest.mark.parametrize("page", ["docs/security.md", "charts/twin-operator/README.md"])
def test_what_people_read_beside_our_kinds_is_told(render: Render, role: str, page: str) -> None:
    beside = {name for group, name, _ in rules(render("twin-operator"), role) if group != "bettertherapy.io"}
    assert beside == {"pods", "events", "configmaps"}
    assert "both also read the namespace's pods, events and configmaps" in " ".join(
        Path(ROOT / page).read_text().lower().split()
    )
