"""A wedged engine, whose /health would go on saying 200, is found by its standing still, restarted and filled again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import NAMESPACE, POOL, Clinic, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
TWIN = "dr-indra-gurung"
STOP_THE_CORE = """
import os, pathlib, signal
for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
    if comm.read_text().startswith("VLLM::"):
        os.kill(int(comm.parent.name), signal.SIGSTOP)
        print(comm.parent.name)
"""


def test_a_wedged_engine_is_restarted_and_gets_its_adapters_back(clinic: Clinic) -> None:
    clinic.await_serving(TWIN)
    pod = clinic.pods("engine")[0]["metadata"]["name"]

    def restarts() -> int:
        statuses = clinic.get("pod", pod)["status"]["containerStatuses"]
        return next(int(s["restartCount"]) for s in statuses if s["name"] == "engine")

    before = restarts()
    stopped = clinic.kubectl("exec", "-n", NAMESPACE, pod, "-c", "engine", "--", "python3", "-c", STOP_THE_CORE).stdout
    assert stopped.split(), "nothing was stopped, so nothing is wedged"
    with ThreadPoolExecutor(1) as worker:
        hangs = worker.submit(clinic.ask, TWIN)
        eventually(lambda: restarts() > before, seconds=180, what="the kubelet's restart of the engine")
        # It was not left hanging: with no other pod to ask, it was refused in so many words.
        assert hangs.result(timeout=60).status in {502, 503}
    eventually(lambda: clinic.is_true("twin", TWIN, "Ready"), seconds=300, what="the twin's Ready")
    clinic.await_serving(TWIN)
    assert clinic.ask(TWIN).status == 200
    assert "Wedged" in clinic.kubectl("describe", "mp", POOL, "-n", NAMESPACE).stdout.partition("Events:")[2]
