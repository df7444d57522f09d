"""Helm, and the charts rendered by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Manifest = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]
SUBNET_OWNER = (
    "--set", "owner.coldkey=5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "--set", "owner.hotkey=5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
)  # fmt: skip
"""What the local subnet's chart can't do without."""
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def charts() -> Path:
    return ROOT / "charts"


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return the path of one of the pinned programs."""
    from localcluster import Cluster

    return lambda name: str(Cluster("test").bin(name))


@pytest.fixture(scope="session")
def helm(tool: Callable[[str], str]) -> Helm:
    """Run helm: `helm("lint", path, check=False)`."""
    binary = tool("helm")

    def run(*args: str, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([binary, *args], capture_output=True, text=True, timeout=60, check=False, env=env)
        if check and done.returncode != 0:
            raise AssertionError(f"helm {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def render(helm: Helm, charts: Path) -> Render:
    """Render a chart as release `rel` in namespace `ns`: `render("twin-miner", "--set", "a=b")`."""

    def run(chart: str, *args: str) -> list[Manifest]:
        text = helm("template", "rel", str(charts / chart), "--namespace", "ns", *args).stdout
        return [document for document in yaml.safe_load_all(text) if document]

    return run


@pytest.fixture(scope="session")
def pods(render: Render) -> dict[str, Manifest]:
    """Every pod that the charts make: the specs of Pods and of Deployments' templates, by name."""
    documents = [
        *render("twin-operator"),
        *render("twin-miner", "-f", str(ROOT / "charts/twin-miner/ci/cpu-values.yaml")),
        *render("local-subnet", *SUBNET_OWNER),
        *render("twin-validator"),
    ]
    found: dict[str, Manifest] = {}
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found[name] = document["spec"]
        elif "template" in document.get("spec", {}):
            found[name] = document["spec"]["template"]["spec"]
    return found
