"""What the miner's chart makes of its values."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Kubectl

CHART = Path(__file__).resolve().parents[2] / "charts" / "twin-miner"
TWIN = ["--set-json", 'twins=[{"name":"dr-a","doctor":{"name":"Dr. A","licence":"1"}}]']


def one(documents: list[dict], kind: str) -> dict:
    (found,) = [d for d in documents if d["kind"] == kind]
    return found


def test_pool_is_named_after_the_release_and_reads_the_charts_secret(render: Callable) -> None:
    documents = render("twin-miner")
    pool, secret = one(documents, "MinerPool"), one(documents, "Secret")
    assert pool["metadata"]["name"] == "rel"
    assert pool["spec"]["miner"]["accessSecretRef"] == {"name": secret["metadata"]["name"]}


def test_each_client_gets_its_own_long_token(render: Callable) -> None:
    secret = one(render("twin-miner", "--set", "access.clients={a,b}"), "Secret")
    tokens = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert tokens.keys() == {"a", "b"}
    assert tokens["a"] != tokens["b"]
    assert all(len(token) >= 40 for token in tokens.values())


def test_existing_secret_is_used_and_none_is_made(render: Callable) -> None:
    documents = render("twin-miner", "--set", "access.existingSecret=mine")
    assert not [d for d in documents if d["kind"] == "Secret"]
    assert one(documents, "MinerPool")["spec"]["miner"]["accessSecretRef"] == {"name": "mine"}
    assert one(documents, "Pod")["spec"]["volumes"][0]["secret"]["secretName"] == "mine"


def test_twin_belongs_to_this_pool_unless_it_says_otherwise(render: Callable) -> None:
    documents = render("twin-miner", *TWIN)
    pool, twin = one(documents, "MinerPool"), one(documents, "DoctorTwin")
    assert twin["spec"]["baseModel"]["name"] == pool["spec"]["baseModel"]["name"]
    assert twin["spec"]["poolSelector"]["matchLabels"].items() <= pool["metadata"]["labels"].items()


def test_selector_of_a_twin_is_left_alone(render: Callable) -> None:
    documents = render("twin-miner", *TWIN, "--set-json", "twins[0].poolSelector={}")
    assert one(documents, "DoctorTwin")["spec"]["poolSelector"] == {}


@pytest.mark.parametrize(("kind", "path"), [("store", ("store", "uri")), ("cache", ("cache", "claimName"))])
def test_volume_is_made_and_used(kind: str, path: tuple[str, str], render: Callable) -> None:
    documents = render("twin-miner", "--set", f"persistence.{kind}.enabled=true")
    claim = one(documents, "PersistentVolumeClaim")["metadata"]["name"]
    assert claim in one(documents, "MinerPool")["spec"][path[0]][path[1]]


def test_adapters_outlive_the_release(render: Callable) -> None:
    claim = one(render("twin-miner", "--set", "persistence.store.enabled=true"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_null_takes_a_quantity_away(render: Callable) -> None:
    resources = {"requests": {"cpu": "1", "nvidia.com/gpu": None}}
    documents = render("twin-miner", "--set-json", f"pool.resources={json.dumps(resources)}")
    assert one(documents, "MinerPool")["spec"]["resources"] == {"requests": {"cpu": "1"}}


@pytest.mark.parametrize("name", ["x" * 41, "my.miner"])
def test_release_name_that_no_pool_can_have_is_refused(name: str, helm: Callable) -> None:
    done = helm("template", name, str(CHART), check=False)
    assert done.returncode != 0
    assert "the release's name" in done.stderr


def test_notes_name_the_next_commands(helm: Callable) -> None:
    notes = helm("install", "rel", str(CHART), "--dry-run=client", "-n", "ns", *TWIN).stdout.split("NOTES:")[1]
    assert "kubectl -n ns wait minerpool/rel --for=condition=Ready" in notes
    assert "kubectl -n ns get secret rel-access -o jsonpath='{.data.default}'" in notes
    assert "kubectl twin ask dr-a -n ns" in notes
    assert "helm test rel -n ns" in notes


@pytest.mark.cluster
def test_tokens_survive_an_upgrade_and_removed_clients_do_not(
    helm: Callable, kubectl: Kubectl, kubeconfig: Path, namespace: str
) -> None:
    # No engines: this test is about the Secret.
    arguments = ["rel", str(CHART), "-n", namespace, "--kubeconfig", str(kubeconfig), "--set", "pool.replicas=0"]
    arguments += ["--set", "pool.miner.replicas=0"]

    def tokens() -> dict[str, str]:
        done = kubectl("get", "secret", "rel-access", "-n", namespace, "-o", "json")
        return dict(json.loads(done.stdout)["data"])

    helm("install", *arguments, "--set", "access.clients={a,b}")
    before = tokens()
    helm("upgrade", *arguments, "--set", "access.clients={a,c}")
    after = tokens()
    assert after.keys() == {"a", "c"}
    assert after["a"] == before["a"]
    assert after["c"] not in before.values()
