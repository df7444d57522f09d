"""How long `kubectl twin list` takes beside `kubectl get`, on the cluster that $KUBECONFIG names.

`python -m tests.bench.plugin_speed NAMESPACE [OTHER_PYTHONPATH]`; the second names another release's plugin, to compare
with. Runs take turns, so that what else the machine does is borne by all alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

RUNS = 10


def seconds_of(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Run a command and return how long it took; raises CalledProcessError."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main(namespace: str, other: str | None = None) -> None:
    """Print minimum, median and maximum of each."""
    plugin = [sys.executable, "-m", "kubectl_twin", "list", "-n", namespace]
    ways: dict[str, tuple[list[str], Mapping[str, str]]] = {
        "kubectl get twins": (["kubectl", "get", "twins", "-n", namespace], os.environ),
        "kubectl twin list": (plugin, os.environ),
        "python -c pass": ([sys.executable, "-c", "pass"], os.environ),
    }
    if other is not None:
        ways["kubectl twin list, the other"] = (plugin, {**os.environ, "PYTHONPATH": other})
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, (command, environ) in ways.items():
            taken[name].append(seconds_of(command, environ))
    for name, each in taken.items():
        middle = statistics.median(each)
        sys.stdout.write(f"{name:<30} {min(each):.3f} / {middle:.3f} / {max(each):.3f} s\n")
    sys.stdout.write(
        f"min / median / max of {RUNS} runs; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
