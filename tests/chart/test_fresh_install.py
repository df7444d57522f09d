"""An installation from nothing: what the values name is made or has its command, and what is typed arrives as typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
DOCTOR = {"name": "Dr. A", "licence": "1"}
TWIN: dict[str, dict[str, Any]] = {
    "twin-miner": {"name": "dr-a", "doctor": DOCTOR},
    "twin-validator": {"name": "dr-a", "doctor": DOCTOR, "baseModel": {"name": "m"}, "poolSelector": {}},
}
ODD = (
    "0123",
    "08",
    "1e6",
    "1E6",
    "1_000",
    "0x1f",
    "0o17",
    "12:30:45",
    "yes",
    "no",
    "on",
    "null",
    "true",
    "~",
    "1.10",
    "=",
)
"""Strings that YAML takes for numbers, dates, truths or nothing where they are not quoted."""


def values_of(chart: str, more: dict[str, Any], tmp_path: Path) -> list[str]:
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(more))
    return [str(CHARTS / chart), "-n", "ns", "-f", str(path)]


def notes(helm: Callable, chart: str, *args: str) -> str:
    return str(helm("install", "rel", *args, "--dry-run=client").stdout).split("NOTES:")[1]


@pytest.fixture
def parsed(tool: Callable[[str], str], tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Return manifests as kubectl reads them, with the types that it sees."""

    def run(text: str) -> list[dict[str, Any]]:
        path = tmp_path / "rendered.yaml"
        path.write_text(text)
        command = [tool("kubectl"), "annotate", "--local", "-f", str(path), "read-by=kubectl", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        decoder, at, found = json.JSONDecoder(), 0, []
        while at < len(done.stdout):
            document, at = decoder.raw_decode(done.stdout, at)
            found += document["items"] if document["kind"] == "List" else [document]
            at += len(done.stdout[at:]) - len(done.stdout[at:].lstrip())
        return found

    return run


@pytest.mark.parametrize(
    ("chart", "values"),
    [
        ("twin-miner", {"twins": None}),
        ("twin-miner", {"poolLabels": {"model": "biomistral"}}),
        ("twin-miner", {"poolLabels": None, "poolAnnotations": None}),
        ("twin-miner", {"poolLabels": {"app.kubernetes.io/part-of": "clinic"}}),
        ("twin-miner", {"persistence": None}),
        ("twin-miner", {"persistence": {"store": None, "cache": {"enabled": True}}}),
        ("twin-miner", {"persistence": {"cache": None, "store": {"enabled": True}}}),
        ("twin-miner", {"access": None}),
        ("twin-miner", {"access": {"existingSecret": None}}),
        ("twin-miner", {"test": None}),
        ("twin-miner", {"pool": {"miner": None}}),
        ("twin-miner", {"pool": {"tolerations": None}}),
        ("twin-miner", {"pool": {"cache": None, "replicas": None, "resources": {"requests": None}}}),
        ("twin-miner", {"pool": {"engine": {"updateStrategy": {"type": None}, "pod": {"env": None}}}}),
        ("twin-miner", {"twins": [TWIN["twin-miner"] | {"fineTune": None, "systemPrompt": None}]}),
        ("twin-validator", {"validator": {"gateway": None, "ledger": None, "imagePullSecrets": None, "rounds": None}}),
        ("twin-validator", {"twins": None}),
        ("twin-validator", {"postgresql": None}),
        ("twin-validator", {"validatorLabels": None, "validatorAnnotations": None}),
        ("twin-validator", {"test": None}),
    ],
    ids=str,
)
def test_what_is_left_out_or_taken_away_breaks_no_template(
    chart: str, values: dict[str, Any], helm: Callable, tmp_path: Path, parsed: Callable
) -> None:
    args = values_of(chart, values, tmp_path)
    kinds = {each["kind"] for each in parsed(helm("template", "rel", *args).stdout)}
    assert "null" not in {line.split(": ")[-1] for line in helm("template", "rel", *args).stdout.splitlines()}
    assert ("Pod" in kinds) == (values.get("test", "") is not None)
    assert "rel" in notes(helm, chart, *args)


def test_labels_of_the_chart_appear_once_and_its_selector_stays(helm: Callable, tmp_path: Path) -> None:
    ours = {"poolLabels": {"app.kubernetes.io/part-of": "clinic", "app.kubernetes.io/version": "0123"}}
    text = helm("template", "rel", *values_of("twin-miner", ours, tmp_path), "-s", "templates/minerpool.yaml").stdout
    assert text.count("app.kubernetes.io/part-of:") == text.count("app.kubernetes.io/version:") == 1
    labels = yaml.safe_load(text)["metadata"]["labels"]
    assert labels.items() >= ours["poolLabels"].items()
    other = values_of("twin-miner", {"poolLabels": {"app.kubernetes.io/instance": "other"}}, tmp_path)
    done = helm("template", "rel", *other, check=False)
    assert done.returncode != 0
    assert "poolLabels: app.kubernetes.io/instance is how this release's twins find their pool" in done.stderr


def strings(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (text for each in node.values() for text in strings(each))
    elif isinstance(node, list):
        yield from (text for each in node for text in strings(each))
    elif isinstance(node, str):
        yield node


def test_strings_and_numbers_arrive_as_typed(helm: Callable, tmp_path: Path, parsed: Callable) -> None:
    """What a licence or a label is made of looks like a number often enough."""
    keys = [f"k{number}" for number in range(len(ODD))]
    odd = dict(zip(keys, ODD, strict=True))
    labels = {key: value for key, value in odd.items() if re.fullmatch(r"[A-Za-z0-9][-._A-Za-z0-9]*", value)}
    values = {
        "pool": {
            "engine": {"maxModelLength": 10_000_000, "args": ["--seed=0123", "1e6"]}, "nodeSelector": labels,
            "miner": {"limits": {"tokens": 10_000_000}},
        },
        "poolLabels": labels, "poolAnnotations": odd,
        "persistence": {"store": {"enabled": True, "size": "10000000", "storageClassName": "0123"}},
        "twins": [
            {"name": "0123", "doctor": {"name": "0123", "licence": value, "specialty": "1e6"}, "systemPrompt": value}
            for value in ODD
        ],
    }  # fmt: skip
    documents = parsed(helm("template", "rel", *values_of("twin-miner", values, tmp_path)).stdout)
    (pool,) = [each for each in documents if each["kind"] == "MinerPool"]
    assert pool["metadata"]["annotations"].items() >= odd.items()
    assert pool["metadata"]["labels"].items() >= labels.items()
    assert pool["spec"]["nodeSelector"] == labels
    assert pool["spec"]["engine"]["maxModelLength"] == pool["spec"]["miner"]["limits"]["tokens"] == 10_000_000
    assert pool["spec"]["engine"]["args"] == ["--seed=0123", "1e6"]
    (claim,) = [each for each in documents if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["storageClassName"] == "0123"
    twins = [each for each in documents if each["kind"] == "DoctorTwin"]
    assert [each["spec"]["doctor"]["licence"] for each in twins] == list(ODD)
    assert [each["spec"]["systemPrompt"] for each in twins] == list(ODD)
    assert {each["metadata"]["name"] for each in twins} == {"0123"}
    (pod,) = [each for each in documents if each["kind"] == "Pod"]
    assert "0123" in {each["value"] for each in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("chart", ["twin-operator", "twin-miner", "twin-validator"])
@pytest.mark.parametrize(("release", "namespace"), [("true", "0123"), ("null", "1e6"), ("on", "12345")])
def test_names_that_look_like_something_else_stay_names(
    chart: str, release: str, namespace: str, helm: Callable, parsed: Callable
) -> None:
    args = ["--set", "crds.install=false"] if chart == "twin-operator" else []
    for document in parsed(helm("template", release, str(CHARTS / chart), "-n", namespace, *args).stdout):
        where = f"{document['kind']}/{document['metadata']['name']}"
        assert isinstance(document["metadata"]["name"], str), where
        assert document["metadata"].get("namespace", namespace) == namespace, where
        assert all(isinstance(value, str) for value in document["metadata"]["labels"].values()), where


def named(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every field that names a Secret, in lists as [0]."""
    for name, node in schema.get("properties", {}).items():
        here = f"{path}{name}"
        if re.search(r"(^s|S)ecretRef$|^existingSecret$|^secretName$|^secretKeyRef$", name):
            yield here if "string" in node["type"] else f"{here}.name"
        elif name == "imagePullSecrets":
            yield f"{here}[0].name"
        elif "object" in node.get("type", ""):
            yield from named(node, f"{here}.")
        elif "array" in node.get("type", ""):
            yield from named(node["items"], f"{here}[0].")


PLACES = [
    (chart, place)
    for chart in ("twin-miner", "twin-validator")
    for place in named(json.loads((CHARTS / chart / "values.schema.json").read_text()))
]


def placed(place: str, value: str) -> Any:
    """Return values in which this field alone is set."""
    name, _, rest = place.partition(".")
    inner = placed(rest, value) if rest else value
    if name.endswith("[0]"):
        return {name.removesuffix("[0]"): [inner]}
    return {name: inner}


def merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **other, **{key: merged(one[key], other[key]) for key in one.keys() & other.keys()}}
    return [merged(a, b) for a, b in zip(one, other, strict=True)] if isinstance(one, list) else other


def test_secrets_are_found_in_the_schemas() -> None:
    assert {
        ("twin-miner", "access.existingSecret"), ("twin-miner", "pool.store.secretRef.name"),
        ("twin-miner", "pool.miner.walletSecretRef.name"), ("twin-miner", "pool.imagePullSecrets[0].name"),
        ("twin-miner", "twins[0].gate.judgeRef.secretRef.name"),
        ("twin-validator", "validator.ledger.uriSecretRef.name"),
    } <= set(PLACES)  # fmt: skip


@pytest.mark.parametrize(("chart", "place"), PLACES, ids=[f"{chart}:{place}" for chart, place in PLACES])
def test_every_secret_that_values_name_has_a_command_that_makes_it(
    chart: str, place: str, helm: Callable, tool: Callable[[str], str], tmp_path: Path
) -> None:
    values = placed(place, "a-secret")
    if "twins" in values:
        values = merged({"twins": [TWIN[chart]]}, values)
    said = notes(helm, chart, *values_of(chart, values, tmp_path), "--skip-schema-validation")
    (command,) = re.findall(r"^ +(kubectl -n ns create secret \S+ a-secret(?:.*\\\n)*.*)", said, re.MULTILINE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(tool("kubectl"))
    hotkey = tmp_path / ".bittensor/wallets/WALLET/hotkeys/HOTKEY"
    hotkey.parent.mkdir(parents=True)
    for path in (hotkey, tmp_path / "keys.json", tmp_path / "key.json"):
        path.write_text("{}")
    done = subprocess.run(
        ["bash", "-ec", command + " --dry-run=client -o json"], capture_output=True, text=True, timeout=60, check=False,
        cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metadata"] == {"name": "a-secret", "namespace": "ns"}
    free = place.endswith(("secretName", "secretKeyRef.name"))  # of your own containers: only you know the keys
    assert (json.loads(done.stdout)["data"].keys() == {"KEY"}) == free


@pytest.mark.parametrize(("scheme", "key"), [("s3", "AWS_SECRET_ACCESS_KEY"), ("gs", "GOOGLE_"), ("az", "AZURE_")])
def test_a_stores_secret_has_the_keys_of_its_service(scheme: str, key: str, helm: Callable, tmp_path: Path) -> None:
    values = {"pool": {"store": {"uri": f"{scheme}://bucket/x", "secretRef": {"name": "a-secret"}}}}
    assert key in notes(helm, "twin-miner", *values_of("twin-miner", values, tmp_path))


def test_without_a_secret_of_yours_none_is_asked_for(helm: Callable, tmp_path: Path) -> None:
    assert "create secret" not in notes(helm, "twin-miner", *values_of("twin-miner", {}, tmp_path))


@pytest.mark.parametrize(
    "path", sorted(CHARTS.glob("*/values*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_secrets_in_a_values_file_have_their_command_beside_them(path: Path) -> None:
    """In comments too: what somebody uncomments must not be the first that speaks of a Secret."""
    text = path.read_text()
    names = re.findall(r"(?:[sS]ecretRef|[sS]ecretRef): *\{name: ([\w.-]+)\}|ecretRef:\n\s+name: ([\w.-]+)", text)
    for name in {one or other for one, other in names}:
        assert re.search(rf"kubectl create secret \S+ {re.escape(name)} ", text), name
