"""The example for KEDA is one that KEDA takes: checked by a real API server with the definition of KEDA 2.21.

The definition comes from KEDA's Go module, told by its hash; nothing of KEDA runs here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Kubectl

EXAMPLE = ROOT / "examples" / "keda" / "scaled-object.yaml"
MODULE = "github.com/kedacore/keda/v2@v2.21.0"
SUM = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="


@pytest.fixture(scope="module")
def scaled_objects(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the cluster know ScaledObjects."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("without Go KEDA's module can't be had")
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        cwd=tmp_path_factory.mktemp("keda"), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"KEDA's module can't be had: {done.stdout[-300:]}{done.stderr[-300:]}")
    told = json.loads(done.stdout)
    assert told["Sum"] == SUM
    definition = Path(told["Dir"]) / "config" / "crd" / "bases" / "keda.sh_scaledobjects.yaml"
    kubectl("apply", "--server-side", "-f", str(definition))
    kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=30s")
    yield
    kubectl("delete", "crd", "scaledobjects.keda.sh", "--ignore-not-found", "--timeout=60s")


def scaled_object() -> dict[str, Any]:
    return next(each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] == "ScaledObject")


def test_the_example_holds_the_size_where_nothing_is_measured() -> None:
    spec = scaled_object()["spec"]
    assert "fallback" not in spec
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"


@pytest.mark.cluster
@pytest.mark.usefixtures("crds", "scaled_objects")
def test_the_example_is_admitted_down_to_its_last_field(namespace: str, kubectl: Kubectl) -> None:
    done = kubectl("apply", "-n", namespace, "--server-side", "--validate=strict", "-f", str(EXAMPLE))
    assert "unknown field" not in done.stderr
    stored = json.loads(kubectl("get", "scaledobject", "elastic-keda", "-n", namespace, "-o", "json").stdout)
    assert stored["spec"] == scaled_object()["spec"]


@pytest.mark.cluster
@pytest.mark.usefixtures("crds")
def test_a_pool_has_the_scale_that_keda_and_an_hpa_use(namespace: str, kubectl: Kubectl) -> None:
    pool = next(each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] == "MinerPool")
    kubectl("apply", "-n", namespace, "--server-side", "-f", "-", stdin=json.dumps(pool))
    kubectl("scale", "minerpool/elastic-keda", "-n", namespace, "--replicas=3")
    found = json.loads(kubectl("get", "minerpool", "elastic-keda", "-n", namespace, "-o", "json").stdout)
    assert found["spec"]["replicas"] == 3


@pytest.mark.cluster
@pytest.mark.usefixtures("crds")
def test_a_minimum_above_the_maximum_is_refused_in_words(namespace: str, kubectl: Kubectl) -> None:
    pool = next(each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] == "MinerPool")
    pool["spec"]["autoscaling"] = {"mode": "Operator", "min": 3, "max": 2}
    done = kubectl("apply", "-n", namespace, "--server-side", "-f", "-", stdin=json.dumps(pool), check=False)
    assert done.returncode != 0
    assert "autoscaling.min must not be above autoscaling.max" in done.stderr
