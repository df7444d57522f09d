"""`python -m tests.bench.gpu.tuning --targets Attention --out DIR`: twins of one engine, started in several ways.

plain   as vLLM's defaults are: 16 slots, no more adapters in memory than slots
former  as the operator started it before slots followed the twins: 8 slots, 64 adapters in memory
auto    as it does now (twin_operator.domain.tuning)

Each start brings up a new engine with made-up weights of an 8B shape, loads an adapter for each twin, and asks: so many
requests always in flight, then open arrivals. `--dry` prints the command lines and ends. Results are written after each
start to <out>/gpu-tuning-<targets>.json. Exits 0 when all was measured and no target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.miner_pool import EngineTuning
from tests.bench.gpu.shape import adapter_bytes, write_adapters, write_model
from tests.bench.results import Figure, Spread
from tests.gpu.engine import Command, Engine, EngineError, pool_of, standin_command, tuning_of, vllm_command
from tests.gpu.load import percentile
from tests.gpu.outcome import Outcome, describe_gpu, say
from tests.standin import BASE as STANDIN_BASE
from tests.standin import write_adapter
from twin_operator.domain.objects import Pool
from twin_operator.domain.tuning import Needs

RANK: Final = 16
BASE: Final = "base-8b"
PLAIN, FORMER, AUTO = "plain", "former", "auto"
STARTS: Final = (PLAIN, FORMER, AUTO)
ENGINE_ARGUMENTS: Final = (
    "--load-format=dummy", "--attention-backend=FLASH_ATTN", "--gpu-memory-utilization=0.85", "--max-num-seqs=256",
    "--no-enable-prefix-caching",
)  # fmt: skip
_REQUEST_SECONDS: Final = 120.0
_LOAD_SECONDS: Final = 60.0
_WORDS: Final = 1000
"""Prompts are drawn from so many."""
_FORMER_SLOTS: Final = {PLAIN: 16, FORMER: 8}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the project aims for with the operator's own start."""

    tokens_per_second: float
    times_plain: float
    first_millis: float
    """Half of the answers begin within."""
    open_millis: float
    """95% of the answers begin within, at open arrivals."""


TARGETS: Final[Mapping[LoraTargets, Target]] = {
    LoraTargets.ATTENTION: Target(tokens_per_second=3000, times_plain=2.8, first_millis=400, open_millis=150),
    LoraTargets.ALL_LINEAR: Target(tokens_per_second=1900, times_plain=1.4, first_millis=450, open_millis=280),
}


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of each engine."""

    in_flight: int
    requests: int
    per_second: float
    seconds: float
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one start gave."""

    start_seconds: float
    load_seconds: float
    tokens_per_second: float
    first_millis: tuple[float, ...]
    open_millis: tuple[float, ...]
    failed: int


def tuning_for(start: str, pool: Pool, *, twins: int) -> EngineTuning:
    """Return how the engine is started."""
    needs = Needs(
        adapters=twins, twins=twins, rank=RANK,
        beyond=0 if pool.spec.engine.lora_targets == LoraTargets.ATTENTION else twins,
    )  # fmt: skip
    auto = tuning_of(pool, needs)
    if start == AUTO:
        return auto
    slots = _FORMER_SLOTS[start]
    return EngineTuning(
        max_loras=slots, max_cpu_loras=slots if start == PLAIN else max(64, auto.max_cpu_loras), max_lora_rank=RANK,
        lora_targets=LoraTargets.ALL_LINEAR, specialize_active_lora=False,
    )  # fmt: skip


def command_for(start: str, pool: Pool, *, twins: int, socket: Path) -> Command:
    """Return vLLM's command line and environment for a start."""
    return vllm_command(pool, socket=socket, held=twins, tuning=tuning_for(start, pool, twins=twins))


async def measure(engine: Engine, adapters: Sequence[Path], load: Load, *, base: str, start_seconds: float) -> Measured:
    """Start the engine, load the adapters, and ask. Raises EngineError."""
    started = await engine.start(seconds=start_seconds)
    connector = aiohttp.UnixConnector(str(engine.socket), limit=0)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    async with aiohttp.ClientSession("http://engine", connector=connector, timeout=timeout) as session:
        began = time.monotonic()
        for path in adapters:
            await _load(session, path)
        loaded = time.monotonic() - began
        asking = _Asking(session, [path.name for path in adapters], load)
        await asking.closed(min(load.requests, 2 * load.in_flight))  # what is compiled at first sight is no figure
        rate, closed = await asking.closed(load.requests)
        opened = await asking.open()
    if asking.trouble is not None and (not rate or all(each is None for each in opened)):
        raise EngineError(f"nothing was answered: {asking.trouble}")
    answers = [*closed, *opened]
    return Measured(
        start_seconds=started, load_seconds=loaded, tokens_per_second=rate,
        first_millis=tuple(each for each in closed if each is not None),
        open_millis=tuple(each for each in opened if each is not None),
        failed=answers.count(None),
    )  # fmt: skip


