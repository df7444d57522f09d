"""What goes wrong must not reach others: bad adapters among good ones, twins that change, engines that are killed.

    python -m tests.gpu.robustness --model DIR --chains DIR --out DIR --parts bad,change
    python -m tests.gpu.robustness --model DIR --chains DIR --out DIR --parts kills --engines 6

Good twins' answers are compared by their log-probabilities (`tests.gpu.likelihoods`). `--chains` is what
`tests.gpu.chains` wrote for that base model. `--unchecked` lets agents take files without looking into them, so that
only measuring in the engine is between a bad adapter and a patient. `--invariant` has vLLM compute each answer
independently of what else runs. `--standin` tries the script without a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest
from bettertherapy_api.report import AdapterState
from tests.bench.results import Figure, Spread, percentile
from tests.gpu import likelihoods, load
from tests.gpu.adapters import Published, Trained, publish
from tests.gpu.engine import Engine, pool_of, standin_command, vllm_command
from tests.gpu.flaws import FLAWS, publish_flawed, small_weights
from tests.gpu.likelihoods import Asked, Likelihoods, places_of
from tests.gpu.outcome import Outcome, count, describe_gpu, say
from tests.gpu.parts import FAILURES, TARGET_SWAP_SECONDS, CheckError
from tests.gpu.plane import Plane, TooLateError, pod_name
from tests.standin import BASE, write_adapter

_BASE: Final = "smollm2-135m-instruct"
_ENGINE_ARGUMENTS: Final = (
    "--attention-backend=FLASH_ATTN", "--gpu-memory-utilization=0.05", "--kv-cache-memory-bytes=6000000000",
)  # fmt: skip
_CHECKED: Final = ("nan", "huge", "names", "larger", "smaller", "cut", "lfs", "rank")
_UNCHECKED: Final = ("nan", "inf", "huge", "names", "zero", "larger", "smaller", "page")
_VERIFY_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 30.0
_LAST_SECONDS: Final = 45.0
"""Kept back of the part kills, for answers that are under way."""
_CONTINUED: Final = re.compile(r'^bettertherapy_miner_continued_streams_total\{[^}]*="(\w+)"\} ([\d.e+]+)', re.M)
_QUESTIONS: Final = (
    "I have had a headache for two days. What should I do?",
    "When can I come to see you?",
)


@dataclass(kw_only=True)
class Scene:
    """What the parts work on."""

    args: argparse.Namespace
    plane: Plane
    engines: Sequence[Engine]
    trained: Sequence[Trained]
    store: Path
    deadline: float
    notes: list[str]
    good: dict[str, Published] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds left."""
        return self.deadline - time.monotonic()

    def show(self, *held: Published, routes: Mapping[str, Published] | None = None) -> float:
        """Write the routing: the good twins answer, `held` are there beside them."""
        return self.plane.write([*self.good.values(), *held], self.good | dict(routes or {}))

    async def ready(self) -> None:
        """Wait until every pod serves all good twins."""
        self.show()
        for pod in range(len(self.engines)):
            await self.plane.verified(*self.good.values(), seconds=_VERIFY_SECONDS, pod=pod)
        await self.plane.answering()


@dataclass
class Said:
    """One answer, or none."""

    twin: str
    question: str
    answer: load.Answer
    at: float
    """When it was over, as in the logs: time.time()."""


