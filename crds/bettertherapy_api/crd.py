"""Generates the CustomResourceDefinitions from the types: `python -m bettertherapy_api.crd [--check]`.

The admission policies in crds/policies are copied into the operator's chart beside them.

Pydantic's JSON schema is turned into the structural OpenAPI v3 schema that the API server accepts: references are
written out, nullable unions become optional fields, titles go, and defaults that are null go.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel

from bettertherapy_api import doctor_twin, finetune_run, miner_pool, report, routing, validator, validator_round
from bettertherapy_api.names import GROUP, VERSION

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (Path("crds"), Path("charts/twin-operator/files/crds"))
POLICIES, POLICIES_COPY = Path("crds/policies"), Path("charts/twin-operator/files/policies")
HEADER = "# Generated from crds/bettertherapy_api by `make generate`; do not edit.\n"
COPY_HEADER = "# Copied from crds/policies by `make generate`; do not edit.\n"
KINDS: tuple[ModuleType, ...] = (doctor_twin, finetune_run, miner_pool, report, routing, validator, validator_round)

_KEPT = {
    "type", "description", "properties", "required", "items", "enum", "pattern", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "maxProperties", "minProperties", "default", "format", "anyOf", "nullable",
}  # fmt: skip


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the structural form of one JSON schema node; raises ValueError for what Kubernetes can't express."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    if "allOf" in schema and len(schema["allOf"]) == 1:
        schema = {**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}}
        return structural(schema, definitions)
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a union of {len(options)} types has no structural schema: {schema}")
        rest = {k: v for k, v in schema.items() if k != "anyOf"}
        return structural({**options[0], **rest}, definitions)
    node: dict[str, Any] = {}
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    for key, value in schema.items():
        if key == "properties":
            node[key] = {name: structural(child, definitions) for name, child in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            node[key] = structural(value, definitions)
        elif key == "default" and value is None:
            continue
        elif key in _KEPT or key.startswith("x-kubernetes-"):
            node[key] = value
    if node.get("type") == "object" and "description" in node:
        node["description"] = " ".join(node["description"].split())
    return node


def _unbounded(node: dict[str, Any], path: str) -> Iterator[str]:
    kind = node.get("type")
    if kind == "string" and not ({"maxLength", "enum"} & node.keys()):
        yield f"{path}: string without maxLength"
    if kind == "array" and "maxItems" not in node:
        yield f"{path}: list without maxItems"
    if kind == "object" and "additionalProperties" in node and "maxProperties" not in node:
        yield f"{path}: map without maxProperties"
    if kind == "number":
        yield f"{path}: floats are not portable; use an integer with a unit, or a string"
    if not node.get("description") and not path.endswith(("[]", "{}")):
        yield f"{path}: no description"
    for name, child in node.get("properties", {}).items():
        yield from _unbounded(child, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from _unbounded(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _unbounded(node["additionalProperties"], f"{path}{{}}")


def definition(kind: ModuleType) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one kind; raises ValueError naming every field that lacks a bound."""
    model: type[BaseModel] = getattr(kind, "STORED", None) or getattr(kind, kind.KIND)
    raw = model.model_json_schema(by_alias=True)
    schema = structural(raw, raw.get("$defs", {}))
    parts = {name: node for name, node in schema["properties"].items() if name != "metadata"}
    schema["properties"] = {"metadata": {"type": "object"}, **parts}
    schema["required"] = [name for name in schema["required"] if name != "metadata"]
    problems = [problem for part, node in parts.items() for problem in _unbounded(node, part)]
    if problems:
        raise ValueError(f"{kind.KIND}: " + "; ".join(problems))
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": kind.COLUMNS,
        "schema": {"openAPIV3Schema": schema},
    }
    if "status" in parts:
        version["subresources"] = {"status": {}, **({"scale": kind.SCALE} if kind.SCALE else {})}
    if kind.SELECTABLE:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.SELECTABLE]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "bettertherapy"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": kind.PLURAL,
                "singular": kind.KIND.lower(),
                "shortNames": kind.SHORT_NAMES,
                **({"categories": kind.CATEGORIES} if kind.CATEGORIES else {}),
            },
            "versions": [version],
        },
    }


def files() -> dict[Path, str]:
    """Return the path, relative to the repository, and text of every generated file."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    made = {
        target / f"{kind.PLURAL}.yaml": HEADER
        + yaml.dump(definition(kind), Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)
        for kind in KINDS
        for target in TARGETS
    }
    for path in sorted((ROOT / POLICIES).glob("*.yaml")):
        made[POLICIES_COPY / path.name] = COPY_HEADER + path.read_text()
    return made


def main(argv: list[str]) -> int:
    """Write the files, or with --check name those that differ and return 1."""
    stale = [path for path, text in files().items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    if "--check" in argv:
        for path in stale:
            sys.stderr.write(f"{path} is not what the types say: run `make generate` and commit it\n")
        return 1 if stale else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(files()[path])
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
