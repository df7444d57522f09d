"""Drive wrk (Debian: `apt-get install wrk`) and read its figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.registry import BenchmarkError

MAX_SECONDS: Final = 60.0

_SCRIPT: Final = """
wrk.method = "POST"
wrk.body = %(body)s
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %(token)s"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nFIGURES {"requests":%%d,"microseconds":%%d,"p50":%%d,"p99":%%d,"errors":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """One stretch of load. Latencies in milliseconds."""

    requests: int
    failed: int
    per_second: float
    p50: float
    p99: float


def run(url: str, *, body: str, token: str, in_flight: int, seconds: float, folder: Path) -> Load:
    """POST `body` with so many requests always in flight; raises BenchmarkError when none is answered."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchmarkError("wrk is missing: apt-get install wrk")
    script = folder / "post.lua"
    script.write_text(_SCRIPT % {"body": json.dumps(body), "token": token})
    command = [wrk, "-t1", f"-c{in_flight}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES ")), None)
    if done.returncode or line is None:
        raise BenchmarkError(f"wrk failed: {done.stderr or done.stdout}")
    figures = json.loads(line.removeprefix("FIGURES "))
    if not figures["requests"]:
        if seconds > MAX_SECONDS:
            raise BenchmarkError(f"{url} answered nothing within {seconds:.0f} s, {in_flight} in flight")
        # Slower than one stretch: a longer one measures it, none would leave it out.
        return run(url, body=body, token=token, in_flight=in_flight, seconds=seconds * 4, folder=folder)
    return Load(
        requests=figures["requests"],
        failed=figures["errors"],
        per_second=figures["requests"] / figures["microseconds"] * 1e6,
        p50=figures["p50"] / 1000,
        p99=figures["p99"] / 1000,
    )
