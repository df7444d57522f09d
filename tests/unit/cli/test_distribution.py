"""The plugin as its own distribution: built, installed into an empty environment, and run."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT / "cli", check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    [made] = folder.glob("*.whl")
    return made


def needed(requirements: list[str]) -> Iterator[str]:
    """Yield the distributions that these need, and those that they need."""
    left, seen = [Requirement(each) for each in requirements], set[str]()
    while left:
        each = left.pop()
        if each.name.lower() in seen or (each.marker is not None and not each.marker.evaluate({"extra": ""})):
            continue
        seen.add(each.name.lower())
        try:
            found = distribution(each.name)
        except PackageNotFoundError:
            continue
        assert found.version in each.specifier
        yield each.name
        left += [Requirement(more) for more in found.requires or []]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment that has the wheel, what it says it needs, and nothing else.

    What it needs is taken from here: a test fetches nothing.
    """
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    for name in needed(re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)):
        found = distribution(name)
        for top in {Path(str(file)).parts[0] for file in found.files or [] if not str(file).startswith("..")}:
            if top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    # As an installer writes it.
    for program, entry in (("kubectl-twin", "kubectl_twin.main"), ("kubectl_complete-twin", "kubectl_twin.completion")):
        script = folder / "bin" / program
        script.write_text(f"#!{folder / 'bin' / 'python'}\nfrom {entry} import main\nmain()\n")
        script.chmod(0o755)
    return folder / "bin"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd=program.parent, capture_output=True, text=True, check=False, timeout=100,
        env={"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "80"},
    )  # fmt: skip


def test_it_brings_neither_operator_nor_neurons(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"kubectl_twin", "bettertherapy_api"}
    assert {"kubectl_twin/py.typed", "bettertherapy_api/names.py"} <= set(names)


def test_it_runs_alone(installed: Path) -> None:
    program = installed / "kubectl-twin"
    assert run(program, "--version").stdout == "kubectl-twin 0.1.0\n"
    shown = run(program, "--help")
    assert shown.returncode == 0, shown.stderr
    assert all(word in shown.stdout for word in ("ask", "list", "approve", "--version"))
    others = ("kopf", "twin_operator", "neurons", "aiohttp", "kubernetes")
    alone = f"import importlib.util as u; print([n for n in {others} if u.find_spec(n)])"
    assert run(installed / "python", "-c", alone).stdout == "[]\n"


def test_each_module_of_it_can_be_imported_alone(installed: Path) -> None:
    every = (
        "import pkgutil, importlib, kubectl_twin\n"
        "for each in pkgutil.walk_packages(kubectl_twin.__path__, 'kubectl_twin.'):\n"
        "    if not each.name.endswith('__main__'): importlib.import_module(each.name)\n"
        "import prometheus_client.parser, websocket, yaml, zoneinfo\n"
    )
    done = run(installed / "python", "-c", every)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", [["verify", "x"], ["miners", "--network", "x", "--netuid", "1"], ["adapter", "push"]]
)
def test_what_needs_the_neurons_says_so(installed: Path, command: list[str]) -> None:
    done = run(installed / "kubectl-twin", *command)
    assert done.returncode == 1
    assert "which the plugin alone does not bring" in done.stderr


def test_kubectl_completes_by_it(installed: Path) -> None:
    def offered(*words: str) -> list[str]:
        return run(installed / "kubectl_complete-twin", *words).stdout.splitlines()

    assert offered("sta") == ["status\tReport on one twin.", ":4"]
    assert "list\tList twins: by whom served, whether they answer." in offered("")
    assert "--as\tAct as this user." in offered("status", "--a")
    assert offered("adapter", "p")[0].startswith("push\t")
    assert offered("status", "-n", "x", "dr-") == [":4"]  # no cluster to ask


def test_the_two_projects_are_of_one_release() -> None:
    import tomllib

    own, whole = (tomllib.loads((ROOT / where / "pyproject.toml").read_text())["project"] for where in ("cli", "."))
    assert own["version"] == whole["version"]
    assert own["scripts"].items() <= whole["scripts"].items()
    pinned = {Requirement(each).name: Requirement(each) for each in whole["dependencies"]}
    for each in own["dependencies"]:
        if (named := Requirement(each)).name in pinned:
            assert named.specifier == pinned[named.name].specifier


def test_the_krew_manifest_is_one() -> None:
    text = (ROOT / "cli" / "krew.yaml.in").read_text()
    values = {"VERSION": "0.1.0", "URI": "https://example/x.tar.gz", "SHA256": "0" * 64, "HOMEPAGE": "https://example"}
    for name, value in values.items():
        assert f"@{name}@" in text
        text = text.replace(f"@{name}@", value)
    manifest = yaml.safe_load(text)
    assert "@" not in text
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Plugin", "twin")
    spec = manifest["spec"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", spec["version"])
    assert len(spec["shortDescription"]) <= 50  # krew's own linter
    for platform in spec["platforms"]:
        assert {"uri", "sha256", "bin", "files", "selector"} <= set(platform)
        assert platform["bin"] in {each["from"] for each in platform["files"]}
