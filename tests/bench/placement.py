"""Placing twins, simulated: how full the fullest pod is, what moves, and what tokens/s follow from a GPU's table.

No engine runs here. The plan, the miner's choice of a pod and its hash are the real code; an engine is a number of
tokens/s that depends on how many adapters its batch holds, as measured on one H200 (`TOKENS_PER_SECOND`).
"""

from __future__ import annotations

import hashlib
import heapq
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from yarl import URL

from neurons.miner.selection import Spread as Widths
from neurons.miner.selection import choose_pod
from neurons.miner.tables import Pod
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from twin_operator.domain.placement import Demand, EnginePod, Plan, place

DRAWS: Final = 200
FULL_BATCH: Final = 64
"""Requests in flight per engine in the measured runs."""
ANSWER_TOKENS: Final = 64
DISTINCT: Final = ((0, 4911.0), (1, 4198.0), (16, 3804.0), (64, 2981.0))
"""Adapters in use on one engine, and its tokens/s: 8B shape, rank-16 attention adapters, 64 slots, one H200, vLLM
0.26.0 with `--specialize-active-lora` and `--lora-target-modules`; straight lines between them.

This reads "64 requests in flight over 64 twins" as 64 different adapters in each batch."""
DRAWN: Final = ((0, 4911.0), (1, 4198.0), (15.7, 3804.0), (40.6, 2981.0))
"""The same, where each of the 64 requests was for any of the 64 twins: 41 different ones on average."""
RANKS: Final = (8, 16, 16, 16, 32, 64, 128)
ENGINES: Final = 4
TWINS: Final = 64
SECONDS: Final = 40.0
WARM_UP: Final = 5.0
RUNS: Final = 5
NO_URL: Final = URL("http://127.0.0.1:1/")

Table = Sequence[tuple[float, float]]
Choice = Callable[[str, Sequence["Engine"]], int]
"""From a twin to the index of the engine that answers."""


def tokens_per_second(adapters: int, table: Table) -> float:
    """Return what an engine with a full batch gives with so many adapters in it."""
    for (fewer, faster), (more, slower) in pairwise(table):
        if adapters <= more:
            return faster + (slower - faster) * (adapters - fewer) / (more - fewer)
    return table[-1][1]


@dataclass(eq=False)
class Engine:
    """One engine that shares its tokens/s equally among what is in flight."""

    pod: Pod
    table: Table
    served: float = 0.0
    """Tokens that a request has got that was there from the start."""
    at: float = 0.0
    running: list[tuple[float, int, str]] = field(default_factory=list)
    """With what `served` is when it ends; a heap."""
    adapters: Counter[str] = field(default_factory=Counter)

    def rate(self) -> float:
        """Tokens/s of one request: below a full batch each has what it would have in a full one."""
        return tokens_per_second(len(self.adapters), self.table) / max(FULL_BATCH, len(self.running))

    def go_on(self, now: float) -> None:
        """Serve until now."""
        if self.running:
            self.served += (now - self.at) * self.rate()
        self.at = now

    def ends(self) -> float:
        """Return when the next request ends."""
        return self.at + (self.running[0][0] - self.served) / self.rate() if self.running else float("inf")

    def begin(self, number: int, twin: str) -> None:
        """Take a request."""
        heapq.heappush(self.running, (self.served + ANSWER_TOKENS, number, twin))
        self.adapters[twin] += 1
        self.pod.in_flight += 1

    def end(self) -> str:
        """Let the next request end; returns its twin."""
        twin = heapq.heappop(self.running)[2]
        self.adapters[twin] -= 1
        if not self.adapters[twin]:
            del self.adapters[twin]
        self.pod.in_flight -= 1
        return twin


def simulate(
    choice: Choice, engines: Sequence[Engine], *, weights: Sequence[float], draw: random.Random, widths: Widths
) -> tuple[float, float]:
    """Keep a full batch per engine in flight; returns tokens/s of all, and adapters in use per engine."""
    twins = [f"twin-{number}" for number in range(len(weights))]
    clock = number = 0
    now, done, seen = 0.0, 0, []

    def ask() -> None:
        nonlocal number
        (twin,) = draw.choices(twins, weights)
        widths.begin(twin)
        engine = engines[choice(twin, engines)]
        engine.go_on(now)
        engine.begin(number, twin)
        number += 1

    for _ in range(FULL_BATCH * len(engines)):
        ask()
    while now < SECONDS:
        engine = min(engines, key=Engine.ends)
        now = engine.ends()
        engine.go_on(now)
        widths.end(engine.end())
        if now > WARM_UP:
            done += 1
            clock += 1
            if clock % 50 == 0:
                seen.append(statistics.mean(len(each.adapters) for each in engines))
        ask()
    return done * ANSWER_TOKENS / (now - WARM_UP), statistics.mean(seen)


