"""Documents as a kind's schema allows them, and documents that nobody foresaw; and whether the API server takes one."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from bettertherapy_api import crd, report
from bettertherapy_api.names import API_VERSION
from tests.unit.operator.samples import NAMESPACE, digest

Schema = dict[str, Any]

NAMES = ["p", "dr-a", "r1", "smollm2", "dr-a-aaaaaaaa", "e1"]
TIMES = [
    "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "2026-01-01t00:00:00z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00+23:59", "yesterday",
    "",
]  # fmt: skip
WORDS = [
    *NAMES, *(digest(letter) for letter in "abc"), "sha256:short", "garbage", "America", "Asia/Kathmandu", "../..",
    "\0",
    "0 2 * * *", "0 0 30 2 *", "* * * * *", "@daily @ @ @ @", "pvc://adapters/store", "file:///m", "s3://b/k",
    "hf://o/m", "0.001", "http://gpu:8000", "True",
    "Promoted", "Rejected", "Failed", "score", "x" * 200, "ä" * 70, "a b", "Auto", "50%", "200%", "",
]  # fmt: skip

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([0, -1, 101, 2**31, 2**63, 2**70, 1.5])
    | st.sampled_from(WORDS) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def fitting(schema: Schema, *, odd: bool = True) -> st.SearchStrategy[Any]:
    """Documents of a structural schema; with `odd` every third has parts that nobody foresaw."""
    made = _fitting(schema, odd=False)
    return st.one_of(made, made, _fitting(schema, odd=True), anything) if odd else made


def _part(schema: Schema, *, odd: bool) -> st.SearchStrategy[Any]:
    made = _fitting(schema, odd=odd)
    return st.integers(0, 19).flatmap(lambda throw: anything if throw == 0 else made) if odd else made


def _fitting(  # noqa: PLR0911  # one return per type
    schema: Schema, *, odd: bool
) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 300) | st.sampled_from(["Auto", "1", "25%", "4Gi", "x"])
    if kind == "object" and "properties" in schema:
        required = set(schema.get("required", []))
        parts = {name: _part(node, odd=odd) for name, node in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: part for name, part in parts.items() if name in required},
            optional={name: part for name, part in parts.items() if name not in required},
        )
    if kind == "object":
        inner = schema.get("additionalProperties")
        values = _part(inner, odd=odd) if isinstance(inner, dict) else st.sampled_from(WORDS)
        return st.dictionaries(st.sampled_from(WORDS), values, max_size=3)
    if kind == "array":
        most, keys = min(3, schema.get("maxItems", 3)), schema.get("x-kubernetes-list-map-keys")
        if keys:  # the API server takes no two of one key
            return st.lists(
                _part(schema["items"], odd=odd), max_size=most,
                unique_by=lambda item: tuple(str(item.get(key) if isinstance(item, dict) else item) for key in keys),
            )  # fmt: skip
        return st.lists(_part(schema["items"], odd=odd), max_size=most)
    if kind == "integer":
        least, most = schema.get("minimum", -5), schema.get("maximum", 2**40)
        return st.sampled_from([least, most]) | st.integers(least, min(most, least + 1000))
    if kind == "boolean":
        return st.booleans()
    if schema.get("format") == "date-time":
        return st.sampled_from(TIMES if odd else TIMES[:2] + TIMES[:5])
    return st.sampled_from(WORDS if odd else _fitting_words(schema))


def _fitting_words(schema: Schema) -> list[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1024)
    found = [
        word
        for word in WORDS
        if least <= len(word) <= most and re.search(schema.get("pattern", ""), word) and "\0" not in word
    ]
    return found or WORDS


@cache
def schema_of(kind: str) -> Schema:
    """The schema of a kind, as its CustomResourceDefinition has it."""
    module = next(each for each in crd.KINDS if kind == each.KIND)
    found: Schema = crd.definition(module)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _strict(node: Any) -> Any:
    """Refuse what the API server would prune, too: written again and again, it never comes to rest."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _strict(value) for key, value in node.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@cache
def _status_validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(_strict(schema_of(kind)["properties"]["status"]), format_checker=_FORMATS)


def refusals(kind: str, status: Schema) -> list[str]:
    """What the API server would say against a status; whole numbers beyond 64 bits it doesn't even read."""
    found = [f"{error.json_path}: {error.message[:200]}" for error in _status_validator(kind).iter_errors(status)]
    return [*found, *(f"{number} is beyond 64 bits" for number in _numbers(status) if abs(number) >= 2**63)]


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int) else []


def thing(kind: str, name: str, *, spec: Any, status: Any, annotations: Any = None) -> Schema:
    """An object of ours with this spec and status."""
    return {
        "apiVersion": API_VERSION, "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1",
            "labels": {"tier": "demo"}, "annotations": annotations or {}, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec, "status": status,
    }  # fmt: skip


def reports() -> st.SearchStrategy[Schema]:
    """What agents may have written."""
    whole = schema_of(report.KIND)["properties"]
    body = {name: node for name, node in whole.items() if name not in ("metadata", "pod", "gateway")}
    made = fitting({"type": "object", "properties": body, "required": ["ready", "engine"]})
    return made.filter(lambda body: isinstance(body, dict))