class Patients:
    """Ask twins, as fast as answers come, for as long as the context lasts: each question once, then any."""

    def __init__(
        self, target: load.Target, twins: Sequence[str], *, clients: int, tokens: int, whole: bool = False
    ) -> None:
        self._target, self._twins, self._clients, self._tokens = target, twins, clients, tokens
        self._whole = whole
        self._first = iter(tuple(itertools.product(twins, _QUESTIONS)))
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []
        self.said: list[Said] = []

    async def __aenter__(self) -> Patients:
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.wait(self._tasks, timeout=90)
        for task in self._tasks:
            task.cancel()

    async def _ask(self, number: int) -> None:
        draw = random.Random(number)
        while not self._stop:
            anyone = (draw.choice(self._twins), draw.choice(_QUESTIONS))
            twin, question = next(self._first, anyone)
            stream = number % 2 == 0
            more: dict[str, Any] = {"ignore_eos": True} if self._whole else {}
            more |= {"stream_options": {"include_usage": True}} if stream else {}
            answer = await self._target.ask(twin, question=question, stream=stream, tokens=self._tokens, **more)
            self.said.append(Said(twin, question, answer, time.time()))
            if answer.error is not None:
                await asyncio.sleep(0.05)


async def bad(scene: Scene) -> AsyncIterator[Figure]:
    """Bring bad adapters among good ones that are being asked."""
    args, plane = scene.args, scene.plane
    flaws = _UNCHECKED if args.unchecked else _CHECKED
    sources = scene.trained[-len(flaws) :]
    evil = {
        f"bad-{flaw}": publish_flawed(source, flaw, scene.store, twin=f"bad-{flaw}")
        for flaw, source in zip(flaws, sources, strict=True)
    }
    manifests = {trained.twin: trained.manifest for trained in scene.trained}
    asked = {twin: Asked(version.name, places_of(manifests[twin])) for twin, version in scene.good.items()}
    over = asyncio.Event()
    async with load.miner(plane.url) as target, Likelihoods(scene.engines[0].socket, asked) as asking:
        async with Patients(target, tuple(scene.good), clients=args.clients, tokens=args.tokens) as before:
            end = time.monotonic() + args.seconds
            rounds_before = await asking.rounds(over=lambda: time.monotonic() > end, least=likelihoods.LEAST_ROUNDS)
            base = await asking.round(BASE if args.standin else _BASE)
        asking.errors.clear()
        usual: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for each in before.said:
            usual[each.twin, each.question][each.answer.text] += each.answer.error is None
        verified: set[str] = set()
        last: dict[str, tuple[str, str | None]] = {}

        def settled() -> bool:
            states = {name: plane.adapter(version) for name, version in evil.items()}
            for name, state in states.items():
                if state is not None:
                    last[name] = (state.state.value, state.reason.value if state.reason else None)
                    if state.state is AdapterState.VERIFIED:
                        verified.add(name)
            return all(state is not None and state.state is AdapterState.FAILED for state in states.values())

        async with (
            Patients(target, tuple(scene.good), clients=args.clients, tokens=args.tokens) as during,
            Patients(target, tuple(evil), clients=len(evil), tokens=args.tokens) as victims,
        ):
            watching = asyncio.create_task(asking.rounds(over=over.is_set, least=1))
            written = scene.show(*evil.values(), routes=evil)
            try:
                await plane.until(settled, seconds=_SETTLE_SECONDS, what="all bad ones Failed")
            except TooLateError as error:
                scene.notes.append(f"{error}"[:4000])
            seconds = time.monotonic() - written
            end = time.monotonic() + args.seconds
            while time.monotonic() < end:
                settled()
                await asyncio.sleep(0.02)
            over.set()
            rounds_later = await watching
        listed = await _listed(scene.engines[0])
        # Once more, from the beginning: an agent may not have learned to let them in.
        scene.show()
        await asyncio.sleep(3.0)
        async with Patients(target, tuple(scene.good), clients=args.clients, tokens=args.tokens) as after:
            end = time.monotonic() + args.seconds / 2
            rounds_later += await asking.rounds(over=lambda: time.monotonic() > end, least=2)
    subject = f"{len(scene.good)} good and {len(evil)} bad" + (", files unchecked" if args.unchecked else "")
    everyone = during.said + after.said
    failed = [each for each in everyone if each.answer.error is not None]
    answered = [each for each in everyone if each.answer.error is None]
    known = [each for each in answered if usual[each.twin, each.question]]
    other = [each for each in known if each.answer.text not in usual[each.twin, each.question]]
    wrong = [each for each in answered if each.answer.digest != scene.good[each.twin].digest]
    served = [each for each in victims.said if each.answer.error is None]
    yield count(subject, "good twins' requests failed", len(failed), len(everyone), target=0)
    yield count(subject, "good twins' answers by another version", len(wrong), len(answered), target=0)
    compared = likelihoods.compare(rounds_before, rounds_later)
    median = likelihoods.medians(rounds_before[: len(rounds_before) // 2])
    for figure in likelihoods.figures(subject, compared, base, median):
        yield figure
    # The same question is answered in other words now and then, whoever runs beside it: no target.
    yield count(subject, "good twins' answers in other words than before", len(other), len(known))
    unsteady = sum(1 for texts in usual.values() if len(texts) > 1)
    yield count(subject, "before that: questions answered in more than one way", unsteady, len(usual))
    yield count(subject, "requests to bad twins that were answered", len(served), len(victims.said), target=0)
    refused = len(evil) - len(verified)
    yield count(subject, "bad ones refused or unloaded before any patient", refused, len(evil), target=len(evil))
    left = [name for name in listed if name.startswith("bad-")]
    yield count(subject, "bad ones still in the engine afterwards", len(left), len(evil), target=0)
    running = all(engine.runs for engine in scene.engines) and not _condemned(scene)
    yield count(subject, "engines ended or condemned", 0 if running else 1, len(scene.engines), target=0)
    yield Figure(subject=subject, figure="until all bad ones were Failed", unit="s", spread=Spread.of([seconds]))
    for flaw in flaws:
        scene.notes.append(f"{FLAWS[flaw].what}: {last.get(f'bad-{flaw}', ('?', None))[1]}")
    scene.notes += sorted({f"failed: {each.twin}: {each.answer.error}"[:300] for each in failed})[:5]
    scene.notes += [f"changed: {twin}, {off:.3f} nats" for twin, off in compared.changed[:10]]
    scene.notes += [f"log-probabilities: {number} times: {error}" for error, number in asking.errors.most_common(5)]
    scene.notes.append(f"log-probabilities: {len(rounds_before)} rounds before, {len(rounds_later)} later")
    document = {"places": {t: a.places for t, a in asked.items()}, "before": rounds_before, "later": rounds_later}
    (args.out / f"{args.name}-likelihoods.json").write_text(json.dumps(document | {"base": base}))


async def change(scene: Scene) -> AsyncIterator[Figure]:
    """Give twins new versions while all are asked."""
    args = scene.args
    seconds, loads = [], []
    trained = {each.twin: each for each in scene.trained}
    async with (
        load.miner(scene.plane.url) as target,
        Patients(target, tuple(scene.good), clients=args.clients, tokens=args.tokens) as patients,
    ):
        await asyncio.sleep(1.0)
        for number, twin in zip(range(args.changes), itertools.cycle(tuple(scene.good)), strict=False):
            new = publish(trained[twin], scene.store, run=f"change-{number}")
            written = scene.show(new)
            reports = await scene.plane.verified(new, seconds=30.0)
            seconds.append(time.monotonic() - written)
            loads.append(float(reports[0].load_millis or 0))
            scene.good[twin] = new
            scene.show()
            await asyncio.sleep(0.1)
    failed = [each for each in patients.said if each.answer.error is not None]
    scene.notes += sorted({f"failed: {each.twin}: {each.answer.error}"[:300] for each in failed})[:5]
    subject = f"{len(scene.good)} twins, {args.clients} clients, {len(seconds)} changes"
    yield Figure(
        subject=subject, figure="twin change to Verified", unit="s", digits=3, spread=Spread.of(seconds),
        p99=percentile(seconds, 99), target=f"p99 ≤ {TARGET_SWAP_SECONDS:g} s",
        met=percentile(seconds, 99) <= TARGET_SWAP_SECONDS,
    )  # fmt: skip
    yield Figure(
        subject=subject, figure="of it in the engine: load and measuring", unit="ms", digits=0, spread=Spread.of(loads)
    )
    yield count(subject, "requests failed", len(failed), len(patients.said), target=0)


async def kills(scene: Scene) -> AsyncIterator[Figure]:
    """Kill engines that work, one after another, and start each again as kubelet would."""
    args, plane = scene.args, scene.plane
    versions = tuple(scene.good.values())
    starting: dict[int, asyncio.Task[float]] = {}
    starts, heals = [], []
    killed: list[tuple[float, str]] = []
    counted = await _continued(plane)

    async def again(pod: int) -> float:
        took = await scene.engines[pod].start(seconds=args.start_seconds)
        began = time.monotonic()
        await plane.until(lambda: plane.serves(pod, versions), seconds=60, what=f"{pod_name(pod)} serves again")
        heals.append(time.monotonic() - began)
        return took

    async with (
        load.miner(plane.url) as target,
        Patients(target, tuple(scene.good), clients=args.clients, tokens=args.tokens, whole=True) as patients,
    ):
        await asyncio.sleep(3.0)
        for number in range(args.kills):
            while True:
                for pod in [pod for pod, task in starting.items() if task.done() and task.exception() is None]:
                    starts.append(starting.pop(pod).result())
                up = [p for p in range(len(scene.engines)) if p not in starting and plane.serves(p, versions)]
                if len(up) >= 3 or (len(up) >= 2 and len(scene.engines) <= 3) or scene.left() < _LAST_SECONDS:
                    break
                await asyncio.sleep(0.1)
            if scene.left() < _LAST_SECONDS:
                scene.notes.append(f"kills: {number} of {args.kills}, for want of time")
                break
            # The one that has served longest: it has most to lose.
            turns = itertools.islice(itertools.cycle(range(len(scene.engines))), len(killed), None)
            pod = next(pod for pod in turns if pod in up)
            await asyncio.to_thread(scene.engines[pod].kill)
            killed.append((time.time(), pod_name(pod)))
            starting[pod] = asyncio.create_task(again(pod))
            await asyncio.sleep(args.pause)
        await asyncio.sleep(5.0)
    now = await _continued(plane)
    if starting:
        await asyncio.wait(starting.values(), timeout=max(0.0, scene.left() - 10))
    for pod, task in starting.items():
        if not task.done():
            task.cancel()
            scene.notes.append(f"kills: {pod_name(pod)} was still starting at the end")
        elif (failure := task.exception()) is not None:
            scene.notes.append(f"kills: {pod_name(pod)} didn't come back: {failure}"[:400])
        else:
            starts.append(task.result())
    streams = [each for each in patients.said if each.answer.streamed]
    failed = [each for each in patients.said if each.answer.error is not None]
    short = [each for each in patients.said if each.answer.error is None and each.answer.tokens != args.tokens]
    wrong = [
        each
        for each in patients.said
        if each.answer.error is None and each.answer.digest != scene.good[each.twin].digest
    ]
    subject = f"{len(scene.engines)} engines, {len(killed)} kills, {args.clients} clients"
    document = {
        "kills": killed,
        "failed": [(each.at, each.answer.seconds, each.answer.streamed, each.answer.error) for each in failed],
    }
    (args.out / f"{args.name}-kills.json").write_text(json.dumps(document, indent=1))
    yield count(subject, "engines killed", len(killed), args.kills, target=args.kills)
    yield count(subject, "requests failed", len(failed), len(patients.said), target=0)
    yield count(subject, "of them streams", sum(each.answer.streamed for each in failed), len(streams), target=0)
    yield count(subject, "answers by another version", len(wrong), len(patients.said), target=0)
    yield count(subject, f"answers of other than {args.tokens} tokens", len(short), len(patients.said))
    for what in sorted(now):
        found = round(now[what] - counted.get(what, 0))
        yield count(
            subject, f"streams that an engine broke: {what}", found, len(streams),
            target=0 if what in ("impossible", "failed") else None,
        )  # fmt: skip
    if starts:
        yield Figure(
            subject=subject, figure="a killed engine's start to its first answer", unit="s", digits=1,
            spread=Spread.of(starts),
        )  # fmt: skip
        yield Figure(
            subject=subject, figure="from its first answer to serving all twins again", unit="s",
            spread=Spread.of(heals),
        )  # fmt: skip
    longest = sorted(each.answer.seconds for each in patients.said)
    yield Figure(subject=subject, figure="an answer", unit="s", spread=Spread.of(longest), p99=percentile(longest, 99))
    scene.notes += sorted({f"failed: {each.twin}: {each.answer.error}"[:300] for each in failed})[:6]


async def _listed(engine: Engine) -> list[str]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(engine.socket))) as session,
        session.get("http://engine/v1/models") as response,
    ):
        return [str(model["id"]) for model in (await response.json())["data"]]


