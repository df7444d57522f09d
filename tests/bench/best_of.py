"""The best of several candidates against one: what it brings in correctness, and what it costs in time.

Needs an OpenAI-compatible engine with a real model, named by ENGINE_URL and ENGINE_MODEL; the miner before it runs in
this process. Questions are the safety items that every twin is asked, and those in the files that BENCH_QUESTIONS names
with commas between (JSON Lines, as `neurons.scoring` reads them), such as the demo's examination of Dr. Gurung's twin,
local/demo/learning/examination.jsonl. BENCH_MAX_SECONDS ends it after the question that is asked then: figures are of
the questions that were asked in every way. Parts to skip: redrawn, miner.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.routing import Version
from neurons.candidates import read_scorers
from neurons.miner.settings import DEFAULT_SCORERS
from neurons.scoring import Interval, Item, parse_items, safety_items, score_answer
from neurons.scoring.inference import difference_interval
from tests.bench.redrawn import BEST, DRAWS, SCORERS, SIZES, Redrawn, redraw
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin

TEMPERATURE: Final = 0.7
MAX_TOKENS: Final = 48
BUDGET_SECONDS: Final = 120.0
"""Longer than any answer takes here: what is measured is patience."""
SLOWER: Final = 1.5
JUDGED: Final = 4
"""The number of candidates that has targets."""
GAIN: Final = "score above 1 candidate's: mean (95% interval)"
SPAN: Final = 100.0
"""Of the scale of scores, in percent."""
_ORDER_SEED: Final = 6


@dataclass(frozen=True, kw_only=True)
class Way:
    """One setting of a miner."""

    name: str
    candidates: int
    scorers: str = DEFAULT_SCORERS
    patience: float = 1.5


WAYS: Final = (
    Way(name="1 candidate", candidates=1),
    Way(name="2 candidates", candidates=2),
    Way(name="4 candidates", candidates=4),
    Way(name="8 candidates", candidates=8),
    Way(name="4 candidates, all waited for", candidates=4, patience=100.0),
)


@dataclass(slots=True)
class _Asked:
    """What came of one way, question by question."""

    scores: dict[str, list[float]] = field(default_factory=dict)
    """By question, once for each repetition."""
    seconds: list[float] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)


def measure(options: Options) -> Result:
    """Measure; raises BenchmarkError without an engine."""
    url, model = os.environ.get("ENGINE_URL"), os.environ.get("ENGINE_MODEL")
    if not url or not model:
        raise BenchmarkError("name an engine with a real model: ENGINE_URL=http://HOST:PORT ENGINE_MODEL=NAME")
    items = _items()
    until = time.monotonic() + float(os.environ.get("BENCH_MAX_SECONDS", "inf"))
    items = random.Random(_ORDER_SEED).sample(items, len(items))
    drawn: list[Redrawn] = []
    asked: dict[str, _Asked] = {}
    if "redrawn" not in options.skip:
        draw = redraw(url, model, items, temperature=TEMPERATURE, tokens=MAX_TOKENS, until=until)
        drawn = asyncio.run(draw)
    if "miner" not in options.skip:
        asked = asyncio.run(_ask_all(url, model, items, options.repeats, until))
    if not drawn and not (asked and asked[WAYS[0].name].scores):
        raise BenchmarkError("no question was asked: BENCH_MAX_SECONDS is too short")
    figures, notes = _of_draws(drawn) if drawn else ([], [])
    if asked and asked[WAYS[0].name].scores:
        more, said = _of_miners(asked)
        figures, notes = figures + more, notes + said
    return Result(
        name="best_of",
        title="The best of several candidates",
        how=f"{model}, temperature {TEMPERATURE}, at most {MAX_TOKENS} tokens, one question at a time, scored by "
        f"neurons.scoring. Redrawn: {DRAWS} answers to each of {len(drawn)} questions, and every choice of "
        f"{', '.join(map(str, SIZES))} among them. "
        f"Through a miner: {len(asked[WAYS[0].name].seconds) if asked else 0} answers in each way.",
        figures=tuple(figures),
        notes=tuple(notes),
        command="ENGINE_URL=http://127.0.0.1:8000 ENGINE_MODEL=smollm2 make bench BENCH_ARGS=best_of",
    )


def _items() -> list[Item]:
    items = [*safety_items()]
    for path in filter(None, os.environ.get("BENCH_QUESTIONS", "").split(",")):
        items += parse_items(Path(path).read_bytes())
    return items


async def _ask_all(url: str, model: str, items: Sequence[Item], repeats: int, until: float) -> dict[str, _Asked]:
    """Ask each question in each way, the ways in turn, so that a busy hour meets all alike."""
    asked = {way.name: _Asked() for way in WAYS}
    order = random.Random(_ORDER_SEED)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        miners = {}
        for number, way in enumerate(WAYS):
            own = folder / str(number)
            own.mkdir()
            miners[way.name] = await stack.enter_async_context(_Miner(own, url, model, way))
        for _ in range(repeats):
            for item in items:
                if time.monotonic() > until:
                    return asked
                for way in order.sample(WAYS, len(WAYS)):
                    await _ask(miners[way.name], item, asked[way.name])
    return asked


class _Miner:
    """A miner of one way, before the engine."""

    def __init__(self, folder: Path, url: str, model: str, way: Way) -> None:
        self._address, self._model = url.removeprefix("http://").rstrip("/"), model
        self._miner = RunningMiner(
            folder, candidates=way.candidates, scorers=read_scorers(way.scorers), patience=way.patience,
            latency_budget_seconds=BUDGET_SECONDS,
        )  # fmt: skip

    async def __aenter__(self) -> RunningMiner:
        miner = await self._miner.__aenter__()
        miner.route({"twin": Twin(versions=(Version(served_name=self._model, weight_percent=100),))})
        miner.report([FakeAgent(pod="engine", address=self._address)])
        return miner

    async def __aexit__(self, *why: object) -> None:
        await self._miner.__aexit__(*why)


async def _ask(miner: RunningMiner, item: Item, asked: _Asked) -> None:
    began = time.monotonic()
    status, _, document = await miner.ask("twin", text=item.prompt, temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    if status != 200:
        raise BenchmarkError(f"the engine answered {status}: {document}")
    asked.seconds.append(time.monotonic() - began)
    drawn: Mapping[str, Any] = document["bettertherapy"].get("candidates", {"complete": 1})
    asked.complete.append(drawn["complete"])
    score = score_answer(item, document["choices"][0]["message"]["content"] or "")
    asked.scores.setdefault(item.id, []).append(100 * score)


def _of_draws(drawn: Sequence[Redrawn]) -> tuple[list[Figure], list[str]]:
    one = [each.one for each in drawn]
    figures = [_score("redrawn, 1 candidate", one)]
    notes = []
    for size in SIZES:
        for name in (*SCORERS, BEST):
            points = [each.chosen[size][name] for each in drawn]
            difference = difference_interval(one, points, span=SPAN)
            judged = size == JUDGED and name == DEFAULT_SCORERS
            figures.append(
                _score(f"redrawn, best of {size} by {name}", points, higher=difference.low > 0 if judged else None)
            )
            figures.append(_gain(f"redrawn, best of {size} by {name}", difference, len(points)))
        ratio = _mean([each.tokens_waited[size] for each in drawn]) / _mean([each.tokens_one for each in drawn])
        notes.append(f"Until the choice among {size} the engine makes {ratio:.2f} times the steps of one answer.")
    return figures, notes


def _of_miners(asked: Mapping[str, _Asked]) -> tuple[list[Figure], list[str]]:
    one = asked[WAYS[0].name]
    figures, notes = [], []
    for way in WAYS:
        got = asked[way.name]
        points = [_mean(scores) for scores in got.scores.values()]
        ratio = _mean(got.seconds) / _mean(one.seconds)
        difference = difference_interval([_mean(one.scores[name]) for name in got.scores], points, span=SPAN)
        default = way.name == f"{JUDGED} candidates"
        figures += [
            _score(f"through a miner, {way.name}", points),
            Figure(
                subject=f"through a miner, {way.name}", figure="latency", unit="s", spread=Spread.of(got.seconds),
                target=f"mean at most {SLOWER} times that with 1" if default else None,
                met=ratio <= SLOWER if default else None,
            ),
        ]  # fmt: skip
        if way is not WAYS[0]:
            figures.append(_gain(f"through a miner, {way.name}", difference, len(points)))
            notes.append(
                f"Through a miner, {way.name}: {ratio:.2f} times the mean latency, "
                f"{_mean(got.complete):.1f} complete when one was chosen."
            )
    return figures, notes


def _score(subject: str, points: Sequence[float], *, higher: bool | None = None) -> Figure:
    return Figure(
        subject=subject, figure="mean score of the questions", unit="%", digits=1,
        spread=Spread(min(points), _mean(points), max(points), len(points)),
        target="higher than with 1: the difference's interval is above 0" if higher is not None else None, met=higher,
    )  # fmt: skip


def _gain(subject: str, difference: Interval, questions: int) -> Figure:
    spread = Spread(difference.low, difference.mean, difference.high, questions)
    return Figure(subject=subject, figure=GAIN, unit="points", digits=1, spread=spread)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    from tests.bench.__main__ import main

    sys.exit(main(["best_of", *sys.argv[1:]]))
