"""How long others wait for their first word while one twin floods, through a real miner, on a stand-in engine."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from tests.bench import processes
from tests.bench.proxy import TOKEN, miner_command, wait_for, write_tables
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile
from tests.bench.servers import batching

TWINS: Final = 64
FLOOD: Final = "indra"
OTHERS: Final = tuple(f"twin-{number:02}" for number in range(1, TWINS))
ARRIVALS_PER_SECOND: Final = 5.5
"""Of the others together, by chance: half of what the engine answers."""
FLOOD_IN_FLIGHT: Final = 128
STRETCHES: Final = 6
"""One stretch of load is so many times --seconds long: a p95 wants some hundred samples."""
SETTLING_SECONDS: Final = 8.0
TARGET_RATIO: Final = 1.3
FAIR: Final = "fair"
UNTOLD: Final = "not told what the engine runs, as before"


@dataclass
class _Heard:
    """What the clients of one stretch got."""

    first_word: list[float] = field(default_factory=list)
    """Seconds, of the others."""
    answers: int = 0
    """Of all twins."""
    refused: int = 0
    """429s that the flood got."""
    failures: list[str] = field(default_factory=list)


@dataclass
class _Way:
    name: str
    url: str
    alone: list[_Heard] = field(default_factory=list)
    beside: list[_Heard] = field(default_factory=list)


def measure(options: Options) -> Result:
    """Measure; raises BenchmarkError when the miner doesn't come up, or an answer fails."""
    seconds = STRETCHES * options.seconds
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        engine = f"http://127.0.0.1:{_engine(stack, Path(name))}"
        ways = [
            _Way(way, _miner(stack, Path(name) / way[:4], engine=engine, running=running))
            for way, running in ((FAIR, batching.PLACES), (UNTOLD, None))
        ]
        for number in range(options.repeats):
            for way in ways if number % 2 == 0 else reversed(ways):
                way.alone.append(asyncio.run(_load(way.url, seconds, floods=False)))
                way.beside.append(asyncio.run(_load(way.url, seconds, floods=True)))
    if failures := [each for way in ways for heard in (*way.alone, *way.beside) for each in heard.failures]:
        raise BenchmarkError(f"{len(failures)} questions of the others had no answer: {failures[0]}")
    samples = sum(len(heard.first_word) for way in ways for heard in (*way.alone, *way.beside))
    return Result(
        name="fairness",
        title="One twin floods, the others ask on",
        how=(
            f"One miner process before one **stand-in engine** that batches as vLLM does ({batching.PLACES} answers at "
            f"once, {batching.TOKENS} tokens each on average; a step takes {1000 * batching.STEP_SECONDS:.0f} ms, and "
            f"{1000 * batching.SEQUENCE_SECONDS:.1f} ms more for each answer in it); no GPU, no adapters. "
            f"{len(OTHERS)} twins together are asked {ARRIVALS_PER_SECOND:g} times a second by chance, half of what "
            f"it answers, for {seconds:.0f} s; then again while one more is asked by {FLOOD_IN_FLIGHT} clients without "
            f"a pause. {options.repeats} runs, each of both ways; p95 of each run, {samples:,} samples in all."
        ),
        figures=tuple(_figures(ways)),
        notes=(
            "What a larger batch costs a GPU's steps is assumed here, not measured; how the engine's memory fills is "
            "left out.",
            f"In the second way {_refused(ways[1])} and in the first {_refused(ways[0])} of the flood's requests were "
            "answered 429.",
        ),
    )


def _refused(way: _Way) -> int:
    return sum(heard.refused for heard in way.beside)


def _figures(ways: list[_Way]) -> Iterator[Figure]:
    for way in ways:
        alone = [1000 * percentile(heard.first_word, 95) for heard in way.alone]
        beside = [1000 * percentile(heard.first_word, 95) for heard in way.beside]
        ratios = [with_it / without for with_it, without in zip(beside, alone, strict=True)]
        for figure, values in (("without the flood", alone), ("beside it", beside)):
            yield Figure(
                subject=way.name, figure=f"the others' p95 to the first word, {figure}", unit="ms", digits=0,
                spread=Spread.of(values),
            )  # fmt: skip
        yield Figure(
            subject=way.name, figure="the same, beside it against without", unit="times", spread=Spread.of(ratios),
            target=f"≤ {TARGET_RATIO} times" if way.name == FAIR else None,
            met=Spread.of(ratios).median <= TARGET_RATIO if way.name == FAIR else None,
        )  # fmt: skip
        yield Figure(
            subject=way.name, figure="answers, all twins, beside the flood", unit="/s", digits=1,
            spread=Spread.of([heard.answers for heard in way.beside]),
        )  # fmt: skip


def _engine(stack: contextlib.ExitStack, folder: Path) -> int:
    port = processes.free_port()
    command = [sys.executable, "-m", "tests.bench.servers.batching", str(port)]
    stack.enter_context(processes.running(command, folder / "engine.log"))
    return port


def _miner(stack: contextlib.ExitStack, folder: Path, *, engine: str, running: int | None) -> str:
    folder.mkdir()
    write_tables(folder, engine=engine, more=OTHERS, running=running)
    port = processes.free_port()
    log = folder / "miner.log"
    process = stack.enter_context(processes.running(miner_command(folder, port=port), log))
    url = f"http://127.0.0.1:{port}"
    wait_for(url, process, log)
    return url


async def _load(url: str, seconds: float, *, floods: bool) -> _Heard:
    """Ask for so long; what comes before the flood has settled doesn't count."""
    heard = _Heard()
    timeout = aiohttp.ClientTimeout(total=120)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connector = aiohttp.TCPConnector(limit=0)
    ended = 0
    async with aiohttp.ClientSession(url, timeout=timeout, headers=headers, connector=connector) as http:
        counts_from = time.monotonic() + SETTLING_SECONDS
        ends = counts_from + seconds

        async def ask(twin: str) -> None:
            nonlocal ended
            sent = time.monotonic()
            body = {"model": twin, "stream": True, "messages": [{"role": "user", "content": "My head aches."}]}
            async with http.post("/v1/chat/completions", json=body) as response:
                if response.status == 429 and twin == FLOOD:
                    heard.refused += 1
                    await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
                    return
                if response.status != 200:
                    heard.failures.append(f"{response.status}: {(await response.text())[:200]}")
                    return
                await response.content.readline()
                if twin != FLOOD and sent >= counts_from:
                    heard.first_word.append(time.monotonic() - sent)
                await response.read()
                ended += counts_from <= time.monotonic() < ends

        async def flood() -> None:
            while time.monotonic() < ends:
                await ask(FLOOD)

        async with asyncio.TaskGroup() as group:
            for _ in range(FLOOD_IN_FLIGHT if floods else 0):
                group.create_task(flood())
            while time.monotonic() < ends:
                await asyncio.sleep(random.expovariate(ARRIVALS_PER_SECOND))
                group.create_task(ask(random.choice(OTHERS)))
    heard.answers = round(ended / seconds)
    return heard


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["fairness", *sys.argv[1:]]))
