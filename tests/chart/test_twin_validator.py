"""What the validator's chart makes of its values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CHART = Path(__file__).resolve().parents[2] / "charts" / "twin-validator"
TWIN = [
    "--set-json",
    'twins=[{"name":"dr-a","doctor":{"name":"Dr. A","licence":"1"},"baseModel":{"name":"m"},"poolSelector":{}}]',
]


def one(documents: list[dict], kind: str) -> dict:
    (found,) = [d for d in documents if d["kind"] == kind]
    return found


def test_a_validator_is_named_after_the_release_and_no_secret_is_made(render: Callable) -> None:
    documents = render("twin-validator")
    validator = one(documents, "Validator")
    assert validator["metadata"]["name"] == "rel"
    assert "ledger" not in validator["spec"], "an embedded ledger is the default"
    assert {"rounds", "scoring", "rewards"} <= validator["spec"].keys()
    assert not [d for d in documents if d["kind"] in {"Secret", "PersistentVolumeClaim"}]
    assert one(documents, "Pod")["spec"]["volumes"][0]["secret"]["secretName"] == "rel-gateway-keys"


def test_a_database_is_named_and_not_made(render: Callable, helm: Callable) -> None:
    documents = render("twin-validator", "--set", "postgresql.existingSecret=pg")
    assert one(documents, "Validator")["spec"]["ledger"] == {"uriSecretRef": {"name": "pg"}}
    both = ["--set", "postgresql.existingSecret=pg,validator.ledger.uriSecretRef.name=other"]
    done = helm("template", "rel", str(CHART), *both, check=False)
    assert done.returncode != 0
    assert "remove one of them" in done.stderr


@pytest.mark.cluster
def test_an_upgrade_takes_back_nothing_that_was_scaled(
    helm: Callable, kubectl: Callable, kubeconfig: Path, namespace: str
) -> None:
    """A HorizontalPodAutoscaler's gateways and engines would be gone with each `helm upgrade`."""
    where = ["-n", namespace, "--kubeconfig", str(kubeconfig)]
    for kind, path, chart in (
        ("validator", ".spec.gateway.replicas", CHART), ("minerpool", ".spec.replicas", CHART.parent / "twin-miner"),
    ):  # fmt: skip
        values = ["--set", "postgresql.existingSecret=pg"] if chart == CHART else []
        helm("install", kind, str(chart), *where, *values)
        kubectl("scale", kind, kind, "-n", namespace, "--replicas=3")
        helm("upgrade", kind, str(chart), *where, *values, "--set", f"{kind.removeprefix('miner')}Labels.changed=yes")
        shown = kubectl("get", kind, kind, "-n", namespace, "-o", f"jsonpath={{{path}}} {{.metadata.labels.changed}}")
        assert shown.stdout == "3 yes"
        helm("uninstall", kind, *where)


@pytest.mark.parametrize("part", ["rounds", "scoring", "rewards"])
def test_null_takes_a_part_out(part: str, render: Callable) -> None:
    assert part not in one(render("twin-validator", "--set", f"validator.{part}=null"), "Validator")["spec"]


def test_an_unknown_key_is_refused_before_anything_is_sent(helm: Callable) -> None:
    done = helm("template", "rel", str(CHART), "--set", "validator.round=1", check=False)
    assert done.returncode != 0


def test_the_first_twin_is_asked_by_the_test(render: Callable) -> None:
    documents = render("twin-validator", *TWIN)
    env = {each["name"]: each["value"] for each in one(documents, "Pod")["spec"]["containers"][0]["env"]}
    assert (env["TWIN"], env["GATEWAY_URL"]) == ("dr-a", "http://rel-gateway.ns.svc")
    assert one(documents, "DoctorTwin")["spec"]["baseModel"] == {"name": "m"}


@pytest.mark.parametrize("name", ["x" * 41, "my.validator", "7b"])
def test_release_name_that_no_validator_can_have_is_refused(name: str, helm: Callable) -> None:
    done = helm("template", name, str(CHART), check=False)
    assert done.returncode != 0
    assert "the release's name" in done.stderr


def test_notes_name_the_next_commands(helm: Callable) -> None:
    notes = helm("install", "rel", str(CHART), "--dry-run=client", "-n", "ns", *TWIN).stdout.split("NOTES:")[1]
    for command in (
        "kubectl -n ns wait validator/rel --for=condition=Ready",
        "kubectl twin ask dr-a -n ns --validator rel",
        "kubectl -n ns create job --from=cronjob/rel-rounds first",
        "helm test rel -n ns",
    ):
        assert command in notes