async def _continued(plane: Plane) -> dict[str, float]:
    async with aiohttp.ClientSession() as session, session.get(f"{plane.url}/metrics") as response:
        text = await response.text()
    return {what: float(value) for what, value in _CONTINUED.findall(text)}


def _condemned(scene: Scene) -> bool:
    reports = [scene.plane.report(pod) for pod in range(len(scene.engines))]
    return any(report is None or report.engine.wedged for report in reports)


Part = Callable[[Scene], AsyncIterator[Figure]]
PARTS: Final[Mapping[str, Part]] = {"bad": bad, "change": change, "kills": kills}


def read_chains(folder: Path) -> tuple[Trained, ...]:
    """Return the chains' adapters, each doctor's last night first, as twins."""
    found = []
    for path in folder.iterdir():
        if (path / MANIFEST_FILE).exists():
            doctor, night = (int(part) for part in path.name.split("-"))
            manifest = AdapterManifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
            found.append((-night, doctor, Trained(f"dr-{doctor}-{night}", path, manifest)))
    return tuple(trained for *_, trained in sorted(found, key=lambda entry: entry[:2]))


def _stand_ins(folder: Path, number: int) -> tuple[Trained, ...]:
    made = [write_adapter(folder, f"dr-{n}", weights=small_weights(n, rank=8)) for n in range(number)]
    return tuple(Trained(adapter.twin, adapter.folder, adapter.manifest) for adapter in made)


