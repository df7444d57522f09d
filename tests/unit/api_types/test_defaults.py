"""A default must satisfy the rules below it as it stands: the API server takes no definition of which one doesn't."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).parents[3] / "crds"
FIELD = re.compile(r"\bself\.(\w+)\b(?!\s*\()")


def ruled(schema: dict[str, Any], value: Any, where: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Find each object in a default for which there are rules."""
    if not isinstance(value, dict):
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        yield where, rule, value
    for name, part in value.items():
        if name in (properties := schema.get("properties", {})):
            yield from ruled(properties[name], part, f"{where}.{name}")


def defaults(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("default"), dict) and "type" in schema:
            yield from ruled(schema, schema["default"], where)
        for name, part in schema.items():
            yield from defaults(part, f"{where}.{name}")


@pytest.mark.parametrize("path", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_rule_asks_a_default_for_a_field_that_it_leaves_out(path: Path) -> None:
    definition = yaml.safe_load(path.read_text())
    for version in definition["spec"]["versions"]:
        for where, rule, value in defaults(version["schema"]["openAPIV3Schema"], path.stem):
            asked = set(FIELD.findall(rule["rule"])) - value.keys()
            unguarded = {name for name in asked if f"has(self.{name})" not in rule["rule"]}
            assert not unguarded, f"{where}: {rule['rule']} on the default {value}"
