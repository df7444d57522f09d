"""A miner's answer, held against what was asked of whom: what its receipt doesn't prove is discarded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from bettertherapy_api import names
from neurons.receipts import Receipt, ReceiptError, answer_of, decode

CLOCKS_APART_MS: Final = 120_000
"""A receipt's time may be so far from ours before the question and after the answer."""
FINISH_REASONS: Final = frozenset({"stop", "length", "content_filter"})


class Reason(StrEnum):
    """Why an answer isn't used. A metric's label, and what the ledger keeps."""

    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    """The connection broke, or what came is no HTTP."""
    LATE = "late"
    BUSY = "busy"
    """It said so: 429, or 503 with a time."""
    REFUSED = "refused"
    """Another 4xx: this question, not this miner."""
    ERROR = "error"
    """A 5xx."""
    TOO_LARGE = "tooLarge"
    NO_ROOM = "noRoom"
    """This gateway's memory, or its client's share of it, had no room for it."""
    NO_ANSWER = "noAnswer"
    """A 200 that is no answer."""
    EMPTY = "empty"
    NO_RECEIPT = "noReceipt"
    FORGED = "forged"
    """The receipt is not signed by whom it names."""
    OTHER_HOTKEY = "otherHotkey"
    OTHER_QUESTION = "otherQuestion"
    OTHER_ANSWER = "otherAnswer"
    OTHER_TWIN = "otherTwin"
    OLD_RECEIPT = "oldReceipt"
    UNANNOUNCED = "unannounced"
    """By weights that the miner didn't announce for the twin."""
    NOT_APPROVED = "notApproved"
    """By weights that this validator's file doesn't name for the twin."""


DISHONEST: Final = frozenset(
    {
        Reason.NO_RECEIPT, Reason.FORGED, Reason.OTHER_HOTKEY, Reason.OTHER_QUESTION, Reason.OTHER_ANSWER,
        Reason.OTHER_TWIN, Reason.OLD_RECEIPT, Reason.UNANNOUNCED, Reason.NOT_APPROVED, Reason.TOO_LARGE,
    }
)  # fmt: skip
"""What no accident of a network does."""
NOT_ITS_FAULT: Final = frozenset({Reason.BUSY, Reason.REFUSED, Reason.NO_ROOM})


class Discarded(Exception):  # noqa: N818 - said of an answer
    """The answer isn't used."""

    def __init__(self, reason: Reason, *, retry_after: float | None = None, adapter: str | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds, of one that is busy."""
        self.adapter = adapter
        """The weights that its receipt names, where that is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a proven answer says."""

    text: str
    finish_reason: str
    tokens: tuple[int, int] | None
    """Of prompt and answer, as the miner counts."""
    receipt: Receipt
    encoded: str
    """The receipt as it came."""


def read_answer(
    body: bytes, headers: Mapping[str, str], *, hotkey: str, question: str, twin: str, asked_ms: int
) -> Words:
    """Return what is said and proven; raises Discarded. Whether the weights may answer is the caller's to judge.

    Only the text is taken, because only the text is signed: what else stands in the document isn't the miner's word.
    """
    text, finish, tokens = _document(body)
    encoded = headers.get(names.RECEIPT_HEADER)
    if not encoded:
        raise Discarded(Reason.NO_RECEIPT)
    try:
        receipt = decode(encoded)
    except ReceiptError:
        raise Discarded(Reason.NO_RECEIPT) from None
    if receipt.hotkey != hotkey:
        raise Discarded(Reason.OTHER_HOTKEY)
    if receipt.question != question:
        raise Discarded(Reason.OTHER_QUESTION)
    if receipt.twin != twin:
        raise Discarded(Reason.OTHER_TWIN)
    if receipt.choices != 1 or receipt.answer != answer_of([text]):
        raise Discarded(Reason.OTHER_ANSWER)
    now_ms = time.time_ns() // 1_000_000
    if not asked_ms - CLOCKS_APART_MS <= receipt.time <= now_ms + CLOCKS_APART_MS:
        raise Discarded(Reason.OLD_RECEIPT)
    if not receipt.is_genuine():  # the dearest last
        raise Discarded(Reason.FORGED)
    if not text.strip():
        raise Discarded(Reason.EMPTY)
    return Words(text=text, finish_reason=finish, tokens=tokens, receipt=receipt, encoded=encoded)


def _document(body: bytes) -> tuple[str, str, tuple[int, int] | None]:
    try:
        document = orjson.loads(body)
        [choice] = document["choices"]
        text = choice["message"]["content"]
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        raise Discarded(Reason.NO_ANSWER) from None
    if text is None:
        raise Discarded(Reason.EMPTY)
    if not isinstance(text, str):
        raise Discarded(Reason.NO_ANSWER)
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and finish in FINISH_REASONS else "stop"
    return text, finish, _tokens(document.get("usage"))


def _tokens(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 for count in counts):
        return None
    return counts  # type: ignore[return-value]