# --- choices


def _hashed(twin: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{twin}\0{pod}".encode(), digest_size=8).digest()


def _by_order(order: Mapping[str, Sequence[str]], widths: Widths) -> Choice:
    """Choose as the miner does, in this order of pods; those that are not in it follow by the hash."""

    def choice(twin: str, engines: Sequence[Engine]) -> int:
        first = {uid: at for at, uid in enumerate(order.get(twin, ()))}
        pods = sorted((each.pod for each in engines), key=lambda pod: (first.get(pod.uid, 99), _hashed(twin, pod.name)))
        found = choose_pod(pods, avoid=(), now=0.0, width=widths.width(twin, pods))
        return next(at for at, each in enumerate(engines) if each.pod is found)

    return choice


def _at_random(draw: random.Random) -> Choice:
    return lambda twin, engines: draw.randrange(len(engines))


def _lora_affinity(draw: random.Random, *, slots: int, with_load: bool) -> Choice:
    """Score as llm-d's lora-affinity: 1 where the adapter runs, 0.8 where there is room for one more, else 0.

    Nothing waits here for a slot, so its 0.6 for an adapter that waits never comes. Among equals one is drawn.
    `with_load`: with a second score of equal weight, 1 for the emptiest engine and 0 for the fullest.
    """

    def choice(twin: str, engines: Sequence[Engine]) -> int:
        loads = [each.pod.in_flight for each in engines]
        low, high = min(loads), max(loads)
        scores = []
        for each, load in zip(engines, loads, strict=True):
            score = 1.0 if twin in each.adapters else 0.8 if len(each.adapters) < slots else 0.0
            if with_load:
                score += (high - load) / (high - low) if high > low else 1.0
            scores.append(score)
        best = max(scores)
        return draw.choice([at for at, score in enumerate(scores) if score == best])

    return choice


# --- figures


def _pods(count: int, slots: int) -> list[EnginePod]:
    return [EnginePod(uid=f"pod-{number}", slots=slots) for number in range(count)]


def _fullest(draw: random.Random, *, twins: int, pods: int, slots: int) -> tuple[int, int]:
    """Return how many twins the fullest pod has by the hash, and by the plan, for twins of random names."""
    names = [f"dr-{draw.getrandbits(40):x}" for _ in range(twins)]
    engines = _pods(pods, slots)
    hashed = Counter(min((pod.uid for pod in engines), key=lambda uid: _hashed(name, uid)) for name in names)
    plan = place(engines, [Demand(uid=name, rank=16) for name in names], {})
    return max(hashed.values()), max(Counter(pods_[0] for pods_ in plan.pods.values()).values())


def _moved(draw: random.Random, *, mixed: bool, dies: bool) -> tuple[float, float]:
    """Return what moves until nothing more does, and the most in one plan, in parts of a pod's share."""
    demand = [Demand(uid=f"dr-{draw.getrandbits(40):x}", rank=draw.choice(RANKS) if mixed else 16) for _ in range(1000)]
    before, _ = _settled(_pods(8 if dies else 7, 256), demand, {})
    pods = _pods(8, 256)
    share = len(demand) / 8
    _, moves = _settled(pods[1:] if dies else pods, demand, before.pods)
    return sum(moves) / share, max(moves) / share


def _settled(
    pods: Sequence[EnginePod], demand: Sequence[Demand], before: Mapping[str, Sequence[str]]
) -> tuple[Plan, list[int]]:
    moves = []
    while True:
        plan = place(pods, demand, before)
        moves.append(sum(len(set(now) - set(before.get(uid, ()))) for uid, now in plan.pods.items()))
        before = plan.pods
        if plan.settled:
            return plan, moves


def _runs(table: Table, *, zipf: bool) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield each way of routing with its tokens/s and its adapters per engine, over several runs."""
    weights = [1 / (number + 1) if zipf else 1.0 for number in range(TWINS)]
    total = sum(weights)
    in_flight = {f"twin-{at}": round(1000 * FULL_BATCH * ENGINES * weight / total) for at, weight in enumerate(weights)}
    pods = _pods(ENGINES, 64)
    plain, _ = _settled(pods, [Demand(uid=name, rank=16) for name in in_flight], {})
    busy, _ = _settled(pods, [Demand(uid=name, rank=16, load=load) for name, load in in_flight.items()], {})
    ways: dict[str, Callable[[random.Random, Widths], Choice]] = {
        "at random": lambda draw, widths: _at_random(draw),
        "lora-affinity": lambda draw, widths: _lora_affinity(draw, slots=64, with_load=False),
        "lora-affinity and load": lambda draw, widths: _lora_affinity(draw, slots=64, with_load=True),
        "hash (before)": lambda draw, widths: _by_order({}, widths),
        "placed by number": lambda draw, widths: _by_order(plain.pods, widths),
        "placed by load": lambda draw, widths: _by_order(busy.pods, widths),
    }
    for name, way in ways.items():
        speeds, adapters = [], []
        for run in range(RUNS):
            draw, widths = random.Random(run), Widths(clock=lambda: 0.0)
            engines = [Engine(Pod(name=pod.uid, uid=pod.uid, url=NO_URL), table) for pod in pods]
            speed, held = simulate(way(draw, widths), engines, weights=weights, draw=draw, widths=widths)
            speeds.append(speed)
            adapters.append(held)
        yield name, speeds, adapters


def _tokens(told: str, table: Table, *, zipf: bool) -> Iterator[Figure]:
    found = {name: (speeds, adapters) for name, speeds, adapters in _runs(table, zipf=zipf)}
    for name, (speeds, adapters) in found.items():
        yield Figure(
            subject=told,
            figure=f"{name}, {statistics.mean(adapters):.0f} adapters in an engine's batch: predicted",
            unit="tokens/s",
            spread=Spread.of(speeds),
            digits=0,
        )
    placed = found["placed by load"][0]
    for name in ("at random", "lora-affinity", "lora-affinity and load"):
        ratios = [ours / theirs for ours, theirs in zip(placed, found[name][0], strict=True)]
        yield Figure(
            subject=told,
            figure=f"placed by load, against {name}: predicted",
            unit="times",
            spread=Spread.of(ratios),
            target="at least 1.25, by a GPU run",
        )


def measure(options: Options) -> Result:
    """Simulate all; `options` has nothing that matters here."""
    del options
    draw = random.Random(0)
    figures: list[Figure] = []
    for twins, pods, slots in ((24, 3, 8), (64, 4, 16)):
        pairs = [_fullest(draw, twins=twins, pods=pods, slots=slots) for _ in range(DRAWS)]
        for name, counts in (("hash (before)", [one for one, _ in pairs]), ("placed", [two for _, two in pairs])):
            judged = name == "placed"
            figures.append(
                Figure(
                    subject="fullest pod",
                    figure=f"{twins} twins on {pods} pods of {slots} slots, {name}",
                    unit="twins",
                    digits=0,
                    spread=Spread.of(counts),
                    target=f"at most {slots}" if judged else None,
                    met=max(counts) <= slots if judged else None,
                )
            )
    for dies in (True, False):
        for mixed in (False, True):
            moved = [_moved(draw, mixed=mixed, dies=dies)[0] for _ in range(DRAWS // 10)]
            ranks, what = "ranks 8 to 128" if mixed else "one rank", "one of 8 dies" if dies else "an 8th comes"
            figures.append(
                Figure(
                    subject="moves",
                    figure=f"1,000 twins, {ranks}, {what}: all that follows",
                    unit="shares of a pod",
                    spread=Spread.of(moved),
                    target="at most 2",
                    met=max(moved) <= 2,
                )
            )
    for reading, table in (("64 adapters a batch", DISTINCT), ("41 adapters a batch", DRAWN)):
        figures += _tokens(f"64 twins asked alike ({reading})", table, zipf=False)
        figures += _tokens(f"64 twins, Zipf ({reading})", table, zipf=True)
    return Result(
        name="placement",
        title="Placing twins (simulated)",
        how=f"Simulated: no engine ran. {DRAWS} draws of names, {DRAWS // 10} of moves. Tokens/s: {ENGINES} engines "
        f"with {FULL_BATCH} requests in flight each, {RUNS} runs of {SECONDS:.0f} s, an engine's speed by the adapters "
        f"in its batch as one H200 had it with 0, 1, 16 and 64 twins of rank 16, straight lines between; below a full "
        f"batch a request is as fast as in one, above it the engine is no faster. Prefill, prefix caches and waiting "
        f"for slots are not in it.",
        figures=tuple(figures),
        notes=(
            "Simulated: predicted tokens/s are extrapolations from one engine's table until a GPU run is there. The "
            "table doesn't say how many adapters a batch over 64 twins held, so both readings are given.",
        ),
        command="make bench BENCH_ARGS=placement",
    )
