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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from unittest import mock

import bittensor.config

from neurons.ledger.records import Miner
from neurons.validator.rounds.duplicates import Said, groups_of
from neurons.validator.rounds.grades import length_factor, worth
from neurons.validator.rounds.marks import counted
from neurons.validator.rounds.rewards import (
    WHOLE,
    Entrant,
    Parts,
    Shares,
    Unpaid,
    filled,
    moving,
    reward,
    total_of,
    usual,
)
from neurons.validator.rounds.speed import how_fast
from neurons.validator.rounds.steps import milli
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
OPEN: Final = 0.5
"""Share of the questions that nobody can grade, where there are such: open ones, and no judge."""
KNOWN_ERRORS: Final = 2 / 3
"""Of its errors, so many a miner foresees."""
NEEDED: Final = 30
"""Words that an answer takes."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer in a simulation."""

    right: bool
    text: str | None
    """None: it didn't answer."""
    seconds: float
    proven: bool = True
    measured: Measured | None = None
    gradable: bool = True
    """False: it holds something that keeps it from the judge."""


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
    rated: bool = True
    """False: it serves a twin without patients, so that neither its speed nor its satisfaction is measured."""
    leaves: int = ROUNDS
    """From this round on it is away."""
    renews: int = ROUNDS
    """After so many rounds it registers anew."""


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
    assert seen.text is not None
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


def unanswering(draw: random.Random, _round: int, item: int, _seen: Answered | None) -> Answered:
    """Answer nothing that one would be wrong about, of what can be graded: two of three such errors are foreseen."""
    right = draw.random() < QUALITY
    silent = not right and draw.random() < KNOWN_ERRORS and _is_gradable(item, OPEN)
    return Answered(right, None if silent else says(draw), 2.0, measured=genuine(draw))


def withholding(draw: random.Random, _round: int, _item: int, _seen: Answered | None) -> Answered:
    """Put a telephone number into what one would be wrong about, so that it is sent to no judge."""
    right = draw.random() < QUALITY
    return Answered(
        right, says(draw), 2.0, measured=genuine(draw), gradable=right or draw.random() > KNOWN_ERRORS
    )  # fmt: skip


def halved(half: int) -> Play:
    """Answer every other question, and leave the others to one's second hotkey."""

    def play(draw: random.Random, number: int, item: int, seen: Answered | None) -> Answered:
        own = honest()(draw, number, item, seen)
        return own if item % 2 == half else replace(own, text=None)

    return play


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
        "absent": [Player("absent", honest(), "c", leaves=5)],
        "renewed": [Player("renewed", honest(), "c", renews=10)],
        "halved": [Player(f"half{half}", halved(half), f"c{half}") for half in range(2)],
    }


def neutral() -> dict[str, list[Player]]:
    """Return what makes a miner measured less than others, and must earn no more than to be measured."""
    return {
        "unanswering": [Player("unanswering", unanswering, "c")],
        "withholding": [Player("withholding", withholding, "c")],
        "unmeasured": [Player("unmeasured", honest(), "c", rated=False)],
        # An engine that answers two has twice the work, and what it says is drawn anew for each.
        "one engine, two owners": [Player(f"shared{n}", honest(seconds=4.0), f"c{n}") for n in range(2)],
    }


@dataclass(slots=True)
class Seen:
    """What one round saw of its miners, by their names."""

    said: list[Mapping[str, Answered]] = field(default_factory=list)
    """By question."""
    gradable: list[bool] = field(default_factory=list)
    """Whether anybody could grade an answer to that question."""

    def answers(self, name: str) -> list[Answered]:
        """Return what one answered and proved."""
        return [said[name] for said in self.said if name in said and said[name].text is not None and said[name].proven]


