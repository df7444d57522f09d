"""Makes what charts have of other files: values.schema.json, tables in READMEs, shared templates, alerts, dashboards.

`python charts/generate.py [--check]`.

The source is the chart's schema.yaml, its values.yaml for the defaults, and the CustomResourceDefinitions for values
that are a custom resource's spec. With --check nothing is written, and files that differ are named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashboards
import yaml

from bettertherapy_api.metrics.alerts import rules

CHARTS = Path(__file__).resolve().parent
CRDS = CHARTS / "twin-operator" / "files" / "crds"
NAMES = ("twin-operator", "twin-miner", "twin-validator", "local-subnet")
WITHOUT_NULLS = ("twin-operator", "local-subnet")
"""Charts whose templates read their values as they are; the others' leave out what is null."""
COPIES = {
    f"{chart}/templates/{name}": f"twin-miner/templates/{name}"
    for chart, names in {
        "twin-operator": ("_image.tpl",),
        "local-subnet": ("_image.tpl",),
        "twin-validator": ("_exposure.tpl", "_image.tpl", "_present.tpl", "_secrets.tpl"),
    }.items()
    for name in names
}
"""Files that two charts have alike, since a chart is packed alone: the copy and what it is of."""
BEGIN, END = "<!-- values: made by charts/generate.py -->", "<!-- end of values -->"
RIGHTS, END_OF_RIGHTS = "<!-- rights: made by charts/generate.py -->", "<!-- end of rights -->"

Schema = dict[str, Any]
"""A JSON schema: its values are any JSON."""


def crd_spec(kind: str) -> Schema:
    """Return the schema of `spec` of a kind, as its CustomResourceDefinition has it."""
    for path in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        if crd["spec"]["names"]["kind"] == kind:
            spec: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            return spec
    raise LookupError(f"no CustomResourceDefinition of kind {kind} in {CRDS}: run `python -m bettertherapy_api.crd`")