async def _load(session: aiohttp.ClientSession, path: Path) -> None:
    async with asyncio.timeout(_LOAD_SECONDS):
        body = {"lora_name": path.name, "lora_path": str(path)}
        async with session.post("/v1/load_lora_adapter", json=body) as response:
            if response.status != 200:
                raise EngineError(f"{path.name} isn't loaded: {response.status} {(await response.text())[:300]}")


class _Asking:
    """Requests of token ids to twins in turn; each tells the milliseconds to its first token, None where it failed."""

    def __init__(self, session: aiohttp.ClientSession, twins: Sequence[str], load: Load) -> None:
        self._session, self._twins, self._load = session, twins, load
        self.trouble: str | None = None
        """What the first failed request was answered."""
        self._draw = random.Random(1)
        self._numbers = itertools.count()

    async def closed(self, requests: int) -> tuple[float, list[float | None]]:
        """Keep as many in flight; returns tokens per second, and each answer."""
        left = itertools.repeat(None, requests)
        answers: list[float | None] = []

        async def work() -> None:
            for _ in left:
                answers.append(await self._ask())

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.in_flight):
                group.create_task(work())
        seconds = time.monotonic() - began
        good = len(answers) - answers.count(None)
        return good * self._load.tokens / seconds, answers

    async def open(self) -> list[float | None]:
        """Ask at random times, so many a second, whether or not answers come."""
        tasks: list[asyncio.Task[float | None]] = []
        end = time.monotonic() + self._load.seconds
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < end:
                tasks.append(group.create_task(self._ask()))
                await asyncio.sleep(self._draw.expovariate(self._load.per_second))
        return [task.result() for task in tasks]

    async def _ask(self) -> float | None:
        number = next(self._numbers)
        body = {
            "model": self._twins[number % len(self._twins)], "max_tokens": self._load.tokens, "ignore_eos": True,
            "prompt": [3 + self._draw.randrange(_WORDS) for _ in range(self._load.prompt_tokens)],
            "stream": True, "temperature": 0,
        }  # fmt: skip
        began = time.monotonic()
        first = None
        try:
            async with self._session.post("/v1/completions", json=body) as response:
                if response.status != 200:
                    return self._failed(f"{response.status} {await response.text()}")
                async for line in response.content:
                    if first is None and line.startswith(b"data: {"):
                        first = (time.monotonic() - began) * 1000
                    if line.startswith(b'data: {"error"'):
                        return self._failed(line.decode(errors="replace"))
        except (aiohttp.ClientError, TimeoutError) as error:
            return self._failed(repr(error))
        return first

    def _failed(self, said: str) -> None:
        self.trouble = self.trouble or said[:300]


def figures_of(start: str, found: Measured, plain: Measured | None, target: Target | None) -> list[Figure]:
    """Return a start's rows; `target` counts for the operator's own start alone."""
    first = percentile(found.first_millis, 50)
    opened = percentile(found.open_millis, 95)

    def row(figure: str, unit: str, value: float, *, digits: int = 0, at_least: float | None = None,
            at_most: float | None = None) -> Figure:  # fmt: skip
        met = None if at_least is None and at_most is None else value >= (at_least or 0) and value <= (at_most or 1e12)
        words = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}" if at_most is not None else None
        return Figure(
            subject=start, figure=figure, unit=unit, digits=digits, spread=Spread.of([value]), target=words, met=met
        )  # fmt: skip

    rows = [
        row("tokens", "tokens/s", found.tokens_per_second, at_least=target.tokens_per_second if target else None),
        row("first token, half of them, always as many in flight", "ms", first,
            at_most=target.first_millis if target else None),
        row("first token, 95% of them, open arrivals", "ms", opened, at_most=target.open_millis if target else None),
        row("start to its first answer", "s", found.start_seconds),
        row("loading all adapters", "s", found.load_seconds, digits=1),
        row("requests that failed", "", found.failed, at_most=0.5),
    ]  # fmt: skip
    if plain is not None and start != PLAIN:
        times = found.tokens_per_second / plain.tokens_per_second
        rows.insert(1, row("against plain", "times", times, digits=2, at_least=target.times_plain if target else None))
    return rows


