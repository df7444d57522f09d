"""What a round asks whom: from its seed, its set of questions, the ledger, the metagraph and what miners announce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger import Ledger
from neurons.ledger.records import AnyRecord, Miner, Round, RoundItem, RoundStep, Twin, derived_id
from neurons.ledger.rounds import Replay, finished_rounds, replays, round_rows
from neurons.validator.rounds.asking import Public
from neurons.validator.rounds.challenges import ChallengeSet, to_document
from neurons.validator.rounds.drawing import draw_challenges, replays_of
from neurons.validator.rounds.steps import Registered, Step, key, step_record

GOLD, ORGANIC = "gold", "organic"
CANARY: Final = "canary"
REPLAY_DAYS: Final = 30
"""Patients' questions of so many days are replayed."""
LATELY_ROUNDS: Final = 3
"""Questions of so many rounds before are asked again last."""
_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class TwinAsked:
    """A twin, and the miners that serve it."""

    twin: Twin
    miners: tuple[Miner, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """All that is written before anybody is asked."""

    items: tuple[RoundItem, ...]
    step: RoundStep

    def records(self, begun: Round) -> list[AnyRecord]:
        """Return what is written, together or not at all."""
        return [begun, *self.items, self.step]


def round_id_of(uid: str) -> str:
    """Return a round's id in the ledger: its object's UID, where that is a UUID."""
    try:
        Twin(uid=uid, name="-")
    except ValueError:
        return derived_id("round", uid)
    return uid


def begun(order: RoundOrder, validator: Miner, *, challenge_digest: str, at_ms: int) -> Round:
    """Return the record that a round began."""
    return Round(
        round_id=round_id_of(order.uid), name=order.name, validator=validator, seed=order.seed,
        challenge_digest=challenge_digest, at_ms=at_ms,
    )  # fmt: skip


async def plan(
    ledger: Ledger,
    order: RoundOrder,
    *,
    challenges: ChallengeSet,
    asked: Sequence[TwinAsked],
    registered: Registered,
    validator: Miner,
    addressed: int,
    at_ms: int,
) -> Planned:
    """Return the round's plan. The same ledger, order and miners give the same. Raises LedgerDown."""
    round_id = round_id_of(order.uid)
    database = ledger.database
    earlier = await finished_rounds(database, validator=validator, before_ms=at_ms, limit=LATELY_ROUNDS)
    lately: set[str] = set()
    for before, _ in earlier:
        for item in (await round_rows(database, before.round_id)).items:
            challenge = item.reference.get("challenge")
            if isinstance(challenge, Mapping):
                lately.add(str(challenge.get("id")))
    items: list[RoundItem] = []
    counts: dict[str, dict[str, int]] = {}
    for each in asked:
        # A miner's twin may be asked what its patients asked, and nothing of another's.
        found = await replays(
            database, twin_uid=each.twin.uid, since_ms=max(0, at_ms - REPLAY_DAYS * _DAY_MS), until_ms=at_ms
        )
        organic = sorted(found, key=lambda replay: derived_id(str(order.seed), replay.question.question_id))
        organic = organic[: replays_of(order.items_per_twin, len(found))]
        gold = draw_challenges(
            challenges.challenges, seed=order.seed, twin=each.twin.name, count=order.items_per_twin - len(organic),
            lately=frozenset(lately),
        )  # fmt: skip
        for challenge in gold:
            items.append(
                RoundItem(
                    item_id=derived_id("item", round_id, each.twin.uid, challenge.id), round_id=round_id,
                    twin=each.twin, kind=CANARY if challenge.known is not None else GOLD,
                    text=Public(challenge.prompt), at_ms=at_ms, reference={"challenge": to_document(challenge)},
                )
            )  # fmt: skip
        items += [_replayed(round_id, each.twin, replay, at_ms=at_ms) for replay in organic]
        counts[each.twin.name] = {GOLD: len(gold), ORGANIC: len(organic)}
    document: dict[str, Any] = {
        "format": "bettertherapy-round-plan/1",
        "order": order.model_dump(mode="json", by_alias=True),
        "validator": key(validator),
        "challengeDigest": challenges.digest,
        "items": counts,
        "registered": registered.to_document(),
        "asked": {each.twin.uid: [key(miner) for miner in each.miners] for each in asked},
        "addressed": addressed,
        "previous": earlier[0][0].round_id if earlier else None,
    }
    return Planned(tuple(items), step_record(round_id, Step.PLAN, document, at_ms=at_ms))


def _replayed(round_id: str, twin: Twin, replay: Replay, *, at_ms: int) -> RoundItem:
    question = replay.question
    reference: dict[str, Any] = {"replay": question.question_id}
    if replay.correction is not None:
        reference["corrected"] = replay.correction.text.text
    return RoundItem(
        item_id=derived_id("item", round_id, twin.uid, question.question_id), round_id=round_id, twin=twin,
        kind=ORGANIC, text=question.text, at_ms=at_ms, patient_id=question.patient_id, reference=reference,
    )  # fmt: skip
