"""Values that are odd and legal: nulls, names as long as Helm lets them be, numbers in quotes, registries with ports.

Each either renders what Kubernetes takes, or is refused in words that name the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import SUBNET_OWNER

CHARTS = Path(__file__).resolve().parents[2] / "charts"
NAMES = ("twin-operator", "twin-miner", "twin-validator", "local-subnet")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
IMAGE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*(:[\w.-]+|@sha256:[0-9a-f]{64})")


def template(helm: Callable, chart: str, *options: str, release: str = "rel") -> Any:
    needed = SUBNET_OWNER if chart == "local-subnet" else ()
    return helm("template", release, str(CHARTS / chart), "-n", "ns", *needed, *options, check=False)


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each and each["kind"] != "CustomResourceDefinition"]


def faults(node: object, path: str = "") -> Iterator[str]:
    """Yield what Kubernetes would refuse or take for something else."""
    if isinstance(node, dict):
        for key, value in node.items():
            at = f"{path}.{key}"
            if key == "image" and not IMAGE.fullmatch(str(value)):
                yield f"{at}: {value}"
            if key in ("name", "secretName", "existingSecret") and value in (None, ""):
                yield f"{at} is empty"
            if key in ("accessModes", "storage") and not value:
                yield f"{at} is empty"
            if key in ("labels", "annotations", "matchLabels", "nodeSelector") and isinstance(value, dict):
                yield from (f"{at}.{name}: {said!r}" for name, said in value.items() if not isinstance(said, str))
            yield from faults(value, at)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from faults(value, f"{path}[{number}]")
    elif isinstance(node, str) and "<no value>" in node:
        yield f"{path}: {node}"


def keys() -> Iterator[tuple[str, str]]:
    """Yield every key of every chart's values, two levels deep."""
    for chart in NAMES:
        for name, value in yaml.safe_load((CHARTS / chart / "values.yaml").read_text()).items():
            yield chart, name
            if isinstance(value, dict) and chart in ("twin-operator", "local-subnet"):
                yield from ((chart, f"{name}.{inner}") for inner in value)
    yield from (("twin-miner", f"persistence.store.{name}") for name in ("size", "accessModes", "storageClassName"))
    yield from (("twin-miner", "access.existingSecret"), ("twin-validator", "postgresql.existingSecret"))


@pytest.mark.parametrize(("chart", "key"), [pytest.param(*each, id=":".join(each)) for each in keys()])
def test_a_null_renders_what_kubernetes_takes_or_is_refused_by_its_name(chart: str, key: str, helm: Callable) -> None:
    store = ["--set", "persistence.store.enabled=true"] if key.startswith("persistence.store.") else []
    done = template(helm, chart, *store, "--set", f"{key}=null")
    if done.returncode == 0:
        assert list(faults(objects(done.stdout))) == []
    else:
        assert "nil pointer" not in done.stderr
        assert "error calling" not in done.stderr
        assert key.rsplit(".", 1)[-1] in done.stderr


@pytest.mark.parametrize("chart", NAMES)
@pytest.mark.parametrize("release", ["my.rel", "1rel", "r" * 53, "rel"])
def test_a_service_gets_a_name_that_it_may_have_or_the_release_is_refused(
    chart: str, release: str, helm: Callable
) -> None:
    done = template(helm, chart, release=release)
    if done.returncode == 0:
        names = [each["metadata"]["name"] for each in objects(done.stdout) if each["kind"] in ("Service", "Deployment")]
        assert [name for name in names if not DNS_LABEL.fullmatch(name)] == []
    else:
        assert release != "rel", done.stderr
        assert "the release's name" in done.stderr


@pytest.mark.parametrize("chart", NAMES)
def test_a_registry_may_have_a_port_and_a_path_and_no_empty_part(chart: str, helm: Callable) -> None:
    good = template(helm, chart, "--set", "global.imageRegistry=registry.example.org:5000/team/sub")
    assert list(faults(objects(good.stdout))) == []
    bad = template(helm, chart, "--set", "global.imageRegistry=registry.example.org/team//")
    assert bad.returncode != 0
    assert "imageRegistry" in bad.stderr


def test_what_looks_like_a_number_stays_a_text(helm: Callable, tmp_path: Path) -> None:
    doctor = {"name": "0777", "licence": "0123", "specialty": "1e3"}
    values = {
        "twins": [{"name": "0123", "doctor": doctor, "systemPrompt": "0755"}],
        "poolLabels": {"a": "0123", "b": "true", "c": "1e3", "d": ""},
        "pool": {
            "baseModel": {"name": "0123", "revision": "1e10"}, "nodeSelector": {"zone": "0123"},
            "resources": {"limits": {"memory": 34359738368, "nvidia.com/gpu": 1}},
        },
    }  # fmt: skip
    (tmp_path / "values.yaml").write_text(json.dumps(values))  # PyYAML would write 1e3 without quotes
    made = {
        each["kind"]: each for each in objects(template(helm, "twin-miner", "-f", f"{tmp_path}/values.yaml").stdout)
    }
    twin, pool = made["DoctorTwin"], made["MinerPool"]
    assert (twin["metadata"]["name"], twin["spec"]["doctor"], twin["spec"]["systemPrompt"]) == ("0123", doctor, "0755")
    assert {key: pool["metadata"]["labels"][key] for key in "abcd"} == values["poolLabels"]
    assert pool["spec"]["baseModel"]["revision"] == "1e10"
    assert pool["spec"]["nodeSelector"] == {"zone": "0123"}
    assert pool["spec"]["resources"]["limits"] == {"memory": 34359738368, "nvidia.com/gpu": 1}


def test_notes_name_the_secret_that_is_read_also_where_access_is_null(helm: Callable) -> None:
    for chart, key, secret in (("twin-miner", "access", "rel-access"), ("twin-validator", "postgresql", None)):
        done = helm("install", "rel", str(CHARTS / chart), "-n", "ns", "--dry-run=client", "--set", f"{key}=null")
        notes = done.stdout[done.stdout.index("NOTES:") :]
        assert "<no" not in notes
        assert secret is None or f"get secret {secret} " in notes
