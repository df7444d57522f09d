"""A release's charts, plugin, checksums and signature."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from release import charts, plugin, seals
from release.__main__ import check_version, clear
from release.errors import ReleaseError

ROOT = Path(__file__).resolve().parents[3]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_version_is_that_of_the_projects() -> None:
    check_version(VERSION, ROOT)
    with pytest.raises(ReleaseError, match="change it there first"):
        check_version("99.0.0", ROOT)
    with pytest.raises(ReleaseError, match="no version such as"):
        check_version("v1", ROOT)


def test_only_a_releases_own_folder_is_emptied(tmp_path: Path) -> None:
    clear(tmp_path / "dist")
    (tmp_path / "dist" / "images.json").write_text("{}")
    clear(tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())
    (tmp_path / "mine").write_text("")
    with pytest.raises(ReleaseError, match="holds what no release made"):
        clear(tmp_path)


@pytest.fixture(scope="module")
def helm() -> str:
    from localcluster import Cluster

    return str(Cluster("test").bin("helm"))


def test_charts_are_packed_with_the_version_that_their_images_have(tmp_path: Path, helm: str) -> None:
    packed = charts.package(ROOT / "charts", tmp_path, version="7.8.9", helm=helm)
    assert [path.name for path in packed] == [f"{name}-7.8.9.tgz" for name in charts.CHARTS]
    for path in packed:
        shown = subprocess.run(
            [helm, "show", "chart", str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        about = yaml.safe_load(shown.stdout)
        assert (about["version"], about["appVersion"]) == ("7.8.9", "7.8.9")
    command = [helm, "template", "rel", str(packed[0]), "--set", "global.imageRegistry=r.example.org/t"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "image: r.example.org/t/operator:7.8.9" in rendered


@pytest.mark.parametrize("name", charts.CHARTS)
def test_charts_say_what_artifact_hub_shows(name: str) -> None:
    about = yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text())
    assert about["maintainers"]
    assert about["icon"].startswith(("https://", "data:image/svg+xml"))
    notes = about["annotations"]
    assert notes["artifacthub.io/license"] == "MIT"
    assert notes["artifacthub.io/category"] == "ai-machine-learning"
    if name == "twin-operator":
        shown = {each["kind"] for each in yaml.safe_load(notes["artifacthub.io/crds"])}
        there = (yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml"))
        assert shown == {each["spec"]["names"]["kind"] for each in there}


@pytest.fixture(scope="module")
def built() -> bytes:
    """The plugin for this Python on this platform alone, out of the installer's cache."""
    uv = str(Path(sys.executable).with_name("uv"))
    own = [each for each in plugin.TARGETS if each.tag == f"cp3{sys.version_info.minor}-linux-amd64"]
    return plugin.build(ROOT, plugin.lock(ROOT, uv=uv), python=sys.executable, uv=uv, targets=own)


def test_the_plugin_is_one_file_that_any_python_runs(built: bytes, tmp_path: Path) -> None:
    content = plugin.archive(built, b"MIT")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == ["kubectl-twin", "LICENSE"]
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [tmp_path / "kubectl-twin", "--version"], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stdout == f"kubectl-twin {VERSION}\n", done.stderr
    assert len(list((tmp_path / ".cache" / "kubectl-twin").iterdir())) == 1


def test_a_platform_that_it_has_nothing_for_is_told(built: bytes, tmp_path: Path) -> None:
    other = plugin._START.replace("sys.platform,", "'plan9',")
    (tmp_path / "start.py").write_text(other.replace("sys.argv[0]", "sys.argv[1]"))
    (tmp_path / "kubectl-twin").write_bytes(built)
    command = [sys.executable, str(tmp_path / "start.py"), str(tmp_path / "kubectl-twin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "has nothing for" in done.stderr


def test_krews_manifest_has_the_archives_hash() -> None:
    template = (ROOT / "cli" / "krew.yaml.in").read_text()
    text = plugin.manifest(template, version="1.2.3", homepage="https://h", uri="https://d/x.tar.gz", content=b"x")
    made = yaml.safe_load(text)
    assert "@" not in text
    assert made["spec"]["version"] == "v1.2.3"
    for each in made["spec"]["platforms"]:
        assert (each["uri"], each["sha256"]) == ("https://d/x.tar.gz", hashlib.sha256(b"x").hexdigest())


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "sbom").mkdir()
    (tmp_path / "a.tar").write_bytes(b"a")
    (tmp_path / "sbom" / "b.json").write_bytes(b"b")
    seals.sums(tmp_path)
    check = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False, timeout=60).returncode == 0
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2
    (tmp_path / "a.tar").write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False, timeout=60).returncode != 0


def test_what_cannot_be_signed_is_said_with_the_command(tmp_path: Path) -> None:
    seals.sums(tmp_path)
    said = seals.sign(tmp_path, environment={"PATH": "/nonexistent"})
    assert said.startswith("NOT SIGNED: cosign is not on PATH")
    assert f"cosign sign-blob --yes --bundle {tmp_path / seals.BUNDLE} {tmp_path / seals.SUMS}" in said


def test_cosign_signs_the_checksums_by_the_key(tmp_path: Path) -> None:
    """By a program that stands for cosign and writes down what it was told."""
    seals.sums(tmp_path)
    stands_in = tmp_path / "cosign"
    stands_in.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    stands_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert "COSIGN_KEY names no key" in seals.sign(tmp_path, environment=environment)
    assert seals.sign(tmp_path, environment={**environment, "COSIGN_KEY": "k.key"}).startswith("signed by k.key")
    assert (tmp_path / "told").read_text().split() == [
        "sign-blob", "--key", "k.key", "--yes", "--bundle", str(tmp_path / seals.BUNDLE), str(tmp_path / seals.SUMS),
    ]  # fmt: skip
