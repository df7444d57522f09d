"""Does the agent tell whose weights answer, on vLLM's own kernels for quantized base models?

    python -m tests.gpu.kernels --chains DIR --out DIR --model bf16=DIR --model fp8=DIR --model int8=DIR …

`--chains` is what `tests.gpu.chains` wrote, `--model` a base model in a format (`tests.gpu.quantize`); `fp8…` is
quantized by vLLM as it loads. One engine for each, side by side; then the agent's own prover measures, for each
adapter's manifest, the adapter's own weights, its parent's, the base model's, and others' that could be mixed up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, manifest_digest
from bettertherapy_api.report import FailureReason, Proof
from neurons.agent.engine import EngineClient, EngineError
from neurons.agent.failure import Failure
from neurons.agent.known_answers import KnownAnswers
from neurons.agent.measuring import Measuring
from neurons.agent.monitor import EngineMonitor
from neurons.agent.notes import Notes
from neurons.agent.proof import Prover
from neurons.agent.traffic import Traffic
from tests.bench.results import Figure, Spread
from tests.gpu.engine import Engine, pool_of, vllm_command
from tests.gpu.engine import EngineError as StartError
from tests.gpu.outcome import Outcome, count, describe_gpu, say

FIRST: Final = ("child", "parent", "base")
"""What has to be told apart; asked first."""
OTHERS: Final = ("next", "grandparent", "same source", "other")
_ENGINE_ARGUMENTS: Final = (
    "--attention-backend=FLASH_ATTN", "--gpu-memory-utilization=0.05", "--kv-cache-memory-bytes=3000000000",
    "--enforce-eager",
)  # fmt: skip
_KERNEL: Final = re.compile(r"(?:Using|Selected) (\w+Kernel)\b|(\w+LinearKernel)\b")
_AT_ONCE: Final = 6
"""Adapters whose pairs are measured at the same time, fewer than slots."""
_SLOTS: Final = 16
_RIGHT: Final = Proof.FINGERPRINT.value


@dataclass(frozen=True)
class Night:
    """One adapter of a chain."""

    doctor: int
    night: int
    folder: Path
    manifest: AdapterManifest
    digest: str

    @property
    def name(self) -> str:
        """Under which it is loaded."""
        return f"d{self.doctor}-{self.night}"


@dataclass
class Kind:
    """One format, and what was found on it."""

    name: str
    model: Path
    verdicts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    off: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    noise: float = 0.0
    kernels: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)
    seconds: float = 0.0


def nights_of(folder: Path) -> dict[tuple[int, int], Night]:
    """Return the adapters there, by doctor and night."""
    found = {}
    for path in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):
            data = (path / MANIFEST_FILE).read_bytes()
            doctor, night = (int(part) for part in path.name.split("-"))
            manifest = AdapterManifest.model_validate_json(data)
            found[doctor, night] = Night(doctor, night, path.resolve(), manifest, manifest_digest(data))
    return found


def pairs_of(key: tuple[int, int], nights: Mapping[tuple[int, int], Night]) -> Iterator[tuple[str, Night | None]]:
    """Yield who could be loaded under this adapter's name; None is the base model."""
    doctor, night = key
    doctors = 1 + max(d for d, _ in nights)
    places = {
        "child": key, "parent": (doctor, night - 1), "next": (doctor, night + 1), "grandparent": (doctor, night - 2),
        "same source": ((doctor + 4) % doctors, night), "other": ((doctor + 1) % doctors, night),
    }  # fmt: skip
    yield "base", None
    for who, place in places.items():
        if place in nights:
            yield who, nights[place]


