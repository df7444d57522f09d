"""Where the demo runs: a cluster made on this machine, one made by kind, or the kubeconfig's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from demo.errors import DemoError
from demo.kube import Kube
from demo.timeline import SubSteps, Timeline
from localcluster import Cluster, tools
from localcluster.errors import LocalClusterError
from localcluster.preflight import disk_needed_gb

_IMAGES_DISK_GB = 18.0
"""What building the images and loading them takes at its peak, beside the cluster's programs."""


_LATER = ("prometheus",)


class Target(Protocol):
    """A cluster to run the demo on."""

    builds_images: bool
    """Images are built here and loaded; else the cluster pulls them."""

    def preflight(self, timeline: Timeline, *, images_are_built: bool) -> None:
        """Say at the start what is missing; raises DemoError."""

    def build_command(self) -> list[str] | None:
        """Return the command that builds what the cluster can't start without; None when there is nothing to build."""

    def build_later_command(self) -> list[str] | None:
        """Return the command that builds what is needed once images are loaded; None when there is nothing to build."""

    def up(self, timeline: Timeline) -> Kube:
        """Bring the cluster up, unless it is, and return it; raises DemoError."""

    def load(self, archives: list[Path], timeline: Timeline) -> None:
        """Load images into the cluster; those that are there already take no time."""

    def prometheus(self, timeline: Timeline) -> str | None:
        """Return the URL, for pods, of a Prometheus that scrapes the project's pods; None when there is none."""

    def how_to_end(self) -> str:
        """Return the command that removes what the demo made."""


class LocalTarget:
    """Kubernetes as processes of this machine."""

    builds_images = True

    def __init__(self, name: str) -> None:
        self._name = name

    def preflight(self, timeline: Timeline, *, images_are_built: bool) -> None:
        """Memory, disk, Debian packages, Go."""
        try:
            programs = tuple(tool for tool in tools.TOOLS if tool.name in (*self._programs(), *_LATER))
            disk_gb = disk_needed_gb(programs) + (0.0 if images_are_built else _IMAGES_DISK_GB)
            Cluster(self._name, steps=SubSteps(timeline)).preflight(disk_gb=disk_gb)
        except LocalClusterError as error:
            raise _local(error) from error

    def build_command(self) -> list[str] | None:
        """The cluster's programs and helm, from the Go module proxy."""
        return [sys.executable, "-m", "localcluster", "--name", self._name, "build", *self._programs()]

    def build_later_command(self) -> list[str] | None:
        """Prometheus, whose build takes minutes."""
        return [sys.executable, "-m", "localcluster", "--name", self._name, "build", *_LATER]

    def up(self, timeline: Timeline) -> Kube:
        """Start it; does nothing when it runs."""
        cluster = Cluster(self._name, steps=SubSteps(timeline))
        try:
            cluster.up()
            tools.link(("kubectl", "helm"), Path(sys.executable).parent)
            return Kube(
                kubectl_program=str(cluster.bin("kubectl")),
                helm_program=str(cluster.bin("helm")),
                kubeconfig=cluster.kubeconfig_path,
            )
        except LocalClusterError as error:
            raise _local(error) from error

    def load(self, archives: list[Path], timeline: Timeline) -> None:
        """Import them into its containerd."""
        try:
            Cluster(self._name, steps=SubSteps(timeline)).load_images(archives)
        except LocalClusterError as error:
            raise _local(error) from error

    def prometheus(self, timeline: Timeline) -> str | None:
        """Start it beside the node."""
        try:
            return Cluster(self._name, steps=SubSteps(timeline)).prometheus()
        except LocalClusterError as error:
            raise _local(error) from error

    @staticmethod
    def _programs() -> list[str]:
        return [tool.name for tool in tools.TOOLS if tool.for_cluster or tool.name == "helm"]

    def how_to_end(self) -> str:
        """`make down`, for the cluster of `make demo`."""
        return "make down" if self._name == "demo" else f".venv/bin/python -m localcluster --name {self._name} down"


