"""Makes the operator's table of the Kubernetes API's structure: `python operator/api_structure.py [--check]`.

The source is Kubernetes' own OpenAPI (v3), as its module in Go's module cache has it once the local programs were
built, or as an API server answers under /openapi/v3 (`--from FOLDER` names a folder of such documents). With --check
nothing is written and a table that differs is named; where there is no source, that is said and nothing is checked.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "operator" / "twin_operator" / "engine" / "api_structure.json"
GO_MODULE = ROOT / "local" / "go" / "kubernetes" / "go.mod"
DOCUMENTS = ("api__v1", "apis__apps__v1", "apis__batch__v1", "apis__networking.k8s.io__v1", "apis__policy__v1",
             "apis__rbac.authorization.k8s.io__v1")  # fmt: skip
KINDS: Final = (
    "apps.v1.Deployment", "batch.v1.CronJob", "batch.v1.Job", "core.v1.ConfigMap", "core.v1.Secret", "core.v1.Service",
    "core.v1.ServiceAccount", "networking.v1.NetworkPolicy", "policy.v1.PodDisruptionBudget", "rbac.v1.Role",
    "rbac.v1.RoleBinding",
)  # fmt: skip
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
UNSEEN: Final = frozenset({"managedFields", "status"})
"""Fields that no child of ours states."""
CODE_DEFAULTS: Final[dict[tuple[str, str], Any]] = {
    # Filled in by the API server's code (pkg/apis/*/v1/defaults.go), which its schema doesn't tell. Only those count
    # that lie within a list or map that is compared in whole, or that are part of a list's key.
    ("NetworkPolicyPort", "protocol"): "TCP",
    ("ServicePort", "protocol"): "TCP",
    ("ObjectFieldSelector", "apiVersion"): "v1",
    ("ResourceFieldSelector", "divisor"): "0",
    ("ServiceAccountTokenProjection", "expirationSeconds"): 3600,
    ("HTTPGetAction", "scheme"): "HTTP",
}

OTHERS: Final[dict[str, dict[str, str]]] = {
    # Of other projects' definitions, which repeat Kubernetes' own types.
    "LeaderWorkerSet": {"metadata": "ObjectMeta", "spec": "LeaderWorkerSetSpec"},
    "LeaderWorkerSetSpec": {"leaderWorkerTemplate": "LeaderWorkerTemplate"},
    "LeaderWorkerTemplate": {"leaderTemplate": "PodTemplateSpec", "workerTemplate": "PodTemplateSpec"},
}
"""Types by their fields' types."""

Json = dict[str, Any]


