"""From a restarted engine's first answer to all of its adapters verified again, on the demo's real engine.

`python -m tests.bench.heal`, or as one of `python -m tests.bench`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from demo.errors import DemoError
from tests.bench.demo_pool import DemoPool
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread

TARGET_SECONDS: Final = 2.0
RESTART_SECONDS: Final = 300.0
"""Longest wait for one restart: vLLM's start, and the kubelet's pauses, which grow up to 80 s over four restarts."""

_PROBE: Final = """
import http.client, json, socket, sys, time

names, limit = set(sys.argv[2:]), time.monotonic() + float(sys.argv[1])

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect("/run/engine/vllm.sock")

def ask(connection, path):
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()

def until(condition, pause):
    while time.monotonic() < limit:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    sys.exit("not in time")

def served():
    return {model["id"] for model in (ask(Unix("engine"), "/v1/models") or {}).get("data", [])}

def verified():
    said = ask(http.client.HTTPConnection("127.0.0.1", 8080, timeout=5), "/agent/v1/status") or {}
    held = {name for name, adapter in said.get("adapters", {}).items() if adapter["state"] == "Verified"}
    return said.get("ready") and names <= held and said

if not names <= served():
    sys.exit("the engine does not hold all adapters to begin with")
print("ready", flush=True)
until(lambda: not served(), 0.02)
down = time.monotonic()
held_at_first = until(served, 0.02) & names
answered = time.monotonic()
said = until(verified, 0.02)
healed = time.monotonic()
print(json.dumps({
    "down": answered - down, "healing": healed - answered, "forgot": not held_at_first, "serves": sorted(served()),
    "loading": max(said["adapters"][name].get("loadMillis", 0) for name in names) / 1000,
}), flush=True)
"""
"""Runs beside the agent, which shares the engine's socket: one clock for both ends, nothing of Kubernetes between."""


@dataclass(frozen=True)
class Healing:
    """One restart, in seconds."""

    down: float
    """From the first refused question to the new process's first answer: vLLM's own start."""
    healing: float
    """From that answer until the agent says that it is ready and all adapters are verified."""
    loading: float
    """The agent's own clock: load, confirm and fingerprint, of the slowest adapter; they come in side by side."""


def measure(options: Options) -> Result:
    """Measure it; the engine is left running with all adapters, its container's restart count higher."""
    pool = DemoPool.connect()
    pod = pool.engine_pods()[0]
    adapters = sorted(next(report.adapters for report in pool.reports() if report.pod.name == pod))
    healings = []
    for _ in range(options.restarts):
        healings.append(_restart(pool, pod, adapters))
        pool.settle()
    return Result(
        name="heal",
        title="From a restarted engine's first answer to all of its adapters verified again",
        how=(
            f"In the demo's engine pod ({len(adapters)} adapters, SmolLM2-135M on a CPU) vLLM's process was ended with "
            f"SIGTERM ({len(healings)} in all), and the kubelet started it again. A program in the agent's "
            "container asked the engine's own socket for its models every 20 ms, which were none of the adapters at "
            "its first answer, and from there on the agent for its status every 20 ms, until it was ready and all "
            "adapters were verified: digest, folder and fingerprint. The agent itself learns of the engine only by its "
            "own look, every 0.3 s."
        ),
        figures=_figures(healings),
        versions=pool.software(),
    )


def _figures(healings: Sequence[Healing]) -> tuple[Figure, ...]:
    healing = Spread.of([each.healing for each in healings])
    return (
        Figure(
            subject="engine pod", figure="first answer to all adapters verified", unit="s", digits=3, spread=healing,
            target="≤ 2 s", met=healing.maximum <= TARGET_SECONDS,
        ),
        Figure(
            subject="engine pod", figure="of it: load, confirm, fingerprint of the slowest adapter", unit="s", digits=3,
            spread=Spread.of([each.loading for each in healings]),
        ),
        Figure(
            subject="engine pod", figure="beside it: from its end to its first answer (kubelet and vLLM)", unit="s",
            digits=1, spread=Spread.of([each.down for each in healings]),
        ),
    )  # fmt: skip


def _restart(pool: DemoPool, pod: str, adapters: Sequence[str]) -> Healing:
    probe = pool.kube.popen(
        "exec", pod, "-n", pool.namespace, "-c", "agent", "--",
        "python", "-c", _PROBE, str(RESTART_SECONDS), *adapters,
    )  # fmt: skip
    try:
        first = probe.stdout.readline() if probe.stdout else b""
        if first.strip() == b"ready":
            # The exec is cut when the process that it ended was the container's first: its status means nothing.
            pool.kube.kubectl(
                "exec", pod, "-n", pool.namespace, "-c", "engine", "--", "sh", "-c", "kill -TERM 1", check=False
            )
        said, error = probe.communicate(timeout=RESTART_SECONDS + 30)
    except (subprocess.TimeoutExpired, DemoError) as failure:
        raise BenchmarkError(f"the engine in {pod} could not be restarted: {failure}") from failure
    finally:
        if probe.poll() is None:
            probe.kill()
            probe.wait(10)
    if probe.returncode != 0:
        raise BenchmarkError(f"the engine in {pod} did not heal: {error.decode(errors='replace').strip()}")
    found: dict[str, Any] = json.loads(said)
    if not found["forgot"] or not set(adapters) <= set(found["serves"]):
        raise BenchmarkError(f"not a restart that lost and regained all adapters: {found}")
    return Healing(down=found["down"], healing=found["healing"], loading=found["loading"])


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["heal", *sys.argv[1:]]))
