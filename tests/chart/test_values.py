"""The values: schema, defaults and documentation agree, and a typo is refused before anything is sent."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import SUBNET_OWNER

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
NAMES = ("twin-operator", "twin-miner")
FREE = {"resources", "annotations", "labels", "nodeSelector", "podAnnotations", "podLabels", "poolLabels"}
FREE |= {"poolAnnotations", "global"}
"""Maps whose keys belong to the person who writes them."""


def objects(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every object in values.yaml that has a fixed set of keys."""
    yield path
    for name, value in values.items():
        if isinstance(value, dict) and name not in FREE:
            yield from objects(value, f"{path}{name}.")


PLACES = [
    pytest.param(chart, place, id=f"{chart}:{place}")
    for chart in NAMES
    for place in objects(yaml.safe_load((CHARTS / chart / "values.yaml").read_text()))
]


def test_schema_and_tables_are_generated() -> None:
    done = subprocess.run(
        [sys.executable, str(CHARTS / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("chart", "place"), PLACES)
def test_unknown_key_is_refused(chart: str, place: str, helm: Callable) -> None:
    done = helm("template", "rel", str(CHARTS / chart), "--set", f"{place}notAKey=1", check=False)
    assert done.returncode != 0
    assert "'notAKey' not allowed" in done.stderr


@pytest.mark.parametrize(
    ("chart", "setting", "said"),
    [
        ("twin-operator", "replicas=many", "/replicas"),
        ("twin-operator", "image.digest=abc", "/image/digest"),
        ("twin-operator", "watchNamespace=Not_A_Name", "/watchNamespace"),
        ("twin-miner", "pool.engine.device=TPU", "/pool/engine/device"),
        ("twin-miner", "pool.baseModel.uri=ftp://x/y", "/pool/baseModel/uri"),
        ("twin-miner", "twins[0].name=dr-a", "missing property 'doctor'"),
        ("twin-miner", "access.clients[0]=bad client", "/access/clients/0"),
    ],
)
def test_bad_value_is_refused_with_its_place(chart: str, setting: str, said: str, helm: Callable) -> None:
    done = helm("template", "rel", str(CHARTS / chart), "--set", setting, check=False)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("chart", NAMES)
def test_every_default_is_documented(chart: str) -> None:
    readme = (CHARTS / chart / "README.md").read_text()
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    missing = [name for name in values if f"| `{name}" not in readme]
    assert not missing


def test_the_readmes_own_cluster_path_renders(
    helm: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Its commands and its values.yaml are accepted as they stand there."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## On your own cluster") : text.index("## A twin that learns")]
    shell, values = re.findall(r"```(?:sh|yaml)\n(.*?)```", section, re.DOTALL)
    (tmp_path / "values.yaml").write_text(values)
    installs = [line for line in shell.replace("\\\n", " ").splitlines() if line.startswith("helm install")]
    assert len(installs) == 2
    for line in installs:
        command = line.replace("helm install", "template").replace("charts/", f"{CHARTS}/")
        command = command.replace("values.yaml", str(tmp_path / "values.yaml")).replace("--create-namespace", "")
        rendered = helm(*shlex.split(command)).stdout
        assert "registry.example.org/team" in rendered


@pytest.mark.parametrize("chart", ["twin-miner", "twin-validator"])
def test_the_pod_of_helm_test_starts_without_its_secret_and_says_what_is_missing(chart: str, render: Callable) -> None:
    """Its Secret may be one of your own that lacks what it looks for: the kubelet would wait for that until the end."""
    (pod,) = [each for each in render(chart) if each["kind"] == "Pod"]
    assert [volume["secret"].get("optional") for volume in pod["spec"]["volumes"] if "secret" in volume] == [True]


def images(node: object) -> set[str]:
    """Return all images that manifests name: of containers, and of what the operator gives its pods."""
    if isinstance(node, dict):
        named = {str(node["image"])} if isinstance(node.get("image"), str) else set()
        if str(node.get("name", "")).startswith("TWIN_IMAGE_"):
            named.add(str(node["value"]))
        return named.union(*(images(each) for each in node.values()))
    return set().union(*(images(each) for each in node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("chart", ["twin-operator", "twin-miner", "twin-validator", "local-subnet"])
def test_one_setting_says_where_all_images_are(chart: str, render: Callable) -> None:
    needed = list(SUBNET_OWNER) if chart == "local-subnet" else []
    before = images(render(chart, *needed))
    assert before
    after = images(render(chart, *needed, "--set", "global.imageRegistry=registry.example.org:5000/team/"))
    assert after == {each.replace("bettertherapy/", "registry.example.org:5000/team/") for each in before}


def test_an_image_that_is_named_stays_where_it_is(render: Callable) -> None:
    own = ["--set", "images.engineGPU.repository=vllm/vllm-openai,images.engineGPU.tag=v1"]
    found = images(render("twin-operator", *own, "--set", "global.imageRegistry=r.example.org/t"))
    assert "vllm/vllm-openai:v1" in found
    assert sum(each.startswith("r.example.org/t/") for each in found) == 5
    digest = "sha256:" + "a" * 64
    pinned = images(render("twin-miner", "--set", f"test.image.digest={digest},global.imageRegistry=r.example.org/t"))
    assert pinned == {f"r.example.org/t/neuron@{digest}"}