def openapi_folder() -> Path | None:
    """Return where Go's module cache has Kubernetes' OpenAPI documents, or None."""
    match = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", GO_MODULE.read_text(), re.MULTILINE)
    try:
        cache = subprocess.run(
            [_go(), "env", "GOMODCACHE"], capture_output=True, text=True, check=True
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    folder = Path(cache) / "k8s.io" / f"kubernetes@{match[1] if match else None}" / "api" / "openapi-spec" / "v3"
    return folder if folder.is_dir() else None


def _go() -> str:
    usual = Path("/usr/local/go/bin/go")
    return str(usual) if usual.exists() else "go"


def load(folder: Path) -> dict[str, Json]:
    """Return the schemas of all documents by their full names."""
    schemas: dict[str, Json] = {}
    for document in DOCUMENTS:
        path = next((folder / f"{document}{end}" for end in ("_openapi.json", ".json")
                     if (folder / f"{document}{end}").exists()), None)  # fmt: skip
        if path is None:
            raise FileNotFoundError(f"{folder} has no OpenAPI document {document}")
        schemas.update(json.loads(path.read_text())["components"]["schemas"])
    return schemas


def reference(schema: Json) -> str | None:
    """Return the full name of the type that a property is, or None for a plain value."""
    for part in (schema, *schema.get("allOf", [])):
        if "$ref" in part:
            return str(part["$ref"]).rsplit("/", 1)[-1]
    return None


class Table:
    """Collects what is to be known of each type that a kind of ours reaches."""

    def __init__(self, schemas: dict[str, Json]) -> None:
        self._schemas = schemas
        self.types: dict[str, Json] = {}
        self._names: dict[str, str] = {}

    def add(self, full: str) -> str:
        """Take a type with all that it reaches; returns its short name."""
        short = full.rsplit(".", 1)[-1]
        if self._names.setdefault(short, full) != full:
            raise ValueError(f"two types are called {short}: {self._names[short]} and {full}")
        if short not in self.types:
            self.types[short] = {}
            properties = self._schemas[full].get("properties") or {}
            fields = {name: self._field(short, name, schema) for name, schema in properties.items()
                      if name not in UNSEEN}  # fmt: skip
            self.types[short] = {name: field for name, field in sorted(fields.items()) if field}
        return short

    def _field(self, owner: str, name: str, schema: Json) -> Json:
        field: Json = {}
        default = CODE_DEFAULTS.get((owner, name), schema.get("default"))
        if default not in (None, "", {}, [], 0, False):
            field["default"] = default
        inner = schema.get("items") or schema.get("additionalProperties") or schema
        full = reference(inner) if isinstance(inner, dict) else None
        if full == QUANTITY:
            field["quantity"] = True
        elif full is not None and self._schemas[full].get("properties"):
            field["type"] = self.add(full)
        if schema.get("type") == "array":
            kind = schema.get("x-kubernetes-list-type")
            if kind == "map":
                field["keys"] = schema["x-kubernetes-list-map-keys"]
            elif kind == "set":
                field["set"] = True
        elif "additionalProperties" in schema:
            field["map"] = True
        if schema.get("x-kubernetes-map-type") == "atomic" or (
            full is not None and inner is schema and self._schemas[full].get("x-kubernetes-map-type") == "atomic"
        ):
            field["atomic"] = True
        return field


def table(folder: Path) -> Json:
    """Return the table of the documents in a folder."""
    collected = Table(load(folder))
    kinds = {kind.rsplit(".", 1)[-1]: collected.add(f"io.k8s.api.{kind}") for kind in KINDS}
    if sorted(kinds) != sorted(kinds.values()):
        raise ValueError("a kind is not called as its type")
    useful = _pruned(collected.types)
    useful |= {name: {field: {"type": of} for field, of in fields.items()} for name, fields in OTHERS.items()}
    return {"kinds": sorted([*kinds, "LeaderWorkerSet"]), "types": dict(sorted(useful.items()))}


def _pruned(types: dict[str, Json]) -> dict[str, Json]:
    """Leave out what says nothing: types of plain values only, and the references to them."""
    while True:
        empty = {name for name, fields in types.items() if not fields}
        if not empty:
            return types
        types = {
            name: {
                field: kept
                for field, about in fields.items()
                if (kept := {key: value for key, value in about.items() if key != "type" or value not in empty})
                and kept != {"map": True}
            }
            for name, fields in types.items()
            if name not in empty
        }


def main() -> int:
    """Write or check the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the table differs")
    parser.add_argument("--from", dest="folder", type=Path, default=None, help="folder of /openapi/v3 documents")
    arguments = parser.parse_args()
    folder = arguments.folder or openapi_folder()
    if folder is None:
        sys.stderr.write("api_structure: Go's module cache has no Kubernetes; the table is left as it is\n")
        return 0
    made = table(folder)
    lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in made["types"].items())
    text = f'{{"kinds": {json.dumps(made["kinds"])},\n "types": {{\n  {lines}\n }}}}\n'
    if arguments.check:
        if TABLE.exists() and TABLE.read_text() == text:
            return 0
        sys.stderr.write(f"{TABLE.relative_to(ROOT)} differs from Kubernetes' OpenAPI: run `make generate`\n")
        return 1
    TABLE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