class Judged:
    """The agent's own parts before one engine."""

    def __init__(self, engine: EngineClient, *, socket: Path, base: str) -> None:
        traffic = Traffic()
        self.engine = engine
        self.base = base
        self.monitor = EngineMonitor(engine, traffic, wedged_file=None, socket=socket, wedge_seconds=60.0)
        measuring = Measuring(engine, self.monitor, base_model=lambda: base)
        notes = Notes(socket.with_name("notes.json"))
        self.known = KnownAnswers(measuring, self.monitor, traffic, notes, can_restart=True)
        self.prover = Prover(
            measuring=measuring, known_answers=self.known, monitor=self.monitor, notes=notes, local=True
        )

    async def verdict(self, manifest: AdapterManifest, loaded: Night | None) -> tuple[str, int | None]:
        """Return what the agent would report of these weights under that manifest."""
        name, digest = (loaded.name, loaded.digest) if loaded is not None else (self.base, "base")
        try:
            proven = await self.prover.prove(name, digest, manifest, forget=_kept)
        except Failure as failure:
            return failure.reason.value, failure.milli_nats
        return proven.proof.value, proven.milli_nats


async def _kept() -> None:
    """The next pair needs the weights again."""


async def measure(
    kind: Kind, judged: Judged, nights: Mapping[tuple[int, int], Night], deadline: float, *, others: bool
) -> None:
    """Measure all pairs, the important ones first and `others` after them, for as long as there is time."""
    began = time.monotonic()
    kind.noise = (await judged.known.calibrated()).noise
    gate = asyncio.Semaphore(_AT_ONCE)

    async def load(night: Night) -> None:
        async with gate:
            await judged.engine.load(night.name, night.folder)

    await asyncio.gather(*(load(night) for night in nights.values()))
    await judged.monitor.poll()
    say(f"{kind.name}: {len(nights)} adapters loaded, {time.monotonic() - began:.0f} s")

    async def one(key: tuple[int, int], wanted: Sequence[str]) -> None:
        async with gate:
            for who, loaded in pairs_of(key, nights):
                if who not in wanted or time.monotonic() > deadline:
                    continue
                try:
                    said, off = await judged.verdict(nights[key].manifest, loaded)
                except EngineError as error:
                    said, off = f"error: {error}"[:120], None
                kind.verdicts[who][said] += 1
                if off is not None:
                    kind.off[who].append(off)
                if (said == _RIGHT) != (who == "child"):
                    kind.odd.append(f"{nights[key].name} by {who}: {said}, {off} milli-nats")

    for wanted in (FIRST, OTHERS) if others else (FIRST,):
        await asyncio.gather(*(one(key, wanted) for key in nights))
    kind.seconds = time.monotonic() - began


@asynccontextmanager
async def _engine_of(kind: Kind, folder: Path, args: argparse.Namespace) -> AsyncIterator[Judged]:
    run = folder / kind.name
    run.mkdir()
    socket = run / "vllm.sock"
    quantization = ["--quantization=fp8"] if kind.name.startswith("fp8") else []
    pool = pool_of(
        base=args.base, model=kind.model, engine_arguments=[*_ENGINE_ARGUMENTS, *quantization], max_loras=_SLOTS
    )
    disabled = {"VLLM_DISABLED_KERNELS": "MacheteLinearKernel"} if kind.name.endswith("marlin") else {}
    command = vllm_command(pool, socket=socket, held=args.most, environment=disabled)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(
            Engine(command, socket=socket, log=args.out / f"engine-{kind.name}.log")
        )
        seconds = await engine.start(seconds=args.start_seconds)
        say(f"{kind.name}: up after {seconds:.0f} s")
        client = EngineClient(socket=socket, poll_seconds=30, load_seconds=60, request_seconds=120)
        yield Judged(await stack.enter_async_context(client), socket=socket, base=args.base)