def schema_of(chart: str) -> Schema:
    """Return a chart's schema.yaml, with what it takes from a file beside the charts, `{file: NAME}`, written out."""

    def read(node: Any) -> Any:
        if isinstance(node, list):
            return [read(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node.keys() == {"file"}:
            return yaml.safe_load((CHARTS / node["file"]).read_text())
        return {key: read(value) for key, value in node.items()}

    schema: Schema = read(yaml.safe_load((CHARTS / chart / "schema.yaml").read_text()))
    return schema


def resolve(node: Any) -> Any:
    """Return the JSON schema: kinds written out, unknown keys refused, Kubernetes' own extensions dropped."""
    if isinstance(node, list):
        return [resolve(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "crd" in node:
        spec = crd_spec(node["crd"])
        optional = set(node.get("optional", []))
        required = [name for name in spec.get("required", []) if name not in optional] + node.get("require", [])
        merged = {**spec, "properties": {**node.get("add", {}), **spec["properties"]}, "required": required}
        if "description" in node:
            merged["description"] = node["description"]
        return resolve(_with_nulls({key: value for key, value in merged.items() if value != []}))
    # Helm fills in defaults from values.yaml; defaults of the API belong to the API server.
    out = {
        key: {name: resolve(child) for name, child in value.items()}
        if key in ("properties", "$defs")
        else resolve(value)
        for key, value in node.items()
        if not key.startswith("x-kubernetes-") and key not in ("default", "nullable")
    }
    if out.get("type") in ("object", ["object", "null"]) and "additionalProperties" not in out:
        out["additionalProperties"] = False
    free = out.get("additionalProperties")
    if isinstance(free, dict) and "anyOf" in free:
        # In a map of quantities null takes a value away, as it does everywhere in Helm's values; the template drops it.
        out["additionalProperties"] = {**free, "anyOf": [*free["anyOf"], {"type": "null"}]}
    return out


def needed(schema: Schema, defaults: dict[str, Any], root: Schema) -> Schema:
    """Return the schema with all keys required without which templates can't render: null takes a default away.

    Those are objects with keys of their own, and texts, numbers and lists whose default isn't empty. What says
    `nullable: true` renders without.
    """
    properties, required = dict(schema["properties"]), list(schema.get("required", []))
    for name, node in schema["properties"].items():
        default = defaults.get(name)
        if node.get("nullable") or isinstance(default, bool) or not default or "additionalProperties" in node:
            continue
        required.append(name)
        if isinstance(default, dict):
            meant = root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
            properties[name] = {
                **needed(meant, default, root),
                **{key: node[key] for key in ("description",) if key in node},
            }
    return {**schema, "properties": properties, "required": list(dict.fromkeys(required))}


def _with_nulls(node: Any) -> Any:
    """Return the schema with null for all that may be left out: the templates drop it.

    Helm drops it itself where values.yaml has the key, and leaves it where only another file of values has.
    """
    if isinstance(node, list):
        return [_with_nulls(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _with_nulls(value) for key, value in node.items() if key != "properties"}
    if "properties" in node:
        needed = node.get("required", [])
        out["properties"] = {
            name: _with_nulls(child) if name in needed else _or_null(_with_nulls(child))
            for name, child in node["properties"].items()
        }
    return out


def _or_null(node: Schema) -> Schema:
    if "anyOf" in node and "type" not in node:
        return {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
    if "type" not in node:
        return node
    return {**node, "type": [node["type"], "null"]} | ({"enum": [*node["enum"], None]} if "enum" in node else {})


def rows(schema: Schema, values: Any, root: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, description) of every value a person may set, depth first."""
    for name, raw in schema.get("properties", {}).items():
        node = raw
        if "$ref" in raw:
            node = {**root["$defs"][raw["$ref"].rsplit("/", 1)[1]], **raw}
        default = values.get(name) if isinstance(values, dict) else None
        key = f"{path}{name}"
        if node.get("type") == "object" and "properties" in node and "crd" not in raw:
            yield from rows(node, default, root, f"{key}.")
        else:
            yield key, _shown(default), node["description"]


def _shown(default: Any) -> str:
    text = json.dumps(default, ensure_ascii=False)
    return "see values.yaml" if len(text) > 60 else f"`{text}`"


def table(chart: str) -> str:
    """Return the Markdown table of a chart's values."""
    schema = schema_of(chart)
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    lines = ["| key | default | what it is |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {default} | {text} |" for key, default, text in rows(schema, values, schema)]
    return "\n".join(lines)


def rights() -> str:
    """Return the Markdown table of what the operator may do, by the chart's own rules."""
    template = (CHARTS / "twin-operator" / "templates" / "_rules.tpl").read_text()
    [defined] = re.findall(r'define "twin-operator\.rules" -}}\n(.*?)\n{{- end }}', template, re.DOTALL)
    lines = ["| API group | resources | verbs |", "| --- | --- | --- |"]
    for rule in yaml.safe_load(defined):
        [group] = rule["apiGroups"]
        resources = ", ".join(f"`{name}`" for name in rule["resources"])
        lines.append(f"| {group or 'core'} | {resources} | {', '.join(rule['verbs'])} |")
    return "\n".join(lines)


def _between(text: str, begin: str, end: str, made: str) -> str:
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{made}\n{end}{rest.partition(end)[2]}"


def files() -> dict[Path, str]:
    """Return path and text of every generated file."""
    made: dict[Path, str] = {}
    for chart in NAMES:
        source = schema_of(chart)
        if chart in WITHOUT_NULLS:
            source = needed(source, yaml.safe_load((CHARTS / chart / "values.yaml").read_text()), source)
        schema = {"$schema": "http://json-schema.org/draft-07/schema#", **resolve(source)}
        made[CHARTS / chart / "values.schema.json"] = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        readme = CHARTS / chart / "README.md"
        made[readme] = _between(readme.read_text(), BEGIN, END, table(chart))
        if chart == "twin-operator":
            made[readme] = _between(made[readme], RIGHTS, END_OF_RIGHTS, rights())
    for copy, source in COPIES.items():
        made[CHARTS / copy] = (CHARTS / source).read_text()
    operator = CHARTS / "twin-operator" / "files"
    made[operator / "rules.yaml"] = (
        "# Made by charts/generate.py of bettertherapy_api.metrics.alerts.\n"
        + yaml.safe_dump(rules(), sort_keys=False, width=1000)
    )
    made |= {operator / "dashboards" / name: text for name, text in dashboards.files().items()}
    return made


def main(argv: list[str]) -> int:
    """Write the files, or with --check name those that differ and return 1."""
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if "--check" in argv:
            sys.stderr.write(f"{path.relative_to(CHARTS.parent)} is stale: run `python charts/generate.py`\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"wrote {path.relative_to(CHARTS.parent)}\n")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
