"""A miner under hostile load: what it holds in memory, and how long others wait beside it.

`python -m tests.bench.hostile`, or `hostile` as one of `python -m tests.bench`. The suite runs it for some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bettertherapy_api import names
from tests.bench import processes, proxy
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread

PATIENT: Final = "a-hostile-patients-token"
LIMIT_BYTES: Final = 256 * 1024 * 1024
"""What the miner is told that it may have; the operator's default is twice that."""
PER_SECOND: Final = 25.0
"""Questions of the others, at even distances, whatever becomes of those before."""
CALM_SECONDS: Final = 20.0
WARM_UP_SECONDS: Final = 5.0
_FILES: Final = 16_384


@dataclass
class Others:
    """What clients that mean no harm got. Times in milliseconds."""

    waited: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def percentile(self, part: float) -> float:
        """Return the time that so many of them waited at most."""
        waited = sorted(self.waited)
        return waited[min(len(waited) - 1, int(len(waited) * part))]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run."""

    calm: Others
    attacked: Others
    beside: Others
    """While the one is attacked, at a miner of the same kind on the same machine that nobody attacks."""
    peak_mb: float
    after_mb: float
    alive: bool
    processor_percent: float
    """Of one processor, that the miner took under attack."""
    attacks: dict[str, int]
    """What the attackers got, by kind and status."""


async def measured(folder: Path, *, seconds: float, calm_seconds: float = CALM_SECONDS) -> Measured:
    """Measure a miner of its own for so long; raises BenchmarkError."""
    _allow_files()
    with contextlib.ExitStack() as stack:
        url, process = _start(stack, folder / "attacked")
        elsewhere, _ = _start(stack, folder / "beside")
        await asyncio.gather(_others(url, WARM_UP_SECONDS), _others(elsewhere, WARM_UP_SECONDS))
        calm = await _others(url, calm_seconds)
        # Real attackers have machines of their own: these take what the measured ones leave of this one's processors.
        command = ["nice", "-n", "19", sys.executable, "-m", "tests.bench.attackers", url, PATIENT, str(seconds)]
        report = folder / "attackers.log"
        peak, took = _Peak(process.pid), processes.cpu_ms(process.pid)
        with processes.running(command, report) as attackers:
            watching = asyncio.create_task(peak.watch())
            attacked, beside = await asyncio.gather(_others(url, seconds), _others(elsewhere, seconds, late=0.5))
            took = processes.cpu_ms(process.pid) - took
            await asyncio.to_thread(attackers.wait, 30)
            watching.cancel()
        alive = process.poll() is None
        return Measured(
            calm=calm, attacked=attacked, beside=beside, peak_mb=peak.megabytes, alive=alive,
            processor_percent=took / (10 * seconds), after_mb=processes.resident_mb(process.pid) if alive else 0.0,
            attacks=json.loads(processes.last_line(report)),
        )  # fmt: skip


def measure(options: Options) -> Result:
    """Measure once, for `hostile_seconds`."""
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(measured(Path(name), seconds=options.hostile_seconds))
    calm, attacked, beside = (each.percentile(0.99) for each in (found.calm, found.attacked, found.beside))
    limit_mb = LIMIT_BYTES / 1e6
    failed = sum(count for status, count in found.attacked.statuses.items() if status != "200")
    figures = [
        Figure(
            subject="miner", figure="most memory under attack (VmRSS)", unit="MB", digits=0,
            spread=Spread.of([found.peak_mb]), target=f"≤ {limit_mb:.0f} MB", met=found.peak_mb <= limit_mb,
        ),
        Figure(
            subject="other clients", figure="p99 under attack, of the same before it", unit="times", digits=1,
            spread=Spread.of([attacked / calm]), target="≤ 2 times", met=attacked <= 2 * calm,
        ),
        Figure(
            subject="other clients", figure="p99 under attack, of the same at a miner beside", unit="times", digits=1,
            spread=Spread.of([attacked / beside]), target="≤ 2 times", met=attacked <= 2 * beside,
        ),
        Figure(
            subject="other clients", figure="questions not answered under attack", unit="", digits=0,
            spread=Spread.of([float(failed)]), target="0", met=failed == 0,
        ),
        Figure(
            subject="miner", figure="processor under attack, of one", unit="%", digits=0,
            spread=Spread.of([found.processor_percent]),
        ),
        *(
            Figure(subject="other clients", figure=figure, unit="ms", digits=1, spread=Spread.of([value]))
            for figure, value in (
                ("p50 before", found.calm.percentile(0.5)), ("p50 under attack", found.attacked.percentile(0.5)),
                ("p99 before", calm), ("p99 under attack", attacked), ("p99 at the miner beside", beside),
            )
        ),
    ]  # fmt: skip
    return Result(
        name="hostile",
        title="A miner under hostile load",
        how=(
            f"One miner that may have {limit_mb:.0f} MB before an instant engine; another client asks "
            f"{PER_SECOND:.0f} times a second, for {CALM_SECONDS:.0f} s in peace and then for "
            f"{options.hostile_seconds:.0f} s beside attackers (`tests/bench/attackers.py`) with one patient's token: "
            "bodies of a mebibyte (tiny messages, one text, emojis, nested lists), 100 that come by the kilobyte, 100 "
            "streams that nobody reads, 300 requests held for a twin that no pod has, 2,000 connections that begin a "
            "request and never end it, 200 heads without an end, and strangers. Each has a pace, some 350 requests a "
            "second in all, and the lowest priority: the miner is measured, and not a machine without a processor. "
            "What the machine itself adds while that lasts is told by a second miner, which nobody attacks and the "
            "same client asks as often."
        ),
        figures=tuple(figures),
        notes=(f"What the attackers got: {json.dumps(found.attacks)}",),
    )


class _Peak:
    """The most memory that a process has had."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.megabytes = 0.0

    async def watch(self) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            while True:
                self.megabytes = max(self.megabytes, processes.resident_mb(self._pid))
                await asyncio.sleep(0.1)


