"""Which fields there are: of the definitions and of the charts' values, as a person writes them with dots between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from tests.conftest import ROOT

Fields = dict[str, Any]
"""Path with dots to its schema."""


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """Return the CustomResourceDefinitions by kind."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    return {each["spec"]["names"]["kind"]: each for each in found}


@cache
def fields_of(kind: str) -> Fields:
    """Return the fields of a kind, from `spec` and `status` on."""
    schema = definitions()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return dict(_walk(schema, schema, ""))


@cache
def values_of(chart: str) -> Fields:
    """Return the values of a chart."""
    schema = json.loads((ROOT / "charts" / chart / "values.schema.json").read_text())
    return dict(_walk(schema, schema, ""))


@cache
def all_fields() -> tuple[Fields, ...]:
    """Return those of each kind and of each chart."""
    charts = [path.parent.name for path in sorted((ROOT / "charts").glob("*/values.schema.json"))]
    return (*(fields_of(kind) for kind in definitions()), *(values_of(chart) for chart in charts))


@cache
def _ends() -> dict[str, bool]:
    """Each path and each end of one, by whether anything may stand below it."""
    ends: dict[str, bool] = {}
    for fields in all_fields():
        for path, schema in fields.items():
            parts = path.split(".")
            below = not schema.get("properties") and schema.get("type") in (None, "object")
            for start in range(len(parts)):
                end = ".".join(parts[start:])
                ends[end] = ends.get(end, False) or below
    return ends


def is_field(path: str) -> bool:
    """Tell whether it is a field, by its whole path or by the end of one; maps have any keys."""
    parts, ends = path.split("."), _ends()
    return path in ends or any(ends.get(".".join(parts[:length])) for length in range(1, len(parts)))


def begins_like_a_field(path: str) -> bool:
    """Tell whether a path with dots begins with the name of a field that has others below it."""
    first = path.split(".", maxsplit=1)[0]
    return any(
        first in known.split(".") and schema.get("properties") is not None
        for fields in all_fields()
        for known, schema in fields.items()
        if known == first or known.endswith(f".{first}")
    )


def defaults_of(path: str) -> set[Any]:
    """Return the defaults of all fields whose path ends so."""
    return {
        schema["default"]
        for fields in all_fields()
        for known, schema in fields.items()
        if (known == path or known.endswith(f".{path}")) and isinstance(schema.get("default"), int | str)
    }


def _walk(schema: dict[str, Any], whole: dict[str, Any], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = _resolved(schema, whole)
    for name, each in (schema.get("properties") or {}).items():
        path = f"{above}.{name}" if above else name
        found = _resolved(each, whole)
        yield path, found
        yield from _walk(found, whole, path)
        if isinstance(found.get("items"), dict):
            yield from _walk(found["items"], whole, path)


def _resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: dict[str, Any] = whole
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    either = [_resolved(each, whole) for each in schema.get("anyOf", ())]
    return next((each for each in either if "properties" in each), schema)
