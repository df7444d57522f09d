"""A round in this process: a ledger in a file, miners that only play, everything else as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger import Ledger, Miner, RoundAnswer, RoundItem, Written
from neurons.validator.rounds.asking import Public, answer_id
from neurons.validator.rounds.challenges import ChallengeSet, load_challenges
from neurons.validator.rounds.progress import Progress, Remembered
from neurons.validator.rounds.prometheus import Readings
from neurons.validator.rounds.rewards import Entrant
from neurons.validator.rounds.round import Means, RoundRun
from neurons.validator.rounds.scoring import Scorer, challenge_of
from neurons.validator.rounds.speed import Speed
from neurons.validator.rounds.steps import Registered
from tests.unit.rounds.people import SAMPLE, STARTED_MS, TWIN, miner, order

VALIDATOR = miner(99)
Says = Callable[[RoundItem], str | None]


def right(item: RoundItem) -> str | None:
    challenge = challenge_of(item)
    if challenge is None:
        return "Rest and drink enough; see your doctor if it gets worse."
    if challenge.kind == "choice":
        return f"It is best to {challenge.options[challenge.answer]}."
    if challenge.kind == "gold":
        return challenge.gold
    return challenge.known.good if challenge.known is not None else challenge.reference


def wrong(item: RoundItem) -> str | None:
    challenge = challenge_of(item)
    if challenge is not None and challenge.kind == "choice":
        other = next(text for letter, text in sorted(challenge.options.items()) if letter != challenge.answer)
        return f"It is best to {other}."
    return "Nobody can know that."


@dataclass
class PlayedSubnet:
    """Miners by what they say; `neurons` can change between two looks."""

    says: dict[Miner, Says]
    neurons: list[Entrant]
    later: list[Entrant] | None = None
    """What the metagraph is from the second look on."""
    owner_coldkey: str = "the owner"
    serves: Mapping[str, Collection[Miner]] = field(default_factory=dict)
    """Who serves a twin; of one that isn't named all do."""
    looks: int = 0

    @property
    def addressed(self) -> int:
        return len(self.says)

    async def look(self) -> Registered:
        self.looks += 1
        neurons = self.neurons if self.looks == 1 or self.later is None else self.later
        return Registered(1000 + self.looks, self.owner_coldkey, tuple(neurons))

    def followed(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def serving(self, twin: str) -> Mapping[Miner, Any]:
        there = self.serves.get(twin, self.says)
        return {each: each for each in self.says if each in there}

    def parents(self, twin: str) -> Mapping[Miner, str | None]:
        return dict.fromkeys(self.says)


@dataclass
class PlayedExaminer:
    """Asks nobody: it answers as each miner plays."""

    subnet: PlayedSubnet
    asked: list[str] = field(default_factory=list)

    async def ask(self, round_id: str, item: RoundItem, members: Sequence[Any]) -> list[RoundAnswer]:
        self.asked.append(item.item_id)
        return [self._answer(round_id, item, each, place) for place, each in enumerate(members)]

    def _answer(self, round_id: str, item: RoundItem, who: Miner, place: int) -> RoundAnswer:
        text = self.subnet.says[who](item)
        return RoundAnswer(
            answer_id=answer_id(round_id, item, who), item_id=item.item_id, round_id=round_id, twin=item.twin,
            miner=who, at_ms=STARTED_MS + 1, latency_ms=100 + place, patient_id=item.patient_id,
            text=None if text is None or text == "forged" else Public(text),
            failure="late" if text is None else "forged" if text == "forged" else "",
            receipt_valid=False if text == "forged" else None if text is None else True,
        )  # fmt: skip


class Killed(Exception):  # noqa: N818
    """The process is gone."""


class MortalLedger(Ledger):
    """Dies at its nth write, before or after it is there."""

    dies_at = 0
    committed = False
    writes = 0

    async def record(self, *records: Any) -> Written:
        self.writes += 1
        dies = self.writes == self.dies_at
        if dies and not self.committed:
            raise Killed
        written = await super().record(*records)
        if dies:
            raise Killed
        return written


def means(ledger: Ledger, subnet: PlayedSubnet, **changes: Any) -> Means:
    async def speeds() -> Readings:
        return Readings(True, "the newest metrics are 3 s old", {each: Speed(0.8, 2.0, 20, 20) for each in subnet.says})

    async def trust() -> float | None:
        return 0.75

    def challenges() -> ChallengeSet:
        return load_challenges(SAMPLE)

    given: dict[str, Any] = {
        "ledger": ledger, "subnet": subnet, "examiner": PlayedExaminer(subnet),
        "scorer": Scorer(judge=None, sources={}), "speeds": speeds, "challenges": challenges,
        "validator": lambda seen: VALIDATOR, "trust": trust, "twins": lambda: {TWIN.name: TWIN},
    }  # fmt: skip
    return Means(**(given | changes))


def played(*says: Says, later: list[Entrant] | None = None, miners: Sequence[Miner] | None = None) -> PlayedSubnet:
    miners = miners or [miner(number) for number in range(len(says))]
    neurons = [Entrant(miner=each, uid=uid, coldkey=f"owner-{uid}") for uid, each in enumerate(miners)]
    return PlayedSubnet(dict(zip(miners, says, strict=True)), neurons, later)


def run(given: Means, wanted: RoundOrder | None = None, teller: Remembered | None = None) -> RoundRun:
    return RoundRun(wanted or order(), given, Progress(teller or Remembered(), attempt="pod-1"))
