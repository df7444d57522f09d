"""One question to a registered miner, as a validator puts it: signed, and the answer held against its receipt."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from bettertherapy_api import names
from bettertherapy_api.faults import printable
from neurons.receipts import (
    Expected,
    MetagraphFile,
    NeuronEntry,
    Outcome,
    ReceiptError,
    answer_of,
    decode,
    question_of_messages,
    verify,
)
from neurons.subnet.announced import refusal_text
from neurons.subnet.errors import SubnetError
from neurons.wire.announcement import Announcement
from neurons.wire.signer import RequestSigner, signed_request

PATH: Final = "/v1/chat/completions"
SECONDS: Final = 120.0
MAX_BYTES: Final = 1024 * 1024
_OF_A_TEXT: Final = "\n\t\u200c\u200d"
"""Without the joiners some words in Devanagari are others."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A proven answer, and all that is needed to prove it again."""

    uid: int
    hotkey: str
    axon: str
    twin: str
    adapter: str | None
    """Digest of the weights that answered, announced and signed; None: the base model itself."""
    messages: list[dict[str, str]]
    """What was asked, as the receipt's digest covers it."""
    answer: str
    receipt: str
    """As the header carries it."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def miner_of(
    twin: str, neurons: Sequence[NeuronEntry], said: Mapping[str, Announcement | str], *, hotkey: str | None = None
) -> tuple[NeuronEntry, Announcement]:
    """Return the first miner that announces the twin, or the one of this hotkey.

    Raises:
        SubnetError: none does; with what each said instead.
    """
    reasons: list[str] = []
    for neuron in neurons:
        if hotkey is not None and neuron.hotkey != hotkey:
            continue
        announced = said.get(neuron.hotkey, "it serves nowhere")
        if isinstance(announced, str):
            reasons.append(f"UID {neuron.uid}: {announced}")
        elif any(version.pods for each in announced.twins if each.name == twin for version in each.versions):
            return neuron, announced
        else:
            reasons.append(f"UID {neuron.uid}: it announces {', '.join(t.name for t in announced.twins) or 'no twin'}")
    if hotkey is not None and not reasons:
        raise SubnetError(
            f"No miner of this subnet has the hotkey {hotkey}: give one whole, as `kubectl twin miners -o wide` prints "
            "it."
        )
    none = f"The miner {hotkey} doesn't announce" if hotkey is not None else "No miner announces"
    raise SubnetError(f"{none} {twin} now. {'; '.join(reasons) or 'Nobody is registered'}.")


async def ask(
    metagraph: MetagraphFile,
    neuron: NeuronEntry,
    announced: Announcement,
    signer: RequestSigner,
    *,
    twin: str,
    text: str,
    max_tokens: int,
    temperature: float | None = None,
    seconds: float = SECONDS,
) -> Answered:
    """Ask and check.

    Raises:
        SubnetError: there is no answer, or its receipt doesn't prove what the miner announced.
    """
    messages = [{"role": "user", "content": text}]
    document: dict[str, Any] = {"model": twin, "messages": messages, "max_tokens": max_tokens}
    if temperature is not None:
        document["temperature"] = temperature
    begun = time.monotonic()
    body, receipt = await _exchange(neuron, signer, json.dumps(document).encode(), seconds=seconds)
    taken = time.monotonic() - begun
    answer = _text(body)
    try:
        signed = decode(receipt)
    except ReceiptError as error:
        raise SubnetError(f"The answer is discarded: {error}") from None
    expected = Expected(
        question=question_of_messages(messages),
        answer=answer_of([answer]),
        twin=twin,
        hotkey=neuron.hotkey,
        metagraph=metagraph,
    )
    failed = [
        check.sentence
        for check in verify(signed, expected, now_ms=time.time_ns() // 1_000_000)
        if check.outcome is Outcome.FAILS
    ]
    if not failed and not announced.holds(twin, signed.adapter):
        failed = [f"{signed.adapter or 'the base model'} answered, which the miner does not announce for {twin}."]
    if failed:
        raise SubnetError(f"The answer is discarded: {' '.join(failed)}")
    return Answered(
        uid=neuron.uid,
        hotkey=neuron.hotkey,
        axon=neuron.axon or "",
        twin=twin,
        adapter=signed.adapter,
        messages=messages,
        answer=answer,
        receipt=receipt,
        seconds=taken,
    )


def text_of(answered: Answered) -> str:
    """Return answer and receipt for a person."""
    weights = answered.adapter or "the base model itself"
    return (
        f"{printable(answered.answer.strip(), but=_OF_A_TEXT)}\n\n"
        f"UID {answered.uid} at {answered.axon}, {answered.seconds:.1f} s, by {weights}\n"
        f"Receipt: {answered.receipt}\n"
    )


async def _exchange(neuron: NeuronEntry, signer: RequestSigner, body: bytes, *, seconds: float) -> tuple[bytes, str]:
    """Return an answer's body and receipt; what comes is bounded, and no redirect is followed."""
    if not neuron.axon:
        raise SubnetError(f"UID {neuron.uid} serves nowhere: the chain has no address for it.")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session,
            signed_request(
                session,
                signer,
                method="POST",
                url=URL(f"http://{neuron.axon}{PATH}"),
                receiver=neuron.hotkey,
                body=body,
            ) as response,
        ):
            data = b""
            while len(data) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES + 1)):
                data += more
            status, receipt = response.status, response.headers.get(names.RECEIPT_HEADER)
    except TimeoutError:
        raise SubnetError(f"UID {neuron.uid} did not answer within {seconds:g} s.") from None
    except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError, ValueError) as error:
        raise SubnetError(f"UID {neuron.uid} can't be reached at {neuron.axon}: {type(error).__name__}.") from None
    if len(data) > MAX_BYTES:
        raise SubnetError(f"UID {neuron.uid} answered more than {MAX_BYTES} bytes.")
    if status != 200:
        raise SubnetError(f"UID {neuron.uid} answered {status}: {refusal_text(data)}")
    if not receipt:
        raise SubnetError("The answer is discarded: it came without a receipt.")
    return data, receipt


def _text(body: bytes) -> str:
    try:
        [choice] = orjson.loads(body)["choices"]  # not Python's: of what it reads, not all has a digest
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise SubnetError("The answer is discarded: it is no chat completion.")
    return text
