"""Asks miners a round's questions by the gateway's own way: the same path, headers, body and patience."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from neurons.ledger.records import Miner, RoundAnswer, RoundItem, Scrubbed, derived_id
from neurons.validator.gateway.asking import Asker, Failed, Proven, Question
from neurons.validator.gateway.checking import Reason
from neurons.validator.gateway.recording import Scrubber, Withheld
from neurons.validator.gateway.request import ChatAsked, parse
from neurons.validator.gateway.roster import Member
from neurons.validator.rounds.steps import key

UNPROVEN: Final = frozenset(
    {
        Reason.NO_RECEIPT, Reason.FORGED, Reason.OTHER_HOTKEY, Reason.OTHER_QUESTION, Reason.OTHER_ANSWER,
        Reason.OTHER_TWIN, Reason.OLD_RECEIPT,
    }
)  # fmt: skip
"""What came with a receipt that doesn't prove it. Who does that earns nothing."""


@dataclass(frozen=True, slots=True)
class Public:
    """A text of no patient: a question of a set, or an answer to one. Implements the ledger's `Scrubbed`."""

    text: str
    scrubbed_by: str = "public/1"


def request_of(twin: str, text: str) -> ChatAsked:
    """Return a question as the gateway reads it from a patient's client."""
    return parse(orjson.dumps({"model": twin, "messages": [{"role": "user", "content": text}]}))


def question_of(round_id: str, item: RoundItem) -> Question:
    """Return what is sent for an item, made by the gateway's own code."""
    asked = request_of(item.twin.name, item.text.text)
    body, digest = asked.to_miners(asked.messages)
    # As a session's id would: sixteen bytes that say nothing; of a round killed and begun again the same.
    conversation = hashlib.sha256(f"{round_id}\x1f{item.item_id}".encode()).hexdigest().encode()
    return Question(twin=asked.twin, body=body, digest=digest, messages=asked.messages, conversation=conversation)


class Examiner:
    """Asks the miners of a round, and returns what the ledger keeps of their answers."""

    def __init__(
        self,
        asker: Asker,
        *,
        scrub: Scrubber | None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`scrub` takes identifiers out of answers to patients' questions; None withholds these."""
        self._asker, self._scrub, self._now_ms = asker, scrub, now_ms

    async def ask(self, round_id: str, item: RoundItem, members: Sequence[Member]) -> list[RoundAnswer]:
        """Ask one item of all its miners side by side; returns an answer or a failure for each of them."""
        replies = await self._asker.ask_each(question_of(round_id, item), members)
        at_ms = self._now_ms()
        texts = await self._kept(item, replies.answers)
        return [
            *(_answered(round_id, item, each, texts[each.words.text], at_ms=at_ms) for each in replies.answers),
            *(_failed(round_id, item, each, at_ms=at_ms) for each in replies.failures),
        ]

    async def _kept(self, item: RoundItem, answers: Iterable[Proven]) -> Mapping[str, Scrubbed]:
        said = dict.fromkeys(each.words.text for each in answers)
        if item.patient_id is None:
            return {text: Public(text) for text in said}
        return {text: await asyncio.to_thread(self._clean, text) for text in said}

    def _clean(self, text: str) -> Scrubbed:
        if self._scrub is None:
            return Withheld()
        try:
            return self._scrub(text)
        except Exception:  # noqa: BLE001 - whatever it is, the text isn't kept
            return Withheld()


def members_of(members: Iterable[Member]) -> dict[Miner, Member]:
    """Return the members by who they are."""
    return {Miner(hotkey=each.identity.hotkey, registered_block=each.identity.registered_at): each for each in members}


def not_reached(round_id: str, item: RoundItem, miner: Miner, *, at_ms: int) -> RoundAnswer:
    """Return the record of a miner that isn't there any more, or was registered anew, before it was asked."""
    return RoundAnswer(
        answer_id=answer_id(round_id, item, miner), item_id=item.item_id, round_id=round_id, twin=item.twin,
        miner=miner, at_ms=at_ms, latency_ms=0, patient_id=item.patient_id, failure=Reason.UNREACHABLE.value,
    )  # fmt: skip


def answer_id(round_id: str, item: RoundItem, miner: Miner) -> str:
    """Return the id of what a miner answers to an item."""
    return derived_id("round-answer", round_id, item.item_id, key(miner))


def _answered(round_id: str, item: RoundItem, proven: Proven, text: Scrubbed, *, at_ms: int) -> RoundAnswer:
    miner = _miner(proven.member)
    return RoundAnswer(
        answer_id=answer_id(round_id, item, miner), item_id=item.item_id, round_id=round_id, twin=item.twin,
        miner=miner, at_ms=at_ms, latency_ms=round(proven.seconds * 1000), patient_id=item.patient_id, text=text,
        adapter_digest=proven.words.receipt.adapter, receipt=proven.words.encoded, receipt_valid=True,
    )  # fmt: skip


def _failed(round_id: str, item: RoundItem, failed: Failed, *, at_ms: int) -> RoundAnswer:
    miner = _miner(failed.member)
    return RoundAnswer(
        answer_id=answer_id(round_id, item, miner), item_id=item.item_id, round_id=round_id, twin=item.twin,
        miner=miner, at_ms=at_ms, latency_ms=round(failed.seconds * 1000), patient_id=item.patient_id,
        failure=failed.reason.value, receipt_valid=False if failed.reason in UNPROVEN else None,
    )  # fmt: skip


def _miner(member: Member) -> Miner:
    return Miner(hotkey=member.identity.hotkey, registered_block=member.identity.registered_at)
