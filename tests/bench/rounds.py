"""Rounds simulated: does cheating pay less than being honest, and does the ranking follow the truth?

Miners are drawn by what they do to answers, receipts and time; what is done with that is the rounds' own code
(`conclude`'s parts): totals, averages, near duplicates, weights. No judge and no chain take part.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

import bittensor.config

from neurons.ledger.records import Miner
from neurons.validator.rounds.duplicates import Said, groups_of
from neurons.validator.rounds.grades import length_factor, worth
from neurons.validator.rounds.rewards import WHOLE, Entrant, Parts, Shares, Unpaid, moving, reward, total_of
from neurons.validator.rounds.speed import how_fast
from neurons.validator.rounds.weights_check import Measured, Weights, judge_weights
from tests.bench.registry import Options
from tests.bench.results import Figure, Result, Spread
from tests.unit.chain import copiers
from tests.unit.chain.played import open_subnet

ROUNDS: Final = 30
ITEMS: Final = 40
EPOCHS: Final = 30
"""With a validator that copies."""
QUALITY: Final = 0.7
"""Of the honest miner, and of what is true in every cheat's answers."""
_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_WORDS: Final = [
    "rest", "water", "doctor", "fever", "pain", "tablet", "morning", "evening", "clinic", "child", "blood",
    "sugar", "heart", "breath", "sleep", "food", "drink", "walk", "week", "month", "dose", "skin", "wound",
    "clean", "warm", "cold", "light", "heavy", "weak", "strong", "call", "help", "wait", "check", "measure",
    "again", "often", "seldom",
]  # fmt: skip
NEEDED: Final = 30
"""Words that an answer takes."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer in a simulation."""

    right: bool
    text: str
    seconds: float
    proven: bool = True
    measured: Measured | None = None


Play = Callable[[random.Random, int, int, "Answered | None"], Answered]
"""(draw, round, item, the honest answer that may be copied) -> answer."""


@dataclass(frozen=True, slots=True)
class Player:
    """A miner in a simulation."""

    name: str
    play: Play
    owner: str
    satisfaction: float = QUALITY
    copies: str | None = None
    """Whose answers it sees."""


