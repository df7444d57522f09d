"""What a receipt proves, offline: one named check after another, each with its own sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from neurons.receipts.metagraph import neuron_of
from neurons.receipts.metagraph_file import MetagraphFile
from neurons.receipts.receipt import Receipt

CLOCKS_APART_MS: Final = 120_000
"""A receipt may be so far ahead of the reader's clock."""
BLOCK_MS: Final = 12_000
_DAY_MS: Final = 86_400_000


class Outcome(StrEnum):
    """What came of a check."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a receipt was held against."""

    name: str
    outcome: Outcome
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the reader knows; None is not compared."""

    question: str | None = None
    """Digest, by `digests`."""
    answer: str | None = None
    """Digest, by `digests`."""
    twin: str | None = None
    adapter: str | None = None
    """Digest that the twin's version has, or `base`."""
    hotkey: str | None = None
    """The miner that was asked."""
    metagraph: MetagraphFile | None = None


def verify(receipt: Receipt, expected: Expected, *, now_ms: int) -> list[Check]:
    """Return all checks in the order in which they matter; `now_ms` in milliseconds since 1970 (UTC).

    A receipt whose signature is not its hotkey's says nothing that could be compared: the list ends there.
    """
    if not receipt.is_genuine():
        return [
            Check(
                "signature", Outcome.FAILS,
                f"The hotkey that it names, {receipt.hotkey}, did not sign this. Somebody else made the receipt, or "
                "changed it after it was signed.",
            )
        ]  # fmt: skip
    signed = Check("signature", Outcome.HOLDS, "The hotkey that it names signed all that it says.")
    return [
        signed,
        _time(receipt, now_ms),
        _question(receipt, expected.question),
        _answer(receipt, expected.answer),
        _weights(receipt, expected),
        _miner(receipt, expected),
    ]


def proves(checks: Sequence[Check]) -> bool:
    """Tell whether nothing that was asked fails."""
    return all(check.outcome is not Outcome.FAILS for check in checks)


def moment(time_ms: int) -> str:
    """Return a time as people read it; what no calendar holds as its number."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms after 1970"


def _time(receipt: Receipt, now_ms: int) -> Check:
    ahead = receipt.time - now_ms
    if ahead > CLOCKS_APART_MS:
        return Check(
            "time", Outcome.FAILS,
            f"It is dated in the future: {moment(receipt.time)}, {_span(ahead)} from now. The miner's clock is wrong, "
            "or it signed ahead; set your own clock right before you blame it.",
        )  # fmt: skip
    return Check("time", Outcome.HOLDS, f"It was signed at {moment(receipt.time)}.")


def _question(receipt: Receipt, digest: str | None) -> Check:
    if digest is None:
        return Check("question", Outcome.NOT_ASKED, "Not compared: give --question to prove what was asked.")
    if digest != receipt.question:
        return Check(
            "question", Outcome.FAILS,
            "It is the receipt of another question. The digest covers the whole conversation as it was sent, each "
            "character of it: give all messages, not the last one.",
        )  # fmt: skip
    return Check("question", Outcome.HOLDS, "It is the receipt of the question that you gave.")


def _answer(receipt: Receipt, digest: str | None) -> Check:
    beside = f" It doesn't cover what was said beside text: {', '.join(receipt.unsigned)}." if receipt.unsigned else ""
    if digest is None:
        return Check("answer", Outcome.NOT_ASKED, "Not compared: give --answer to prove what was answered." + beside)
    if digest != receipt.answer:
        several = f" It covers all {receipt.choices} choices together." if receipt.choices > 1 else ""
        return Check(
            "answer", Outcome.FAILS,
            "The answer was altered: these are not the words that the miner signed. Compare with what arrived, without "
            f"a line break that an editor added at its end.{several}",
        )  # fmt: skip
    again = " It was given before, and not made anew." if receipt.cached else ""
    return Check("answer", Outcome.HOLDS, "The answer is, word for word, what the miner signed." + again + beside)


def _weights(receipt: Receipt, expected: Expected) -> Check:
    said = f"the adapter {_short(receipt.adapter)}" if receipt.adapter else "the base model without an adapter"
    if expected.twin is not None and expected.twin != receipt.twin:
        return Check(
            "weights", Outcome.FAILS,
            f"Another doctor's twin answered: {receipt.twin}, and not {expected.twin}.",
        )  # fmt: skip
    if expected.adapter is None:
        return Check("weights", Outcome.NOT_ASKED, f"The miner says that {said} of {receipt.twin} answered.")
    if expected.adapter != (receipt.adapter or "base"):
        return Check(
            "weights", Outcome.FAILS,
            f"Another version of {receipt.twin} answered: {said}, and not the one that you gave, "
            f"{_short(expected.adapter)}. It may be an old one, or one on trial: `kubectl twin history` lists them.",
        )  # fmt: skip
    return Check("weights", Outcome.HOLDS, f"The version of {receipt.twin} that you gave answered: {said}.")


def _miner(receipt: Receipt, expected: Expected) -> Check:
    hotkey, metagraph = receipt.hotkey, expected.metagraph
    if expected.hotkey is not None and expected.hotkey != hotkey:
        return Check(
            "miner", Outcome.FAILS,
            f"It is signed by another miner, {hotkey}: you asked {expected.hotkey}. The receipt is genuine, and not "
            "the one of the miner that you asked.",
        )  # fmt: skip
    if metagraph is None:
        return Check("miner", Outcome.NOT_ASKED, "Not looked up: give --metagraph FILE to prove whose hotkey it is.")
    return _looked_up(receipt, metagraph)


def _looked_up(receipt: Receipt, metagraph: MetagraphFile) -> Check:
    hotkey, as_of = receipt.hotkey, f"subnet {metagraph.netuid} as of block {metagraph.block}"
    neuron = neuron_of(metagraph.neurons, hotkey)
    if neuron is None:
        older = 0 if metagraph.time is None else receipt.time - metagraph.time
        else_ = (
            f"one that registered later: the metagraph is {_span(older)} older than the receipt"
            if older > CLOCKS_APART_MS
            else "one that has left since"
        )
        why = (
            f"Its hotkey, {hotkey}, is nobody's on {as_of}: a stranger signed it, or a miner of another subnet, or "
            f"{else_}."
        )
        if any(each.coldkey == hotkey for each in metagraph.neurons):
            why = (
                f"It is signed by a coldkey of {as_of}, {hotkey}. No miner signs with one: its owner must move what it "
                "holds."
            )
        return Check("miner", Outcome.FAILS, why)
    found = f"Its hotkey is UID {neuron.uid} of {as_of}."
    if metagraph.time is not None:
        registered = metagraph.time - (metagraph.block - neuron.block_at_registration) * BLOCK_MS
        if receipt.time < registered - CLOCKS_APART_MS:
            return Check(
                "miner", Outcome.FAILS,
                f"Its hotkey was no miner's yet: UID {neuron.uid} of {as_of} was registered at block "
                f"{neuron.block_at_registration}, about {moment(registered)}, after this receipt.",
            )  # fmt: skip
        if (older := receipt.time - metagraph.time) > _DAY_MS:
            found += f" That metagraph is {_span(older)} older than the receipt: a newer one would prove more."
    return Check("miner", Outcome.HOLDS, found)


def _short(digest: str) -> str:
    return f"{digest[:19]}…" if len(digest) > 20 else digest


def _span(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"
