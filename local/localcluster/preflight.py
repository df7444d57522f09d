"""What a machine must have, checked before anything is begun."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster.cgroups import hierarchies
from localcluster.config import CNI_BINARIES, PROGRAM_PATH
from localcluster.errors import PreflightError
from localcluster.layout import cache_dir, state_root
from localcluster.tools import Tool, find_go

GB = 1_000_000_000
GO_NEEDED = (1, 26)
MEMORY_GB = 12.0
MEMORY_LEAST_GB = 4.0
DISK_WORKING_GB = 3.0
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_NEEDED = 512
_APT_TIMEOUT_S = 10 * 60

PACKAGES: tuple[tuple[str, str], ...] = (
    ("containerd", "containerd"),
    ("containerd", "ctr"),
    ("runc", "runc"),
    ("containernetworking-plugins", f"{CNI_BINARIES}/ptp"),
    ("nftables", "nft"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("iproute2", "ip"),
    ("util-linux", "nsenter"),
    ("mount", "mount"),
    ("kmod", "modprobe"),
)
"""Debian packages, each with a program that shows it, or another one that brings the same, is there."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    found: str
    remedy: str = ""
    """What to do; empty when nothing is wrong."""
    fatal: bool = True
    """Whether a cluster can't come up like this."""


def go_version(text: str) -> tuple[int, int] | None:
    """Major and minor of what ``go version`` or ``go env GOVERSION`` printed."""
    match = re.search(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def disk_needed_gb(tools: tuple[Tool, ...]) -> float:
    """What building the tools that are not built yet, and working with them, takes."""
    return DISK_WORKING_GB + sum(tool.disk_gb for tool in tools if not tool.built)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _check_machine() -> list[Finding]:
    system, machine = platform.system(), platform.machine()
    supported = system == "Linux" and machine in {"x86_64", "aarch64"}
    root = os.geteuid() == 0
    python = sys.version_info >= (3, 11)
    return [
        Finding("machine", f"{system} {machine}", "" if supported else "use Linux on amd64 or arm64"),
        Finding("root", "yes" if root else "no", "" if root else "run it as root: it makes namespaces and mounts"),
        Finding("python", platform.python_version(), "" if python else "install Python 3.11 or newer"),
    ]


def _check_programs(*, building: bool) -> list[Finding]:
    findings = []
    if building:
        go = find_go()
        version = None
        if go is not None:
            # `go env GOVERSION` in a folder with a go.mod would name the toolchain that go.mod asks for.
            said = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False, cwd="/")
            version = go_version(said.stdout)
        enough = version is not None and version >= GO_NEEDED
        needed = ".".join(map(str, GO_NEEDED))
        findings.append(
            Finding(
                "go",
                "none" if version is None else ".".join(map(str, version)),
                "" if enough else f"install Go {needed} or newer and put it on PATH (Debian 12's own is too old)",
            )
        )
    for program in ("git", "make"):
        path = shutil.which(program)
        findings.append(Finding(program, path or "none", "" if path else f"apt-get install {program}", fatal=False))
    return findings


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not there."""
    absent = [package for package, program in PACKAGES if shutil.which(program, path=PROGRAM_PATH) is None]
    return list(dict.fromkeys(absent))


def _check_kernel() -> list[Finding]:
    findings = []
    for module in ("overlay", "nf_tables", "nf_conntrack", "veth"):
        # Built in or already loaded where it fails; what is really missing is found below or when it is used.
        subprocess.run(["modprobe", "--quiet", module], check=False, timeout=30, capture_output=True)
    overlay = "overlay" in Path("/proc/filesystems").read_text(encoding="utf-8")
    findings.append(Finding("overlayfs", "yes" if overlay else "no", "" if overlay else "use a kernel with overlayfs"))
    found = hierarchies()
    kind = "v2" if found.unified else f"v1, {len(found.roots)} hierarchies"
    findings.append(Finding("cgroups", kind, "" if found.roots else "mount the cgroup hierarchies"))
    return findings


def raise_inotify_limit() -> bool:
    """Raise this machine's limit of inotify instances where it is too low for a kubelet; True if it was."""
    if not _INOTIFY.is_file() or int(_INOTIFY.read_text()) >= _INOTIFY_NEEDED:
        return False
    _INOTIFY.write_text(str(_INOTIFY_NEEDED))
    return True


def _available_memory_gb() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / GB
    return 0.0


def _check_resources(*, memory_gb: float, disk_gb: float) -> list[Finding]:
    available = _available_memory_gb()
    remedy = ""
    if available < memory_gb:
        remedy = f"{memory_gb:.0f} GB are wanted: end other programs or use a larger machine"
    findings = [Finding("memory", f"{available:.1f} GB available", remedy, fatal=available < MEMORY_LEAST_GB)]
    for what, path in (("cache", cache_dir()), ("state", state_root())):
        free = shutil.disk_usage(_existing(path)).free / GB
        variable = "BETTERTHERAPY_CACHE" if what == "cache" else "BETTERTHERAPY_STATE"
        enough = free >= disk_gb
        findings.append(
            Finding(
                f"disk for {path}",
                f"{free:.0f} GB free",
                ""
                if enough
                else f"{disk_gb:.0f} GB are needed: free some, or set {variable} to a folder on another disk",
            )
        )
    return findings


def check(*, tools: tuple[Tool, ...], memory_gb: float = MEMORY_GB, disk_gb: float | None = None) -> list[Finding]:
    """Look at the machine. ``tools`` are what will be wanted of `tools.TOOLS`."""
    findings = _check_machine()
    findings += _check_programs(building=any(not tool.built for tool in tools))
    missing = missing_packages()
    findings.append(
        Finding(
            "Debian packages",
            f"{', '.join(missing)} missing" if missing else "all there",
            f"apt-get install {' '.join(missing)}" if missing else "",
        )
    )
    findings += _check_kernel()
    needed = disk_needed_gb(tools) if disk_gb is None else disk_gb
    return findings + _check_resources(memory_gb=memory_gb, disk_gb=needed)


def install_packages(note: Callable[[str], None]) -> None:
    """Install what is missing, by apt-get.

    Raises:
        PreflightError: it can't be installed from here.
    """
    missing = missing_packages()
    if not missing:
        return
    remedy = f"install by hand what provides: {', '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PreflightError(f"Debian packages are missing: {', '.join(missing)}", remedy=remedy)
    note(f"installing {', '.join(missing)}")
    log = cache_dir() / "log" / "apt-get.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Never at the price of something that is there, such as another container engine.
    install = ["apt-get", "install", "-y", "--no-install-recommends", "--no-remove", *missing]
    with log.open("wb") as stream:
        for command in (["apt-get", "update"], install):
            done = subprocess.run(
                command, env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=_APT_TIMEOUT_S, check=False
            )
            if done.returncode != 0:
                raise PreflightError(f"`{' '.join(command)}` failed", remedy=remedy, log=log)


def require(findings: list[Finding]) -> None:
    """Raise for what is fatal.

    Raises:
        PreflightError: the machine can't run a cluster, with all that is wrong at once.
    """
    wrong = [finding for finding in findings if finding.remedy and finding.fatal]
    if wrong:
        raise PreflightError(
            "this machine is not ready: " + "; ".join(f"{finding.name}: {finding.found}" for finding in wrong),
            remedy="; ".join(finding.remedy for finding in wrong),
        )
