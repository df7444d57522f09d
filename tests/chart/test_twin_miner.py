"""What the miner's chart makes of its values."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Kubectl

CHART = Path(__file__).resolve().parents[2] / "charts" / "twin-miner"
TWIN = ["--set-json", 'twins=[{"name":"dr-a","doctor":{"name":"Dr. A","licence":"1"}}]']


def one(documents: list[dict], kind: str) -> dict:
    (found,) = [d for d in documents if d["kind"] == kind]
    return found


def test_pool_is_named_after_the_release_and_leaves_its_tokens_to_the_operator(render: Callable) -> None:
    documents = render("twin-miner")
    assert one(documents, "MinerPool")["metadata"]["name"] == "rel"
    assert "accessSecretRef" not in one(documents, "MinerPool")["spec"].get("miner", {})
    assert not [d for d in documents if d["kind"] == "Secret"]
    assert one(documents, "Pod")["spec"]["volumes"][0]["secret"]["secretName"] == "rel-access"


def test_rendering_twice_gives_the_same(render: Callable) -> None:
    assert render("twin-miner", *TWIN) == render("twin-miner", *TWIN)


def test_clients_that_have_no_token_are_refused_in_words(helm: Callable) -> None:
    done = helm("template", "rel", str(CHART), "-n", "ns", "--set", "access.clients={a}", check=False)
    assert done.returncode != 0
    assert 'this chart makes no tokens any more, and Secret rel-access has none for "a"' in done.stderr
    assert "kubectl -n ns patch secret rel-access" in done.stderr


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


@pytest.mark.parametrize("name", ["x" * 41, "my.miner", "7b"])
def test_release_name_that_no_pool_can_have_is_refused(name: str, helm: Callable) -> None:
    done = helm("template", name, str(CHART), check=False)
    assert done.returncode != 0
    assert "the release's name" in done.stderr


def test_notes_tell_a_miner_of_a_subnet_how_to_see_whether_it_is_registered(helm: Callable) -> None:
    def notes(*more: str) -> str:
        return str(helm("install", "rel", str(CHART), "--dry-run=client", "-n", "ns", *more).stdout).split("NOTES:")[1]

    named = notes("--set", "pool.miner.netuid=42", "--set", "pool.miner.chain=test")
    assert "kubectl -n ns wait minerpool/rel --for=condition=MinerRegistered" in named
    assert "kubectl twin miners -n ns --pool rel" in named
    assert "subnet 42" in named
    assert "subnet 0" in notes("--set", "pool.miner.netuid=0")
    assert "MinerRegistered" not in notes()


def test_notes_name_the_next_commands(helm: Callable) -> None:
    notes = helm("install", "rel", str(CHART), "--dry-run=client", "-n", "ns", *TWIN).stdout.split("NOTES:")[1]
    assert "kubectl -n ns wait minerpool/rel --for=condition=Ready" in notes
    assert "kubectl -n ns get secret rel-access -o jsonpath='{.data.default}'" in notes
    assert "kubectl twin ask dr-a -n ns" in notes
    assert "helm test rel -n ns" in notes


# What the release before rendered, with the tokens that clients hold.
OLD_SECRET = """
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-access
type: Opaque
stringData: {a: token-of-a, b: token-of-b}
"""


@pytest.mark.cluster
def test_tokens_that_an_earlier_release_made_survive_upgrades_and_removal(
    helm: Callable, kubectl: Kubectl, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    before = tmp_path / "twin-miner"
    shutil.copytree(CHART, before)
    (before / "templates" / "access-secret.yaml").write_text(OLD_SECRET)
    # No engines: this test is about the Secret.
    where = ["-n", namespace, "--kubeconfig", str(kubeconfig)]
    quiet = ["--set", "pool.replicas=0,pool.miner.replicas=0"]

    def tokens() -> dict[str, str]:
        done = kubectl("get", "secret", "rel-access", "-n", namespace, "-o", "json")
        return dict(json.loads(done.stdout)["data"])

    helm("install", "rel", str(before), *where, *quiet)
    made = tokens()
    assert base64.b64decode(made["a"]) == b"token-of-a"
    for clients in ([], ["--set", "access.clients={a,b}"]):
        helm("upgrade", "rel", str(CHART), *where, *quiet, *clients)
        assert tokens() == made
    helm("uninstall", "rel", *where)
    assert tokens() == made


@pytest.mark.cluster
def test_a_secret_of_somebody_else_is_left_alone(
    helm: Callable, kubectl: Kubectl, kubeconfig: Path, namespace: str
) -> None:
    kubectl("create", "secret", "generic", "rel-access", "-n", namespace, "--from-literal=default=made-by-the-operator")
    where = ["-n", namespace, "--kubeconfig", str(kubeconfig), "--set", "pool.replicas=0,pool.miner.replicas=0"]
    helm("install", "rel", str(CHART), *where)
    helm("uninstall", "rel", "-n", namespace, "--kubeconfig", str(kubeconfig))
    assert kubectl("get", "secret", "rel-access", "-n", namespace, "-o", "name").stdout
