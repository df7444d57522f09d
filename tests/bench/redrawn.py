"""What choosing brings, from few draws: eight answers a question, and every choice of two, four or eight among them.

The mean over all 70 fours is what the best of 4 scores on average, and the mean of the eight what one draw does: the
same draws for every scorer and number, so that their differences are not the dice's.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from neurons.candidates import Candidate, Chooser, Question, read_scorers
from neurons.miner.race import Race
from neurons.scoring import Item, score_answer

DRAWS: Final = 8
SIZES: Final = (2, 4, 8)
"""How many candidates are chosen among."""
BEST: Final = "whoever knows the answers"
SCORERS: Final = ("agreement:2,likelihood,support:2", "agreement", "likelihood")


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """One question's expected score, in percent, by who chooses."""

    item: str
    one: float
    chosen: dict[int, dict[str, float]]
    """By the number of candidates."""
    tokens_one: float
    """Tokens of one answer, on average."""
    tokens_waited: dict[int, float]
    """Steps until the choice is made, by the number of candidates: those of the one that completes a half, and half as
    many again for the others."""


async def redraw(
    url: str, model: str, items: Sequence[Item], *, temperature: float, tokens: int, until: float
) -> list[Redrawn]:
    """Draw and choose, question by question, until all are asked or time.monotonic() is `until`."""
    found = []
    async with aiohttp.ClientSession() as http:
        for item in items:
            if time.monotonic() > until:
                break
            body = {
                "model": model, "messages": [{"role": "user", "content": item.prompt}], "n": DRAWS, "stream": True,
                "logprobs": True, "temperature": temperature, "max_tokens": tokens,
            }  # fmt: skip
            race = Race(DRAWS)
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                async for chunk in response.content.iter_any():
                    race.read(chunk)
            race.end()
            if len(race.finished()) == DRAWS:
                found.append(await _redrawn(item, race))
    return found


async def _redrawn(item: Item, race: Race) -> Redrawn:
    tracks = race.finished()
    scores = [100 * score_answer(item, track.text) for track in tracks]
    lengths = [track.tokens for track in tracks]
    chosen: dict[int, dict[str, float]] = {}
    waited: dict[int, float] = {}
    for size in SIZES:
        groups = list(itertools.combinations(range(DRAWS), size))
        chosen[size] = {BEST: _mean([max(scores[index] for index in group) for group in groups])}
        for name in SCORERS:
            chooser = Chooser(read_scorers(name))
            points = []
            for group in groups:
                candidates: list[Candidate] = [tracks[index].candidate() for index in _in_time(group, lengths)]
                choice = await chooser.choose(Question(text=item.prompt), candidates, seconds=60)
                points.append(scores[choice.candidate.index])
            chosen[size][name] = _mean(points)
        waited[size] = _mean([_waited([lengths[index] for index in group]) for group in groups])
    return Redrawn(item=item.id, one=_mean(scores), chosen=chosen, tokens_one=_mean(lengths), tokens_waited=waited)


def _in_time(group: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return those of a group that are complete when a miner chooses."""
    limit = _waited([lengths[index] for index in group])
    return [index for index in group if lengths[index] <= limit]


def _waited(lengths: Sequence[int]) -> float:
    ordered = sorted(lengths)
    return min(ordered[-1], 1.5 * ordered[len(ordered) // 2 - 1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
