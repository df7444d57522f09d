"""Every address in a spec: what it can never be is refused by the schema, in words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).parents[3] / "crds"

Spec = dict[str, Any]


def properties(schema: Spec, path: str = "") -> Iterator[tuple[str, Spec]]:
    """Walk a schema: every place in it and what stands there."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from properties(inner, f"{path}.{name}")
    for step, inner in (("[]", schema.get("items")), ("{}", schema.get("additionalProperties"))):
        if isinstance(inner, dict):
            yield from properties(inner, path + step)


@cache
def spec_places() -> dict[str, Spec]:
    places: dict[str, Spec] = {}
    for file in sorted(CRDS.glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        for version in document["spec"]["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"].get("spec", {})
            places |= {f"{file.stem}{path}": found for path, found in properties(spec)}
    return places


TASK_URL = "https://v.example/v1/tasks/11111111-1111-4111-8111-111111111111/dataset?signature=ab"
KINDS: dict[str, tuple[str, list[str], list[str]]] = {
    "origin": (
        r"[oO]rigins\[\]$",
        ["*", "https://clinic.example", "http://localhost:3000", "https://[::1]:8443", "http://10.0.0.1"],
        ["https://a.example?x", "https://a.example#x", "https://a.example/", "HTTPS://a.example", "https://A.example",
         "https://me:pw@a.example", "https://a.example:0", "https://a.example:99999", "https://a.example:",
         "https://a.example:65536", "https://*.example", "https://-a.example", "null", "https://a..example"],
    ),
    "origin of a gateway": (
        r"offers\.publicUrl$",
        ["https://ask.clinic.example", "http://clinic-gateway.clinic.svc:8080", "https://[::1]:8443"],
        ["*", "https://a.example/", "https://a.example?x", "https://me:pw@a.example", "wss://a.example", "a.example"],
    ),
    "place of a dataset": (
        r"finetuneruns\.(dataset|candidate\.heldOut)\.uri$",
        [TASK_URL, TASK_URL.replace("/dataset", "/examination"),
         TASK_URL.replace("https://v.example", "http://10.0.0.7:8080"), "pvc://claim/path", "s3://bucket/x"],
        ["https://v.example/data.jsonl", TASK_URL.partition("?")[0], TASK_URL.replace("//v", "//me:pw@v"),
         TASK_URL + "#x", TASK_URL.replace("/dataset", "/../dataset"), TASK_URL.replace("/v1/", "/latest/"),
         "ftp://v.example/x"],
    ),
    "origin of pages": (
        r"pages\.origin$",
        ["https://ask.clinic.example", "https://clinic.example:8443", "https://[::1]:8443", "http://localhost:8090",
         "http://127.0.0.1", "http://[::1]:1"],
        ["*", "http://ask.clinic.example", "https://a.example/", "https://a.example?x", "https://A.example",
         "https://me:pw@a.example", "https://a.example:0", "https://a.example:99999", "https://*.example", "null",
         "http://localhost.evil.example", "https://a.example,https://b.example", "wss://a.example"],
    ),
    "endpoint": (
        r"\.endpoint$",
        ["http://gpu:8000", "https://a.example/openai", "http://[::1]:1", "http://10.0.0.1:65535", "http://my_svc.ns"],
        ["http://gpu:0", "http://gpu:99999", "http://u:p@gpu:8000", "http://gpu:8000/?a=b", "http://gpu#x", "http://:80",
         "http://169.254.169.254", "http://2852039166/v1", "http://0xa9fea9fe", "http://169.16689662", "http://[fe80::1]",
         "http://[::ffff:a9fe:a9fe]", "http://metadata.google.internal", "http://METADATA:80", "http://0251.0376.1.1"],
    ),
    "place in a store": (
        r"(adapter|evalSetRef|safetySetRef|store|dataset|artifact|challenges)\.uri$",
        ["pvc://claim/path", "s3://bucket/some/path", "gs://bucket", "az://box/x@y:z", "file:///models/x", "pvc://claim"],
        ["s3:///path", "s3://key:secret@bucket/x", "s3://bucket/x?y", "s3://bucket/x#y", "file://models/x",
         "pvc://claim/../other", "pvc://claim/./x", "s3://b/x/..",
         "pvc://claim/%2e%2E/other", "pvc://claim/x%2f..%2fother", "s3://b/.%2e/x"],
    ),
    "place of a model": (
        r"minerpools\.baseModel\.uri$",
        ["hf://owner/name", "hf://owner/name@refs/pr/1", "hf://gpt2", "s3://b/x", "file:///models/base", "pvc://c/m.v1"],
        ["hf://", "hf://o/n?x", "hf://o/n#x", "hf://user:token@o/n", "file://models", "pvc://c/../d", "s3://k:s@b/x"],
    ),
    "public address": (
        r"[eE]xternalAddress$",
        ["203.0.113.7:8091", "[2001:db8::7]:8091"],
        ["203.0.113.7:0", "203.0.113.7:99999", "203.0.113.7", "http://203.0.113.7:80", "miner.example:8091",
         "203.0.113.777:80"],
    ),
    "network of a chain": (
        r"(validators\.chain\.network|minerpools\.miner\.chain)$",
        ["finney", "test", "local", "wss://entrypoint.example:443", "ws://node:9944", "http://subnet.clinic.svc:9944",
         "https://chain.example/rpc"],
        ["mainnet", "finney ", "127.0.0.1:9944", "wss://", "ws://me:pw@node:9944", "http://subnet:0", "http://subnet?x",
         "ftp://node"],
    ),
    "folder on a claim": (
        r"(offers\.deliveries|candidate\.delivered)$",
        ["pvc://claim/path", "pvc://a-claim.b/some/path"],
        ["pvc://claim", "pvc://claim/", "pvc:///path", "s3://bucket/x", "file:///x", "pvc://claim/../other",
         "pvc://claim/./x", "pvc://claim/x?y", "pvc://claim/x#y", "pvc://k:s@claim/x"],
    ),
    "folder on a node": (r"\.hostPath$", ["/data", "/data/..x"], ["/data/../etc", "/.."]),
}  # fmt: skip


def admits(schema: Spec, value: str) -> bool:
    """Tell whether pattern, lengths and rules let a text through, as the API server would."""
    size = schema.get("minLength", 0) <= len(value) <= schema["maxLength"]
    return size and matches(schema, value) and all(holds(r["rule"], value) for r in rules_of(schema))


def matches(schema: Spec, value: str) -> bool:
    return re.search(schema.get("pattern", "").replace("$", r"\Z"), value) is not None


def rules_of(schema: Spec) -> list[Spec]:
    return [rule for rule in schema.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]]