class KindTarget:
    """A cluster in Docker containers, made by kind."""

    builds_images = True
    _NAME = "bettertherapy-demo"

    def __init__(self, folder: Path) -> None:
        self._kubeconfig = folder / "kind-kubeconfig"

    def preflight(self, timeline: Timeline, *, images_are_built: bool) -> None:
        """Docker that answers, kind, kubectl, helm."""
        del timeline, images_are_built
        _require("docker", "kind", "kubectl", "helm", where="CLUSTER=kind")
        if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60).returncode != 0:
            raise DemoError(
                "Docker is installed but does not answer",
                remedy="start its daemon, or use CLUSTER=local, which needs no Docker",
            )

    def build_command(self) -> list[str] | None:
        """Nothing: kind brings its own Kubernetes."""
        return None

    def build_later_command(self) -> list[str] | None:
        """Nothing: kind brings its own Kubernetes."""
        return None

    def up(self, timeline: Timeline) -> Kube:
        """Create the cluster, unless it exists."""
        del timeline
        self._kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        known = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=False, timeout=60)
        if self._NAME in known.stdout.split():
            self._kind("export", "kubeconfig", "--name", self._NAME, "--kubeconfig", str(self._kubeconfig))
        else:
            self._kind(
                *("create", "cluster", "--name", self._NAME, "--kubeconfig", str(self._kubeconfig), "--wait", "180s")
            )
        return Kube(kubectl_program="kubectl", helm_program="helm", kubeconfig=self._kubeconfig)

    def load(self, archives: list[Path], timeline: Timeline) -> None:
        """Load them into kind's node."""
        for archive in archives:
            self._kind("load", "image-archive", str(archive), "--name", self._NAME)
            timeline.note(f"loaded {archive.name}")

    def prometheus(self, timeline: Timeline) -> str | None:
        """None: steps of a new version go by time."""
        del timeline
        return None

    def how_to_end(self) -> str:
        """Delete the cluster."""
        return f"kind delete cluster --name {self._NAME}"

    @staticmethod
    def _kind(*arguments: str) -> None:
        done = subprocess.run(["kind", *arguments], capture_output=True, text=True, check=False, timeout=900)
        if done.returncode != 0:
            raise DemoError(
                f"`kind {' '.join(arguments)}` failed",
                evidence=done.stderr.strip()[-2000:],
                remedy="kind's own message says why; `kind delete cluster --name bettertherapy-demo` starts afresh",
            )


class CurrentTarget:
    """The cluster of the kubeconfig's current context."""

    builds_images = False

    def __init__(self, prometheus: str | None = None) -> None:
        self._prometheus = prometheus

    def preflight(self, timeline: Timeline, *, images_are_built: bool) -> None:
        """Kubectl, helm, and a cluster that answers."""
        del images_are_built
        _require("kubectl", "helm", where="CLUSTER=current")
        kube = self._kube()
        context = kube.kubectl("config", "current-context").strip()
        kube.kubectl("version", timeout=30)
        timeline.note(f"context {context}; the demo installs into the namespaces twin-system and doctors")

    def build_command(self) -> list[str] | None:
        """Nothing to build."""
        return None

    def build_later_command(self) -> list[str] | None:
        """Nothing to build."""
        return None

    def up(self, timeline: Timeline) -> Kube:
        """It is up already."""
        del timeline
        return self._kube()

    def load(self, archives: list[Path], timeline: Timeline) -> None:
        """Nothing to load: the cluster pulls."""

    def prometheus(self, timeline: Timeline) -> str | None:
        """The one that was named, if any: the cluster's own."""
        del timeline
        return self._prometheus

    def how_to_end(self) -> str:
        """Uninstall what the demo installed."""
        return (
            "helm uninstall clinic subnet -n doctors; helm uninstall twin-operator -n twin-system; "
            "kubectl delete ns doctors second-miner careless-miner"
        )

    @staticmethod
    def _kube() -> Kube:
        return Kube(kubectl_program="kubectl", helm_program="helm", kubeconfig=None)


def _require(*programs: str, where: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise DemoError(
            f"{where} needs {', '.join(missing)}, which this machine does not have on its PATH",
            remedy="install it, or use CLUSTER=local, which builds all it needs",
        )


def _local(error: LocalClusterError) -> DemoError:
    return DemoError(error.what, evidence=error.log_tail(), remedy=error.remedy)
