"""Did a twin's answers change? Its log-probabilities of given tokens, asked again and again, against their own noise.

Words are no measure: vLLM rounds otherwise in another batch, and one token that comes out otherwise changes all that
follow. Here each token is asked for with what stands before it given, as the agent's proof asks, so that a small
difference stays small. All in nats.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from bettertherapy_api.manifest import AdapterManifest
from neurons.agent.fingerprint import rounds
from neurons.agent.places import Position
from tests.bench.results import Figure, Spread
from tests.gpu.outcome import count

Round = Mapping[str, tuple[float, ...]]
"""Each twin's values at its places; NaN where there was no answer, or none that is a number."""
LEAST_ROUNDS: Final = 4
"""Of the stretch that says what is usual: half of them for the medians, half for the noise."""
BOUND_TIMES: Final = 2.0
"""A twin's answers have changed when they are so many times farther from its medians than any twin's were before."""
_PARTS: Final = 2
"""Of what the agent asks, in its order: 12 places."""
_AT_ONCE: Final = 48
_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Asked:
    """Under which name a twin answers, and what it is asked."""

    served_name: str
    places: tuple[Position, ...]


def places_of(manifest: AdapterManifest) -> tuple[Position, ...]:
    """Return the places where an adapter differs most from its parent and the base: what the agent asks first."""
    if manifest.fingerprint is None:
        raise ValueError("the adapter has no fingerprint, so nobody knows what to ask it")
    return tuple(entry.position for part in rounds(manifest.fingerprint)[:_PARTS] for entry in part)


class Likelihoods:
    """Asks one engine at its own socket. Use as `async with Likelihoods(...)`."""

    def __init__(self, socket: Path, twins: Mapping[str, Asked]) -> None:
        self._socket = socket
        self._twins = twins
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._number = 0
        self.errors: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=2)
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession("http://engine", connector=connector, timeout=timeout)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def round(self, name: str | None = None) -> Round:
        """Ask each twin once at its places, or `name` in the place of each."""
        self._number += 1
        found = await asyncio.gather(*(self._values(twin, asked, name) for twin, asked in self._twins.items()))
        return dict(zip(self._twins, found, strict=True))

    async def rounds(self, *, over: Callable[[], bool], least: int) -> list[Round]:
        """Ask until it is over, at least so many times."""
        found: list[Round] = []
        while len(found) < least or not over():
            found.append(await self.round())
        return found

    async def _values(self, twin: str, asked: Asked, name: str | None) -> tuple[float, ...]:
        salt = f"{twin}-{self._number}"  # what an earlier round left in the engine's prefix cache tells nothing
        model = name or asked.served_name
        return tuple(await asyncio.gather(*(self._value(model, place, salt) for place in asked.places)))

    async def _value(self, model: str, place: Position, salt: str) -> float:
        before, token = place
        body: dict[str, Any] = {
            "model": model, "prompt": list(before), "max_tokens": 1, "temperature": 0, "logprobs": 1,
            "allowed_token_ids": [token], "return_tokens_as_token_ids": True, "cache_salt": salt,
        }  # fmt: skip
        if self._session is None:
            raise RuntimeError("not entered")
        try:
            async with self._gate, self._session.post("/v1/completions", json=body) as response:
                document = await response.json()
            said = document["choices"][0]["logprobs"]
            if said["tokens"] == [f"token_id:{token}"]:
                return float(said["token_logprobs"][0])
            wrong = f"another token than {token}: {said['tokens']}"
        except LookupError:
            wrong = f"no log-probability: {document}"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError) as error:
            wrong = f"{type(error).__name__}: {error}"
        self.errors[wrong[:200]] += 1
        return math.nan


@dataclass(frozen=True)
class Comparison:
    """How far twins' values were from their own medians, before something and afterwards."""

    before: tuple[float, ...]
    """One for each twin and round: the mean difference over its places."""
    later: tuple[float, ...]
    before_place: float
    """The largest difference at a single place."""
    later_place: float
    unanswered: int
    """Twins' rounds afterwards with a place that had no answer, or none that is a number."""
    changed: tuple[tuple[str, float], ...]

    @property
    def bound(self) -> float:
        """Beyond this, a twin's answers have changed."""
        return BOUND_TIMES * max(self.before)


def medians(found: Sequence[Round]) -> Round:
    """Return each place's median; raises ValueError where there is none."""
    made = {}
    for twin in found[0]:
        columns = list(zip(*(each[twin] for each in found), strict=True))
        if not all(math.isfinite(value) for column in columns for value in column):
            raise ValueError(f"{twin} had no answer, or none that is a number, before anything happened")
        made[twin] = tuple(statistics.median(column) for column in columns)
    return made


def offs(usual: Round, found: Round) -> dict[str, list[float]]:
    """Return each twin's difference from the usual at each place; NaN where there is no value."""
    return {twin: [abs(a - b) for a, b in zip(usual[twin], found[twin], strict=True)] for twin in usual}


def compare(before: Sequence[Round], later: Sequence[Round]) -> Comparison:
    """Compare rounds with what the first half of those before was; the second half tells the noise."""
    if len(before) < LEAST_ROUNDS:
        raise ValueError(f"{len(before)} rounds don't tell what is usual, {LEAST_ROUNDS} do")
    half = len(before) // 2
    usual = medians(before[:half])
    medians(before[half:])  # all of them are numbers too
    noise = [off for each in before[half:] for off in offs(usual, each).values()]
    found = [(twin, off) for each in later for twin, off in offs(usual, each).items()]
    whole = [(twin, off) for twin, off in found if all(math.isfinite(value) for value in off)]
    usual_means = tuple(statistics.fmean(off) for off in noise)
    means = [(twin, statistics.fmean(off)) for twin, off in whole]
    return Comparison(
        before=usual_means,
        later=tuple(mean for _, mean in means),
        before_place=max(max(off) for off in noise),
        later_place=max((max(off) for _, off in whole), default=math.nan),
        unanswered=len(found) - len(whole),
        changed=tuple((twin, mean) for twin, mean in means if mean > BOUND_TIMES * max(usual_means)),
    )


def figures(subject: str, found: Comparison, base: Round, usual: Round) -> Iterator[Figure]:
    """Yield what a comparison says, and how far the base model's own answers are at the same places."""
    places = {len(values) for values in usual.values()}
    what = f"good twins' log-probabilities at {max(places)} places"
    kinds = {"before, off their own medians": found.before, "with bad ones there and after, off these": found.later}
    for when, values in kinds.items():
        if values:
            yield Figure(
                subject=subject, figure=f"{what}: {when} (mean of the places)", unit="nats", digits=3,
                spread=Spread.of(values),
            )  # fmt: skip
    yield count(
        subject, f"{what}: changed, beyond {BOUND_TIMES:g} times the most before, {found.bound:.3f} nats",
        len(found.changed), len(found.later), target=0,
    )  # fmt: skip
    yield count(
        subject, f"{what}: rounds without an answer", found.unanswered, len(found.later) + found.unanswered, target=0
    )
    for when, value in (("before", found.before_place), ("with bad ones there and after", found.later_place)):
        yield Figure(
            subject=subject, figure=f"{what}: the largest difference at one place, {when}", unit="nats", digits=3,
            spread=Spread.of([value]),
        )  # fmt: skip
    apart = [statistics.fmean(off) for off in offs(usual, base).values() if all(map(math.isfinite, off))]
    if apart:
        yield Figure(
            subject=subject, figure="for comparison, the base model's at the same places: off the twins' medians",
            unit="nats", digits=3, spread=Spread.of(apart),
        )  # fmt: skip
