"""A real vLLM keeps the contract that the stand-in keeps, so what is tested on the one holds for the other.

By default the engine is a pod of its own with the pool's engine container, without an agent. Another one can be named:

TWIN_REAL_ENGINE_URL        http://host:port or unix:///path/of/socket of a vLLM with LoRA updating on
TWIN_REAL_ENGINE_BASE       the base model's served name
TWIN_REAL_ENGINE_ADAPTERS   two adapter folders of different weights as that engine sees them, separated by a colon;
                            a third is taken for one whose rank is above the engine's maximum
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import NAMESPACE, POOL, Clinic, eventually
from tests.standin import ROUTES
from tests.standin.contract import *  # noqa: F403 - collects the contract's tests here
from tests.standin.contract import Subject

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]  # a loaded machine takes minutes
POD = "bare-engine"


@dataclass(frozen=True)
class RealEngine:
    """Where a real vLLM is, and what to load into it."""

    url: str
    base: str
    adapters: tuple[str, ...]
    too_high: str | None


def bare_pod(template: dict[str, Any]) -> dict[str, Any]:
    """The pool's engine pod less the agent, the probes and the hook that only make sense with it."""
    spec = {key: template[key] for key in ("securityContext", "volumes")}
    engine = {k: v for k, v in template["containers"][0].items() if k not in ("lifecycle", "livenessProbe")}
    model = [c for c in template["initContainers"] if c["name"] == "model"]
    used = {mount["name"] for container in (engine, *model) for mount in container["volumeMounts"]}
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] in used]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            **spec,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "initContainers": model,
            "containers": [engine],
        },
    }


def bring_adapters(clinic: Clinic, pod: Any) -> tuple[tuple[str, ...], str]:
    """Copy the pool's adapters into the pod, and make one of them look like one of a higher rank."""
    known = clinic.engine_folder(clinic.pods("engine")[0], "adapters")
    own = clinic.engine_folder(pod, "adapters")
    folders = [config.parent for config in sorted(known.glob("*/*/adapter_config.json"))][:2]
    assert len(folders) == 2
    for number, folder in enumerate(folders):
        shutil.copytree(folder, own / f"a{number}")
    shutil.copytree(folders[0], own / "high")
    config = own / "high" / "adapter_config.json"
    config.chmod(0o644)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 64}))
    return ("/adapters/a0", "/adapters/a1"), "/adapters/high"


@pytest.fixture(scope="module")
def real_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    """The engine that the environment names, or one in a pod of its own."""
    if url := os.environ.get("TWIN_REAL_ENGINE_URL"):
        first, second, *high = os.environ["TWIN_REAL_ENGINE_ADAPTERS"].split(":")
        base = os.environ["TWIN_REAL_ENGINE_BASE"]
        yield RealEngine(url, base, (first, second), high[0] if high else None)
        return
    clinic: Clinic = request.getfixturevalue("clinic")
    template = clinic.get("deploy", f"{POOL}-engine")["spec"]["template"]["spec"]
    clinic.apply(bare_pod(template))
    try:
        pod = clinic.get("pod", POD)
        run = tmp_path_factory.mktemp("run") / "run"  # the socket's own path is too long for a socket address
        run.symlink_to(clinic.engine_folder(pod, "run"))
        eventually(lambda: clinic.engine_folder(pod, "adapters").is_dir(), seconds=120, what="the pod's volumes")
        adapters, high = bring_adapters(clinic, pod)
        eventually(lambda: answers(clinic), seconds=400, what="the bare engine's first answer")
        base = clinic.get("mp", POOL)["spec"]["baseModel"]["name"]
        yield RealEngine(f"unix://{run / 'vllm.sock'}", base, adapters, high)
    finally:
        clinic.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false")


def answers(clinic: Clinic) -> bool:
    """Tell whether the engine has begun to serve; fails when it ended."""
    status = clinic.get("pod", POD)["status"]
    assert status["phase"] in ("Pending", "Running"), status
    if status["phase"] == "Pending":
        return False
    ask = "import os, socket; socket.socket(socket.AF_UNIX).connect('/run/engine/vllm.sock')"
    inside = ("exec", POD, "-n", NAMESPACE, "-c", "engine", "--", "python3", "-c", ask)
    return clinic.kubectl(*inside, check=False).returncode == 0


@pytest.fixture
async def subject(real_engine: RealEngine) -> AsyncIterator[Subject]:
    """The engine, left without the adapters that a test loaded."""
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector()
    url = real_engine.url
    if url.startswith("unix://"):
        connector, url = aiohttp.UnixConnector(url.removeprefix("unix://")), "http://engine"
    timeout = aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        engine = Subject(http, url, real_engine.base, real_engine.adapters, real_engine.too_high)
        yield engine
        _, models = await engine.call("GET", "/v1/models")
        for card in models["data"]:
            if card["id"].startswith("try-"):
                await engine.unload(card["id"])


async def test_every_route_of_the_real_engine_is_known(subject: Subject) -> None:
    """A route that a new version adds must be tried against the agent's door."""
    _, document = await subject.call("GET", "/openapi.json")
    real = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    unify = {(method, path.replace("{response_id}", "{id}")) for method, path in real}
    assert unify <= set(ROUTES)
