"""Which software was measured."""

from __future__ import annotations

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from localcluster import Cluster

REQUIREMENTS: Final = Path(__file__).resolve().parents[2] / "requirements"


def of_python() -> dict[str, str]:
    """Return what all of our processes run on."""
    return {"Python": platform.python_version(), "aiohttp": version("aiohttp"), "uvloop": version("uvloop")}


def litellm() -> str:
    """Return the version that is compared with, as locked."""
    return _locked("bench.txt", "litellm")


def of_cluster(cluster: Cluster) -> dict[str, str]:
    """Return what a cluster says of itself; LocalClusterError when it doesn't answer."""
    return {"Kubernetes": str(json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"])}


def _locked(file: str, package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==([^\s;\\]+)", (REQUIREMENTS / file).read_text(), re.MULTILINE)
    return found[1] if found else "of no known version"