async def _measure(args: argparse.Namespace, outcome: Outcome, folder: Path, deadline: float) -> None:
    arguments = [*_ENGINE_ARGUMENTS, *args.engine_arg]
    model = folder if args.standin else args.model
    pool = pool_of(base=BASE if args.standin else _BASE, model=model, engine_arguments=arguments, max_loras=args.slots)
    environment = {"VLLM_BATCH_INVARIANT": "1"} if args.invariant else {}
    sockets = [folder / f"run-{number}" / "vllm.sock" for number in range(args.engines)]
    engines = []
    for number, socket in enumerate(sockets):
        socket.parent.mkdir()
        if args.standin:
            command = standin_command(pool, socket=socket)
        else:
            command = vllm_command(pool, socket=socket, held=args.twins + 8, environment=environment)
        log = args.out / f"engine-{number}.log"
        engines.append(Engine(command, socket=socket, log=log))
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine)
        plane = Plane(
            folder, pool=pool, sockets=sockets, logs=args.out, checks=not args.unchecked,
            miner_arguments=[f"--hold-seconds={args.hold_seconds}"],
        )  # fmt: skip
        await stack.enter_async_context(plane)
        # Adapters may still be in the making while the engines start.
        seconds = await asyncio.gather(*(engine.start(seconds=args.start_seconds) for engine in engines))
        say(f"up after {max(seconds):.0f} s")
        while args.wait_for is not None and not args.wait_for.exists() and deadline - time.monotonic() > 30:
            await asyncio.sleep(0.2)
        trained = _stand_ins(folder / "trained", args.twins + 8) if args.standin else read_chains(args.chains)
        scene = Scene(
            args=args, plane=plane, engines=engines, trained=trained, store=folder / "store", deadline=deadline,
            notes=outcome.notes,
        )  # fmt: skip
        for each in trained[: args.twins]:
            scene.good[each.twin] = publish(each, scene.store, run="first")
        if len(scene.good) < args.twins:
            raise CheckError(f"there are adapters for {len(scene.good)} twins, {args.twins} are needed")
        outcome.notes.append(f"start to the first answer: {min(seconds):.0f} to {max(seconds):.0f} s")
        for name in args.parts:
            began = time.monotonic()
            try:
                async with asyncio.timeout(max(1.0, scene.left())):
                    await scene.ready()
                    async for figure in PARTS[name](scene):
                        outcome.figures.append(figure)
            except FAILURES as error:
                outcome.complete = False
                outcome.notes.append(f"part {name} failed: {type(error).__name__}: {error}"[:2000])
            except Exception as error:  # noqa: BLE001 - a defect in one part must not lose the others' figures
                outcome.complete = False
                outcome.notes.append(f"part {name} failed: {error!r}")
                traceback.print_exc()
            say(f"{name}: {time.monotonic() - began:.0f} s, {scene.left():.0f} s left")
            outcome.write()