def holds(rule: str, value: str) -> bool:
    """Evaluate the few forms of CEL that addresses' rules have."""
    terms = re.split(r" (&&|\|\|) ", rule)
    found: list[bool] = []
    for term in terms[::2]:
        match = re.fullmatch(r"(!?)self(?: == '(.*)'|\.matches\('(.*)'\))", term)
        assert match is not None, term
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of "[[]", which is "[" alone in RE2 as here
            right = value == match[2] if match[2] else re.search(match[3].replace("$", r"\Z"), value) is not None
        found.append(right != bool(match[1]))
    return any(found) if "||" in terms[1::2] else all(found)


@pytest.mark.parametrize("kind", KINDS)
def test_each_address_of_a_spec_is_refused_in_words_where_it_can_be_none(kind: str) -> None:
    where, good, bad = KINDS[kind]
    places = {path: schema for path, schema in spec_places().items() if re.search(where, path)}
    assert places
    for path, schema in places.items():
        assert [value for value in good if not admits(schema, value)] == [], path
        assert [value for value in bad if admits(schema, value)] == [], path
        assert all(len(rule["message"]) > 20 for rule in rules_of(schema)), path


def test_no_address_of_a_spec_is_left_out() -> None:
    """A new one has to be put into the table above."""
    addresses = [
        path
        for path, schema in spec_places().items()
        if schema.get("type") == "string"
        and ("://" in schema.get("pattern", "") or re.search(r"(uri|endpoint|address|hostPath)$", path, re.IGNORECASE))
    ]
    assert addresses
    assert [path for path in addresses if not any(re.search(where, path) for where, _, _ in KINDS.values())] == []


def test_names_of_objects_are_what_the_api_server_takes() -> None:
    names = {path: schema for path, schema in spec_places().items() if "-a-z0-9" in schema.get("pattern", "")}
    assert names
    for path, schema in names.items():
        assert matches(schema, "a-b1"), path
        for wrong in ("", "-a", "a-", "A", "a..b", "a.-b", "a-.b", ".a", "a.", "a_b", "a/b", "a\n"):
            assert not matches(schema, wrong), (path, wrong)