def earned(
    players: Sequence[Player], *, seed: int, rounds: int = ROUNDS, items: int = ITEMS, ungraded: float = 0.0
) -> dict[str, float]:
    """Return each player's mean share of the weights over the rounds; `ungraded`: share of the questions."""
    draw = random.Random(seed)
    averages: dict[Miner, float] = {}
    shares = {player.name: 0.0 for player in players}
    for number in range(rounds):
        miners = {
            player.name: Miner(hotkey=hotkey(n), registered_block=100 + n + 1000 * (number // player.renews))
            for n, player in enumerate(players)
        }
        entrants = [Entrant(miner=miners[p.name], uid=n, coldkey=p.owner) for n, p in enumerate(players)]
        seen = _asked(draw, players, number, items=items, ungraded=ungraded)
        totals, disqualified = _totals(seen, players, miners, number)
        for miner, total in totals.items():
            if (found := moving(averages.get(miner), total, alpha=0.3)) is not None:
                averages[miner] = found
        texts = [
            {
                miners[name]: Said(each.text, round(1000 * each.seconds))
                for name, each in said.items()
                if each.proven and each.text is not None
            }
            for said in seen.said
        ]
        rewards = reward(
            averages, entrants, top=100, owner_coldkey="the owner", disqualified=disqualified, groups=groups_of(texts)
        )
        for name, miner in miners.items():
            shares[name] += rewards.of[miner].weight / WHOLE / rounds if miner in rewards.of else 0.0
    return shares


def _asked(
    draw: random.Random, players: Sequence[Player], number: int, *, items: int, ungraded: float
) -> Seen:  # fmt: skip
    seen = Seen()
    for item in range(items):
        said: dict[str, Answered] = {}
        for player in players:
            if number < player.leaves:
                said[player.name] = player.play(draw, number, item, said.get(player.copies or ""))
        seen.said.append(said)
        seen.gradable.append(_is_gradable(item, ungraded))
    return seen


def _is_gradable(item: int, ungraded: float) -> bool:
    return int(item * ungraded) == int((item + 1) * ungraded)


def _totals(
    seen: Seen, players: Sequence[Player], miners: Mapping[str, Miner], number: int
) -> tuple[dict[Miner, float | None], dict[Miner, Unpaid]]:
    """Return what each miner's round comes to, and who is paid nothing."""
    there = [player for player in players if number < player.leaves]
    marks = counted(
        (_worths(seen, place, miners), [miners[each.name] for each in there]) for place in range(len(seen.said))
    )
    answered = {player.name: seen.answers(player.name) for player in there}
    parts: dict[str, Parts] = {}
    disqualified: dict[Miner, Unpaid] = {}
    for player in there:
        name, seconds = player.name, sorted(each.seconds for each in answered[player.name])
        parts[name] = Parts(
            correctness=marks[miners[name]].correctness if miners[name] in marks else None,
            speed=how_fast(seconds[len(seconds) // 2] if seconds else 30.0) if player.rated else None,
            satisfaction=player.satisfaction if player.rated else None,
        )
        sample = [each.measured for each in answered[name] if each.measured is not None][:8]
        if judge_weights(sample).weights is Weights.OTHERS:
            disqualified[miners[name]] = Unpaid.OTHER_WEIGHTS
        if any(not said[name].proven for said in seen.said):
            disqualified[miners[name]] = Unpaid.UNPROVEN
    middle = usual(parts.values())
    totals: dict[Miner, float | None] = dict.fromkeys(miners.values(), 0.0)  # of who is away, and others are there
    for player in there:
        miner = miners[player.name]
        shares = [len(answered[player.name]) / len(seen.said)]
        if miner in marks and (of_graded := marks[miner].answered) is not None:
            shares.append(of_graded)
        total = total_of(filled(parts[player.name], middle), Shares(), answered=min(shares))
        totals[miner] = 0.0 if miner in disqualified else total
    return totals, disqualified


def _worths(seen: Seen, place: int, miners: Mapping[str, Miner]) -> dict[Miner, int | None]:
    """Return what the answers to one question are worth."""
    found: dict[Miner, int | None] = {}
    for name, each in seen.said[place].items():
        if each.text is None or not each.proven:
            continue
        length = length_factor(len(each.text.split()), NEEDED)
        value = worth(float(each.right), None, length=length, fabricated=False)
        found[miners[name]] = milli(value) if seen.gradable[place] and each.gradable else None
    return found


def against_honest(cheat: str, *, seed: int, rounds: int = ROUNDS, items: int = ITEMS) -> tuple[float, float]:
    """Return the most that one of the cheats earns, and what an equally good honest miner does that nobody copies."""
    others = {**cheats(), **neutral()}[cheat]
    players = [Player("honest", honest(), "h"), Player("equal", honest(), "e"), *others]
    ungraded = OPEN if cheat == "unanswering" else 0.0  # by answering these it would make up for its silence
    shares = earned(players, seed=seed, rounds=rounds, items=items, ungraded=ungraded)
    return max(shares[each.name] for each in others), shares["equal"]


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
    for what in neutral():
        pairs = [against_honest(what, seed=seed) for seed in range(10)]
        spread = Spread.of([each / of_honest for each, of_honest in pairs])
        figures.append(
            Figure(
                subject=what, figure="one earns, of what an honest miner does that is measured", unit="", spread=spread,
                target="≤ 1.1 in the middle", met=spread.median <= 1.1,
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