async def _others(url: str, seconds: float, *, late: float = 0.0) -> Others:
    """Ask for so long; `late`: by this part of the time between two, so that two who ask don't ask together."""
    found = Others()
    headers = {"Authorization": f"Bearer {proxy.TOKEN}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        url, headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def one() -> None:
            began = time.monotonic()
            try:
                async with session.post("/v1/chat/completions", data=proxy.BODY) as response:
                    await response.read()
                    found.statuses[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                found.statuses[type(error).__name__] += 1
            found.waited.append((time.monotonic() - began) * 1000)

        begun = time.monotonic() + late / PER_SECOND
        asked = []
        for number in range(int(seconds * PER_SECOND)):
            await asyncio.sleep(max(0.0, begun + number / PER_SECOND - time.monotonic()))
            asked.append(asyncio.create_task(one()))
        await asyncio.gather(*asked)
    return found


def _start(stack: contextlib.ExitStack, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    folder.mkdir()
    engine, port = processes.free_port(), processes.free_port()
    command = [sys.executable, "-m", "tests.bench.servers.talkative", str(engine)]
    stack.enter_context(processes.running(command, folder / "engine.log"))
    proxy.write_tables(folder, engine=f"http://127.0.0.1:{engine}")
    (folder / "access" / "patient").write_text(PATIENT)
    _add_twin_without_pods(folder / "tables" / "slices" / f"{names.routing_slice_name('bench', 0)}.json")
    miner = [*proxy.miner_command(folder, port=port), f"--memory-limit-bytes={LIMIT_BYTES}", "--hold-seconds=20"]
    process = stack.enter_context(processes.running(miner, folder / "miner.log"))
    url = f"http://127.0.0.1:{port}"
    proxy.wait_for(url, process, folder / "miner.log")
    return url, process


def _add_twin_without_pods(path: Path) -> None:
    document: dict[str, Any] = json.loads(path.read_text())
    twins = document["twins"]
    away = json.loads(json.dumps(twins["0"])) | {"name": "away"}
    away["versions"] = [{"servedName": "away-bbbbbbbb", "digest": f"sha256:{'b' * 64}", "weightPercent": 100}]
    path.write_text(json.dumps(document | {"twins": {**twins, "1": away}}))


def _allow_files() -> None:
    """Let this process and its children have as many connections as the attack makes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        raise BenchmarkError(f"{hard} open files are allowed here: raise the limit to {_FILES} (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _FILES), hard))


def told(found: Measured) -> Iterator[str]:
    """Yield what a reader of a failed test wants to know."""
    yield f"peak {found.peak_mb:.0f} MB, after {found.after_mb:.0f} MB, alive {found.alive}"
    yield f"processor {found.processor_percent:.0f}%"
    for name, others in (("before", found.calm), ("under attack", found.attacked), ("beside", found.beside)):
        yield f"{name}: p50 {others.percentile(0.5):.1f} ms, p99 {others.percentile(0.99):.1f} ms, {others.statuses}"
    yield json.dumps(found.attacks)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["hostile", *sys.argv[1:]]))
