"""The CustomResourceDefinitions in the operator's chart: the generated ones, kept on uninstall, left out on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

CRDS = Path(__file__).resolve().parents[2] / "crds"


def definitions(render: Callable, *args: str) -> dict[str, dict]:
    documents = render("twin-operator", *args)
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == "CustomResourceDefinition"}


def test_chart_has_the_generated_definitions(render: Callable) -> None:
    wanted = {crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, map(Path.read_text, CRDS.glob("*.yaml")))}
    assert wanted
    rendered = definitions(render)
    assert {name: crd["spec"] for name, crd in rendered.items()} == {n: crd["spec"] for n, crd in wanted.items()}


def test_definitions_are_kept_on_uninstall(render: Callable) -> None:
    rendered = definitions(render)
    assert rendered
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in rendered.values())


def test_definitions_can_be_left_out(render: Callable) -> None:
    assert definitions(render, "--set", "crds.install=false") == {}


def test_chart_has_the_admission_policies(render: Callable) -> None:
    """Kept on uninstall as the definitions are, and left out with them."""
    wanted = [d for path in (CRDS / "policies").glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    rendered = {(d["kind"], d["metadata"]["name"]): d for d in render("twin-operator")}
    kinds = Counter(policy["kind"] for policy in wanted)
    assert kinds["ValidatingAdmissionPolicy"] == kinds["ValidatingAdmissionPolicyBinding"] == len(wanted) / 2 >= 5
    for policy in wanted:
        found = rendered[policy["kind"], policy["metadata"]["name"]]
        assert found["spec"] == policy["spec"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    left_out = {(d["kind"], d["metadata"]["name"]) for d in render("twin-operator", "--set", "crds.install=false")}
    assert left_out & {(policy["kind"], policy["metadata"]["name"]) for policy in wanted} == set()