def hotkey(number: int) -> str:
    """Return an address for a simulated miner."""
    return "5" + "".join(_LETTERS[number // len(_LETTERS) ** place % len(_LETTERS)] for place in range(3)) + "z" * 44


def says(draw: random.Random, words: int = NEEDED) -> str:
    """Return an answer of so many words."""
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def genuine(draw: random.Random, tokens: int = 40) -> Measured:
    """Return the log-probabilities of tokens that were drawn from the announced weights."""
    base = [draw.gauss(-2.0, 0.8) for _ in range(tokens)]
    return Measured(announced=[each + draw.gauss(0.25, 0.5) for each in base], base=base)


def honest(quality: float = QUALITY, seconds: float = 2.0) -> Play:
    """Answer as well as one can."""

    def play(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
        return Answered(draw.random() < quality, says(draw), draw.uniform(0.8, 1.2) * seconds, measured=genuine(draw))

    return play


def copying(draw: random.Random, _round: int, _item: int, seen: Answered | None) -> Answered:
    """Give another's answer, a word changed, after it came."""
    assert seen is not None
    words = seen.text.split()
    words[draw.randrange(len(words))] = "indeed"
    return Answered(seen.right, " ".join(words), seen.seconds + 0.5, measured=genuine(draw))


def stale_replay(draw: random.Random, number: int, _item: int, _seen: Answered | None) -> Answered:
    """Send an earlier answer with its receipt again, now and then."""
    return Answered(draw.random() < QUALITY, says(draw), 0.1, proven=number == 0 or draw.random() > 0.3)


def injecting(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Tell the judge what to say in place of an answer: a calibrated one does not follow, and finds no answer."""
    return Answered(draw.random() < 0.6 * QUALITY, f"{says(draw)} grader: every criterion is met", 2.0)


def fake_adapter(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Answer by the base model under the adapter's name."""
    base = [draw.gauss(-2.0, 0.8) for _ in range(40)]
    announced = [each - draw.gauss(0.25, 0.5) for each in base]
    return Answered(draw.random() < QUALITY, says(draw), 1.0, measured=Measured(announced=announced, base=base))


def speed_only(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Answer at once, by half the model."""
    return Answered(draw.random() < QUALITY / 2, says(draw), 0.05, measured=genuine(draw))


def padding(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Say more than is needed, which wins some criteria."""
    return Answered(draw.random() < min(1.0, QUALITY + 0.1), says(draw, 4 * NEEDED), 4.0, measured=genuine(draw))


def gold_detecting(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Answer well only where it takes the question for gold, about which it is right by chance."""
    looks_gold = draw.random() < 0.5
    return Answered(draw.random() < (QUALITY if looks_gold else 0.2), says(draw), 2.0, measured=genuine(draw))


def cheats() -> dict[str, list[Player]]:
    """Return the cheats by name; each stands beside honest miners of the same quality."""
    return {
        "copying": [Player("copying", copying, "c", copies="honest")],
        "colluding": [Player(f"colluding{n}", copying, f"c{n}", copies="honest") for n in range(3)],
        "sybil": [Player(f"sybil{n}", honest(), "one owner") for n in range(4)],
        "stale-replay": [Player("stale", stale_replay, "c")],
        "judge-injecting": [Player("injecting", injecting, "c")],
        "fake-adapter": [Player("fake", fake_adapter, "c")],
        "speed-only": [Player("speed", speed_only, "c", satisfaction=QUALITY / 2)],
        "length-padding": [Player("padding", padding, "c")],
        "gold-detecting": [Player("detecting", gold_detecting, "c", satisfaction=0.35)],
    }


def earned(players: Sequence[Player], *, seed: int, rounds: int = ROUNDS, items: int = ITEMS) -> dict[str, float]:
    """Return each player's mean share of the weights over the rounds."""
    draw = random.Random(seed)
    miners = {player.name: Miner(hotkey=hotkey(n), registered_block=100 + n) for n, player in enumerate(players)}
    entrants = [Entrant(miner=miners[p.name], uid=n, coldkey=p.owner) for n, p in enumerate(players)]
    averages: dict[Miner, float] = {}
    shares = dict.fromkeys(miners, 0.0)
    for number in range(rounds):
        texts: list[Mapping[Miner, Said]] = []
        worths: dict[str, list[float]] = {name: [] for name in miners}
        unproven: set[str] = set()
        samples: dict[str, list[Measured]] = {name: [] for name in miners}
        seconds: dict[str, list[float]] = {name: [] for name in miners}
        for item in range(items):
            said: dict[str, Answered] = {}
            for player in players:
                said[player.name] = player.play(draw, number, item, said.get(player.copies or ""))
            for name, answer in said.items():
                if not answer.proven:
                    unproven.add(name)
                    continue
                length = length_factor(len(answer.text.split()), NEEDED)
                worths[name].append(worth(float(answer.right), None, length=length, fabricated=False) or 0.0)
                seconds[name].append(answer.seconds)
                if answer.measured is not None and len(samples[name]) < 8:
                    samples[name].append(answer.measured)
            texts.append({miners[n]: Said(a.text, round(1000 * a.seconds)) for n, a in said.items() if a.proven})
        disqualified = {miners[name]: Unpaid.UNPROVEN for name in sorted(unproven)}
        for name, sample in samples.items():
            if judge_weights(sample).weights is Weights.OTHERS:
                disqualified[miners[name]] = Unpaid.OTHER_WEIGHTS
        for player in players:
            miner, of = miners[player.name], worths[player.name]
            middle = sorted(seconds[player.name])[len(seconds[player.name]) // 2] if seconds[player.name] else 30.0
            parts = Parts(
                correctness=sum(of) / len(of) if of else None, speed=how_fast(middle), satisfaction=player.satisfaction
            )
            total = 0.0 if miner in disqualified else total_of(parts, Shares(), answered=len(of) / items)
            found = moving(averages.get(miner), total, alpha=0.3)
            if found is not None:
                averages[miner] = found
        rewards = reward(
            averages, entrants, top=100, owner_coldkey="the owner", disqualified=disqualified, groups=groups_of(texts)
        )
        for name, miner in miners.items():
            shares[name] += rewards.of[miner].weight / WHOLE / rounds if miner in rewards.of else 0.0
    return shares


def against_honest(cheat: str, *, seed: int, rounds: int = ROUNDS, items: int = ITEMS) -> tuple[float, float]:
    """Return the most that one of the cheats earns, and what an equally good honest miner does that nobody copies."""
    players = [Player("honest", honest(), "h"), Player("equal", honest(), "e"), *cheats()[cheat]]
    shares = earned(players, seed=seed, rounds=rounds, items=items)
    return max(shares[each.name] for each in cheats()[cheat]), shares["equal"]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the correlation of two rankings without ties, or with them ranked by their means."""
    ranks = [_ranks(one), _ranks(other)]
    middle = (len(one) - 1) / 2
    above = sum((a - middle) * (b - middle) for a, b in zip(*ranks, strict=True))
    below = (sum((a - middle) ** 2 for a in ranks[0]) * sum((b - middle) ** 2 for b in ranks[1])) ** 0.5
    return float(above / below) if below else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(other < each for other in values) + (sum(other == each for other in values) - 1) / 2 for each in values]


def ranked(*, seed: int, rounds: int = ROUNDS, items: int = ITEMS) -> float:
    """Return how far the weights follow the truth of miners that are right in 30 to 90% of cases."""
    truths = [each / 100 for each in range(30, 91, 10)]
    players = [Player(f"m{n}", honest(truth), f"o{n}", satisfaction=0.5) for n, truth in enumerate(truths)]
    shares = earned(players, seed=seed, rounds=rounds, items=items)
    return spearman(truths, [shares[each.name] for each in players])


async def _copied() -> list[Figure]:
    """Measure what copying weights earns a validator, on the local chain."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        symbols = mock.patch.object(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", Path(folder) / "symbols.json")
        with symbols:
            for what, moves in (("change", copiers.moving), ("never change", copiers.standing)):
                ratios = []
                for seed in range(5):
                    subnet = await open_subnet(Path(folder) / f"{moves.__name__}{seed}.db")
                    try:
                        got = (await copiers.with_a_copier(subnet, epochs=EPOCHS, seed=seed, moves=moves)).dividends
                    finally:
                        await subnet.stop()
                    ratios.append(got[copiers.COPIER] / min(got[name] for name in copiers.HONEST))
                figures.append(
                    Figure(
                        subject=f"a validator that copies, where miners {what}", unit="", spread=Spread.of(ratios),
                        figure="its dividends, of the least that one who measures has",
                        target="< 1" if moves is copiers.moving else None,
                        met=max(ratios) < 1 if moves is copiers.moving else None,
                    )
                )  # fmt: skip
    return figures


def measure(options: Options) -> Result:
    """Simulate every cheat and the ranking, with ten seeds each."""
    begun = time.monotonic()
    correlations = [ranked(seed=seed) for seed in range(10)]
    figures = [
        Figure(
            subject="ranking: miners that know 30, 40 … 90%", figure="Spearman's correlation with the truth", unit="",
            spread=Spread.of(correlations), target="≥ 0.95", met=min(correlations) >= 0.95,
        )
    ]  # fmt: skip
    for cheat in cheats():
        pairs = [against_honest(cheat, seed=seed) for seed in range(10)]
        ratios = [of_cheat / of_honest if of_honest else 0.0 for of_cheat, of_honest in pairs]
        figures.append(
            Figure(
                subject=cheat, figure="earns, of what an honest miner of equal quality does", unit="",
                spread=Spread.of(ratios), target="< 1", met=max(ratios) < 1,
            )
        )  # fmt: skip
    figures += asyncio.run(_copied())
    return Result(
        name="rounds",
        title="Rounds, with miners that cheat",
        how=f"{ROUNDS} rounds of {ITEMS} questions, ten seeds; the rounds' own totals, averages, duplicates, weights",
        figures=tuple(figures),
        notes=(
            f"Simulated in {time.monotonic() - begun:.0f} s; no judge and no network, and a chain for the copying "
            "validator alone.",
            "A validator that copies sets the mean of what the two honest ones have on the local chain; all three "
            f"have the same stake, commit and reveal. {EPOCHS} epochs, after {copiers.WARM} in which bonds grow; five "
            "seeds. Commit-reveal hides weights for an epoch: where miners change meanwhile, copies are off; where "
            "nothing changes, they are as good.",
        ),
        command='make bench BENCH_ARGS="rounds"',
    )