async def _run(args: argparse.Namespace, outcome: Outcome, folder: Path, pool: Pool) -> None:
    load = Load(
        in_flight=args.in_flight, requests=args.requests, per_second=args.per_second, seconds=args.seconds,
        prompt_tokens=args.prompt_tokens, tokens=args.tokens,
    )  # fmt: skip
    if args.standin:
        made = [write_adapter(folder / "store", f"twin-{number}", rank=RANK) for number in range(args.twins)]
        adapters = [each.folder for each in made]
    else:
        adapters = write_adapters(folder / "adapters", args.twins, args.targets, rank=RANK)
    plain = None
    for start in args.starts:
        run = folder / f"run-{start}"
        run.mkdir()
        socket = run / "vllm.sock"
        command = (
            standin_command(pool, socket=socket)
            if args.standin
            else command_for(start, pool, twins=args.twins, socket=socket)
        )
        try:
            async with Engine(command, socket=socket, log=args.out / f"engine-{start}.log") as engine:
                found = await measure(
                    engine, adapters, load, base=pool.spec.base_model.name, start_seconds=args.start_seconds
                )
        except (EngineError, aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome.complete = False
            outcome.notes.append(f"start {start} failed: {type(error).__name__}: {error}"[:1000])
        else:
            plain = found if start == PLAIN else plain
            aimed = TARGETS[args.targets] if start == AUTO and not args.standin else None
            outcome.figures += figures_of(start, found, plain, aimed)
        tuning = tuning_for(start, pool, twins=args.twins)
        outcome.notes.append(f"{start}: {json.dumps(tuning.to_dict(), sort_keys=True)}")
        outcome.write()
        say(f"{start} done")


def _how(args: argparse.Namespace) -> str:
    engine = "the stand-in" if args.standin else "vLLM with made-up weights of an 8B Llama's shape in bfloat16"
    size = adapter_bytes(args.targets, rank=RANK) / 1e6
    what = "attention alone" if args.targets is LoraTargets.ATTENTION else "all linear layers"
    return (
        f"One engine, {engine}, asked at its own socket; {args.twins} twins with adapters of rank {RANK} on {what} "
        f"({size:.0f} MB each); {args.prompt_tokens} tokens in, {args.tokens} out; {args.in_flight} always in flight, "
        f"then {args.per_second:g} a second by chance. plain: 16 slots and vLLM's defaults; former: the operator "
        "before slots followed the twins; auto: as it starts engines now."
    )


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu.tuning", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    parser.add_argument("--targets", type=LoraTargets, choices=list(LoraTargets), default=LoraTargets.ATTENTION)
    parser.add_argument("--starts", type=lambda text: text.split(","), default=[PLAIN, AUTO], help=",".join(STARTS))
    parser.add_argument("--twins", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--per-second", type=float, default=25.0, help="open arrivals (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of open arrivals (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer (%(default)s)")
    parser.add_argument("--start-seconds", type=float, default=300.0, help="longest engine start (%(default)s)")
    parser.add_argument("--engine-arg", action="append", default=[], help="one more argument for vLLM; repeat it")
    parser.add_argument("--standin", action="store_true", help="no GPU: try the script with the stand-in")
    parser.add_argument("--dry", action="store_true", help="print the command lines and end")
    args = parser.parse_args(arguments)
    if unknown := set(args.starts) - set(STARTS):
        parser.error(f"no such starts: {', '.join(sorted(unknown))}")
    return args


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit status."""
    args = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        write_model(folder / "model")
        pool = pool_of(
            base=STANDIN_BASE if args.standin else BASE, model=folder / "model",
            engine_arguments=[*ENGINE_ARGUMENTS, *args.engine_arg], lora_targets=args.targets,
        )  # fmt: skip
        if args.dry:
            for start in args.starts:
                command = command_for(start, pool, twins=args.twins, socket=folder / "vllm.sock")
                sys.stdout.write(f"{start}: {shlex.join(command.arguments)}\n")
            return 0
        args.out.mkdir(parents=True, exist_ok=True)
        kind = args.targets.value.lower()
        outcome = Outcome(
            args.out, f"gpu-tuning-{kind}", f"Engines tuned from their adapters, on a GPU ({args.targets.value})",
            _how(args), f"python3 -m tests.bench.gpu.tuning --targets {args.targets.value} --out DIR",
            describe_gpu(standin=args.standin),
        )  # fmt: skip
        try:
            uvloop.run(_run(args, outcome, folder, pool))
        finally:
            outcome.write()
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
