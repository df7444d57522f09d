"""The programs that are built from the Go module proxy, each from its own go.mod and go.sum."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import BuildError
from localcluster.layout import MODULES, cache_dir, locked

KUBERNETES = "v1.36.3"
PROMETHEUS = "3.14.0"
_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
_BUILD_TIMEOUT_S = 45 * 60


def _kubernetes_flags() -> str:
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    return " ".join(
        f"-X {package}.{field}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for field in (
            f"gitVersion={KUBERNETES}",
            f"gitMajor={major}",
            f"gitMinor={minor}",
            "gitTreeState=clean",
        )
    )


@dataclass(frozen=True)
class Tool:
    """One build: a Go module of ours that names what it builds."""

    name: str
    packages: tuple[tuple[str, str], ...]
    """Pairs of a binary's name and the package it is built from."""
    ldflags: str = ""
    tags: str = ""
    """Go's build tags, with commas between."""
    disk_gb: float = 1.0
    """What a cold build adds to the disk: modules, build cache, binaries."""
    for_cluster: bool = False
    """Whether a cluster can't start without it."""

    @property
    def module(self) -> Path:
        """The folder with go.mod."""
        return MODULES / self.name

    def key(self) -> str:
        """A hash of everything that decides what is built."""
        digest = hashlib.sha256()
        for path in sorted(self.module.iterdir()):
            if path.suffix in {".mod", ".sum", ".go"}:
                digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        told = [*_FLAGS, self.ldflags, platform.machine(), repr(self.packages), *([self.tags] if self.tags else [])]
        digest.update("\0".join(told).encode())
        return digest.hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where the finished binaries are. It exists only when all of them do: it is put there by one rename."""
        return cache_dir() / "bin" / f"{self.name}-{self.key()}"

    @property
    def built(self) -> bool:
        """Whether nothing is left to do."""
        return self.folder.is_dir()


def _kubernetes(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"k8s.io/kubernetes/cmd/{name}") for name in names)


TOOLS: tuple[Tool, ...] = (
    Tool(
        name="kubernetes",
        packages=_kubernetes(
            "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"
        ),
        ldflags=_kubernetes_flags(),
        disk_gb=5.0,
        for_cluster=True,
    ),
    Tool(name="etcd", packages=(("etcd", "go.etcd.io/etcd/server/v3"),), disk_gb=0.7, for_cluster=True),
    Tool(name="coredns", packages=(("coredns", "."),), disk_gb=1.0, for_cluster=True),
    Tool(name="pause", packages=(("pause", "."),), disk_gb=0.1, for_cluster=True),
    Tool(
        name="helm",
        packages=(("helm", "helm.sh/helm/v4/cmd/helm"),),
        ldflags="-X helm.sh/helm/v4/internal/version.version=v4.3.1",
        disk_gb=1.5,
    ),
    Tool(name="kwok", packages=(("kwok", "sigs.k8s.io/kwok/cmd/kwok"),), disk_gb=1.0),
    Tool(
        name="prometheus",
        packages=(("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),),
        ldflags=f"-X github.com/prometheus/common/version.Version={PROMETHEUS}",
        # The other discoveries would bring every cloud's client library.
        tags="remove_all_sd,enable_kubernetes_sd",
        disk_gb=1.5,
    ),
    Tool(
        name="promtool",
        packages=(("promtool", "github.com/prometheus/prometheus/cmd/promtool"),),
        ldflags=f"-X github.com/prometheus/common/version.Version={PROMETHEUS}",
        tags="remove_all_sd,enable_kubernetes_sd",
        disk_gb=1.5,
    ),
    Tool(
        name="versitygw",
        packages=(("versitygw", "github.com/versity/versitygw/cmd/versitygw"),),
        ldflags="-X main.Version=v1.8.0",
        disk_gb=1.0,
    ),
    Tool(
        name="kubeconform",
        packages=(("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),),
        ldflags="-X main.version=v0.8.0",
        disk_gb=0.3,
    ),
    Tool(name="kube-score", packages=(("kube-score", "github.com/zegl/kube-score/cmd/kube-score"),), disk_gb=0.8),
)

BINARIES: dict[str, Tool] = {binary: tool for tool in TOOLS for binary, _ in tool.packages}


def find_go() -> str | None:
    """The go command, also where its usual folder is not on PATH."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def tool_of(binary: str) -> Tool:
    """The build that makes ``binary``.

    Raises:
        BuildError: nothing here makes it.
    """
    try:
        return BINARIES[binary]
    except KeyError:
        raise BuildError(f"there is no program {binary!r} here", remedy=f"name one of {', '.join(BINARIES)}") from None


def build(tool: Tool) -> Path:
    """Build ``tool`` unless that is done, and return the folder of its binaries.

    A second builder waits for the first. A build that was cut off leaves its compiled packages in Go's cache, so the
    next one goes on from there.

    Raises:
        BuildError: Go is missing, or it failed.
    """
    if tool.built:
        return tool.folder
    with locked(cache_dir() / "locks" / f"{tool.name}.lock"):
        if tool.built:
            return tool.folder
        go = find_go()
        if go is None:
            raise BuildError(f"Go is needed to build {tool.name}", remedy="install Go 1.26 or newer and put it on PATH")
        tool.folder.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in tool.folder.parent.glob(f".{tool.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{tool.name}-", dir=tool.folder.parent))
        try:
            _go_build(go, tool, partial)
            partial.chmod(0o755)
            partial.rename(tool.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return tool.folder


def link(programs: Sequence[str], folder: Path) -> None:
    """Put links to built programs into a folder that is on the user's PATH; what is there by other means stays."""
    for program in programs:
        tool, there = tool_of(program), folder / program
        if tool.built and (there.is_symlink() or not there.exists()):
            there.unlink(missing_ok=True)
            there.symlink_to(tool.folder / program)


def _go_build(go: str, tool: Tool, output: Path) -> None:
    log = cache_dir() / "log" / f"build-{tool.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    ldflags = f"-s -w {tool.ldflags}".rstrip()
    if len(tool.packages) == 1:
        target = str(output / tool.packages[0][0])
    else:
        target = f"{output}/"
    tags = ["-tags", tool.tags] if tool.tags else []
    command = ["nice", "-n", "10", go, "build", *_FLAGS, *tags, "-ldflags", ldflags, "-o", target]
    command += [package for _, package in tool.packages]
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                command,
                cwd=tool.module,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=_BUILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BuildError(
                f"building {tool.name} took longer than {_BUILD_TIMEOUT_S // 60} minutes",
                remedy="run the same command again: it goes on where this one stopped",
                log=log,
            ) from None
    missing = [binary for binary, _ in tool.packages if not (output / binary).is_file()]
    if done.returncode != 0 or missing:
        raise BuildError(
            f"building {tool.name} failed",
            remedy="check that the Go module proxy is reachable (go env GOPROXY) and the disk is not full, "
            "then run the same command again",
            log=log,
        )