async def _kind(kind: Kind, folder: Path, args: argparse.Namespace, deadline: float) -> None:
    try:
        async with _engine_of(kind, folder, args) as judged:
            await judged.monitor.poll()
            nights = dict(list(nights_of(args.chains).items())[: args.most])
            await measure(kind, judged, nights, deadline, others=not args.first_only)
    except (StartError, EngineError, OSError) as error:
        kind.odd.insert(0, f"not measured: {error}")
    log = args.out / f"engine-{kind.name}.log"
    kind.kernels = {a or b for a, b in _KERNEL.findall(log.read_text(errors="replace"))} if log.exists() else set()
    document = {"verdicts": kind.verdicts, "noise": kind.noise, "kernels": sorted(kind.kernels), "odd": kind.odd}
    (args.out / f"kernels-{kind.name}.json").write_text(json.dumps(document, indent=1))
    say(f"{kind.name}: {kind.seconds:.0f} s; " + "; ".join(f"{w}: {dict(v)}" for w, v in kind.verdicts.items()))


def figures_of(kind: Kind) -> Iterator[Figure]:
    """Yield what came of one format."""
    for who in (*FIRST, *OTHERS):
        table = kind.verdicts.get(who, Counter())
        total = table.total()
        if not total:
            continue
        passed, unproven = table[_RIGHT], table[Proof.UNPROVEN.value]
        if who == "child":
            yield count(kind.name, "its own weights: confirmed", passed, total)
            yield count(kind.name, "its own weights: refused", total - passed - unproven, total, target=0)
            yield count(kind.name, "its own weights: Unproven", unproven, total)
            if kind.off[who]:
                yield Figure(
                    subject=kind.name, figure="its own weights: off the record at the places asked",
                    unit="milli-nats", digits=0, spread=Spread.of(kind.off[who]),
                )  # fmt: skip
            continue
        target = 0 if who in FIRST else None
        whose = "the base model's weights" if who == "base" else f"{who}'s weights"
        yield count(kind.name, f"{whose}: confirmed as its own", passed, total, target=target)
        if unproven:
            yield count(kind.name, f"{whose}: Unproven", unproven, total)


async def _measure(args: argparse.Namespace, outcome: Outcome) -> None:
    deadline = time.monotonic() + args.limit_seconds - 15
    kinds = [Kind(*entry) for entry in args.model]
    with tempfile.TemporaryDirectory(prefix="kernels-") as name:
        await asyncio.gather(*(_kind(kind, Path(name), args, deadline) for kind in kinds))
    for kind in kinds:
        outcome.figures += figures_of(kind)
        outcome.complete = outcome.complete and bool(kind.verdicts)
        said = ", ".join(sorted(kind.kernels)) or "no quantized kernel"
        outcome.notes.append(f"{kind.name}: {said}; noise {kind.noise * 1000:.1f} milli-nats; {kind.seconds:.0f} s")
        outcome.notes += [f"{kind.name}: {text}" for text in kind.odd if " by child" in text or "not meas" in text][:6]
    reasons = {r.value for r in FailureReason}
    unknown = {w for k in kinds for t in k.verdicts.values() for w in t} - reasons - {p.value for p in Proof}
    outcome.notes += sorted(unknown)[:5]


def _model(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=DIR")
    return name, Path(path)


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kernels", description=__doc__)
    parser.add_argument("--chains", type=Path, required=True)
    parser.add_argument("--model", type=_model, action="append", required=True, help="NAME=DIR; repeat it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--most", type=int, default=280, help="adapters (%(default)s)")
    parser.add_argument("--first-only", action="store_true", help=f"only {', '.join(FIRST)}")
    parser.add_argument("--limit-seconds", type=float, default=400.0)
    parser.add_argument("--start-seconds", type=float, default=240.0)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        args.out, "gpu-kernels", "Whose weights answer, on vLLM's own kernels for quantized base models",
        "SmolLM2-135M, padded with zeros to shapes that all kernels take; adapters of 6 steps a night, rank 8, each "
        "with its recorded fingerprint. The agent's own prover measures them in one vLLM for each format, with the "
        "operator's arguments and --enforce-eager.",
        "python3 -m tests.gpu.kernels --chains DIR --model bf16=DIR --model fp8=DIR --model int4=DIR --out DIR",
        describe_gpu(standin=False),
    )  # fmt: skip
    uvloop.run(_measure(args, outcome))
    outcome.write()
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
