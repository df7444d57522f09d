"""Drive wrk (Debian: `apt-get install wrk`) and read its figures."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.bench.doors import Door
from tests.bench.registry import BenchmarkError

MAX_SECONDS: Final = 60.0

_HEAD: Final = """
wrk.method = "POST"
wrk.body = %(body)s
wrk.headers["Content-Type"] = "application/json"
"""
_EACH: Final = """
local head, rest = %(head)s, %(rest)s
local lines, at = {}, 0
function init(args)
  for line in io.lines(%(path)s) do lines[#lines + 1] = head .. line:gsub("\\t", "\\r\\n") .. rest end
end
function request()
  at = at + 1
  return lines[at] or head:sub(1, -3) .. rest -- used up: without its headers it is refused, and counted as failed
end
"""
_TAIL: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nFIGURES {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"errors":%d}\\n',
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


def run(
    url: str, *, body: str, door: Door, in_flight: int, seconds: float, folder: Path, at_most_per_second: float = 0.0
) -> Load:
    """POST `body` with so many requests always in flight; raises BenchmarkError when none is answered.

    `at_most_per_second`: how many of requests that differ are made ready for each second; when they are used up the
    rest fail.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchmarkError("wrk is missing: apt-get install wrk")
    whole = max(1, round(min(seconds, door.longest)))
    script = folder / "post.lua"
    lines = [_HEAD % {"body": _lua(body)}]
    lines += [f"wrk.headers[{_lua(name)}] = {_lua(value)}\n" for name, value in door.always().items()]
    each = door.each(url, body, math.ceil(at_most_per_second * whole))
    if each:
        file = folder / "each.txt"
        file.write_text("".join("\t".join(f"{name}: {value}" for name, value in one.items()) + "\n" for one in each))
        lines.append(_each(url, body, door.always(), file))
    script.write_text("".join([*lines, _TAIL]))
    command = [wrk, "-t1", f"-c{in_flight}", f"-d{whole}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=whole + 60, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES ")), None)
    if done.returncode or line is None:
        raise BenchmarkError(f"wrk failed: {done.stderr or done.stdout}")
    figures = json.loads(line.removeprefix("FIGURES "))
    if not figures["requests"]:
        if seconds > MAX_SECONDS:
            raise BenchmarkError(f"{url} answered nothing within {seconds:.0f} s, {in_flight} in flight")
        # Slower than one stretch: a longer one measures it, none would leave it out.
        return run(
            url, body=body, door=door, in_flight=in_flight, seconds=seconds * 4, folder=folder,
            at_most_per_second=at_most_per_second,
        )  # fmt: skip
    return Load(
        requests=figures["requests"],
        failed=figures["errors"],
        per_second=figures["requests"] / figures["microseconds"] * 1e6,
        p50=figures["p50"] / 1000,
        p99=figures["p99"] / 1000,
    )


def _each(url: str, body: str, always: Mapping[str, str], file: Path) -> str:
    """Return the part of the script that sends requests which differ in their headers."""
    at = urlsplit(url)
    headers = {"Host": at.netloc, "Content-Type": "application/json", **always}
    head = f"POST {at.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    rest = f"\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"
    return _EACH % {"head": _lua(head), "rest": _lua(rest), "path": _lua(str(file))}


def _lua(text: str) -> str:
    """Return a text as Lua writes it: JSON's form, since there is nothing in it but ASCII."""
    return json.dumps(text)