def _how(args: argparse.Namespace) -> str:
    pods = "One pod" if args.engines == 1 else f"{args.engines} pods, their engines side by side on one GPU"
    manner = ", batch-invariant" if args.invariant else ""
    more = f", {' '.join(args.engine_arg)}" if args.engine_arg else ""
    return (
        f"{pods}, without Kubernetes: vLLM with the operator's arguments{more}{manner}; SmolLM2-135M in bfloat16; "
        f"agents and miner each a process of its own, slices and reports as files. "
        f"{args.clients} clients ask without a pause for up to {args.tokens} tokens, every other one as a stream."
    )


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.robustness", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of the base model")
    parser.add_argument("--chains", type=Path, help="folder of adapters")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    parser.add_argument("--name", default="gpu-robustness", help="of the result (%(default)s)")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["bad", "change"], help=",".join(PARTS))
    parser.add_argument("--standin", action="store_true")
    parser.add_argument("--unchecked", action="store_true")
    parser.add_argument("--invariant", action="store_true")
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--twins", type=int, default=56, help="good ones (%(default)s)")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each stretch of the part bad (%(default)s)")
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pause", type=float, default=4.0, help="after each kill (%(default)s)")
    parser.add_argument("--hold-seconds", type=float, default=30.0, help="of the miner (%(default)s)")
    parser.add_argument("--wait-for", type=Path, help="once all is up, wait for this file")
    parser.add_argument("--limit-seconds", type=float, default=560.0)
    parser.add_argument("--start-seconds", type=float, default=300.0)
    parser.add_argument("--engine-arg", action="append", default=[], help="one more argument for vLLM; repeat it")
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no such parts: {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        args.out, args.name, "Bad adapters, changes and killed engines before the real vLLM", _how(args),
        f"python3 -m tests.gpu.robustness --model DIR --chains DIR --out DIR --parts {','.join(args.parts)}",
        describe_gpu(standin=args.standin),
    )  # fmt: skip
    deadline = time.monotonic() + args.limit_seconds - 10
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        try:
            uvloop.run(_measure(args, outcome, Path(name), deadline))
        except FAILURES as error:
            outcome.complete = False
            outcome.notes.append(f"{type(error).__name__}: {error}"[:2000])
        finally:
            outcome.write()
    (args.out / f"{args.name}.txt").write_text(json.dumps(outcome.notes, indent=1))
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
