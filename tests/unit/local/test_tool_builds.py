"""Programs are built once per content of their module, and never half."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from localcluster import tools
from localcluster.errors import BuildError
from localcluster.tools import TOOLS, Tool

_GO_THAT_WRITES = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""
_GO_THAT_FAILS = """#!/bin/sh
echo "module not found" >&2
exit 1
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("BETTERTHERAPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "MODULES", tmp_path / "go")
    module = tmp_path / "go" / "thing"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module thing\n")
    return Tool(name="thing", packages=(("thing", "."),))


def _use_go(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = folder / "go-command"
    go.write_text(script)
    go.chmod(0o755)
    monkeypatch.setattr(tools, "find_go", lambda: str(go))


def test_a_change_of_go_sum_asks_for_a_new_build(tool: Tool) -> None:
    before = tool.key()
    (tool.module / "go.sum").write_text("example.org/x v1.0.0 h1:abc\n")

    assert tool.key() != before


def test_a_change_of_flags_asks_for_a_new_build(tool: Tool) -> None:
    assert Tool(name=tool.name, packages=tool.packages, ldflags="-X main.version=2").key() != tool.key()


def test_a_second_build_does_nothing(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_go(_GO_THAT_WRITES, tmp_path, monkeypatch)
    folder = tools.build(tool)
    monkeypatch.setattr(tools, "find_go", lambda: pytest.fail("Go was asked again"))

    assert tools.build(tool) == folder
    assert (folder / "thing").read_text() == "built\n"


def test_a_failed_build_shows_what_go_said_and_leaves_nothing(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_go(_GO_THAT_FAILS, tmp_path, monkeypatch)

    with pytest.raises(BuildError, match="module not found"):
        tools.build(tool)

    assert not tool.built
    assert list(tool.folder.parent.iterdir()) == []


def test_what_an_interrupted_build_left_is_cleared(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned = tool.folder.parent / ".thing-abandoned"
    abandoned.mkdir(parents=True)
    _use_go(_GO_THAT_WRITES, tmp_path, monkeypatch)

    tools.build(tool)

    assert not abandoned.exists()


def test_an_unknown_program_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="kubectl"):
        tools.tool_of("minikube")


@pytest.mark.parametrize("real", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_pins_what_it_builds(real: Tool) -> None:
    own = [package for _, package in real.packages if package == "."]
    declared = (real.module / "go.mod").read_text()

    assert all(package in declared for _, package in real.packages if package != ".")
    assert own == [] or (real.module / "main.go").is_file()


def test_kubernetes_is_built_at_the_version_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    kubernetes = next(tool for tool in TOOLS if tool.name == "kubernetes")

    assert f"k8s.io/kubernetes {tools.KUBERNETES}" in (kubernetes.module / "go.mod").read_text()
    assert f"gitVersion={tools.KUBERNETES}" in kubernetes.ldflags


def test_go_is_run_without_the_callers_flags(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_go(_GO_THAT_WRITES, tmp_path, monkeypatch)
    monkeypatch.setitem(os.environ, "GOFLAGS", "-mod=mod")
    seen: dict[str, str] = {}
    real_run = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        seen.update(options["env"])
        return real_run(command, **options)

    monkeypatch.setattr(tools.subprocess, "run", run)
    tools.build(tool)

    assert seen["GOFLAGS"] == ""
    assert seen["CGO_ENABLED"] == "0"


def test_built_programs_are_linked_and_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BETTERTHERAPY_CACHE", str(tmp_path / "cache"))
    built = tools.tool_of("kubectl").folder
    built.mkdir(parents=True)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kube-proxy").write_text("the user's own")
    tools.link(("kubectl", "kube-proxy", "helm"), folder)
    tools.link(("kubectl",), folder)

    assert (folder / "kubectl").readlink() == built / "kubectl"
    assert (folder / "kube-proxy").read_text() == "the user's own"
    assert not (folder / "helm").is_symlink()
