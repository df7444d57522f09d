"""Put a receipt on each answer: a header of a whole one, the last event before `[DONE]` of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bettertherapy_api.names import RECEIPT_HEADER
from neurons.miner.asked import EngineRequest
from neurons.miner.tables import VersionRoute
from neurons.miner.transcript import DONE, Transcript, event_bytes
from neurons.receipts import ReceiptSigner, answer_of

_END: Final = b"data: " + DONE
_END_TIGHT: Final = b"data:" + DONE
_TEXT: Final = frozenset({"role", "content"})


class Stamper:
    """Signs what went out, once it is complete; an answer that broke off gets no receipt."""

    def __init__(
        self,
        signer: ReceiptSigner,
        *,
        base: Callable[[], Mapping[str, str | None]],
        signed: Callable[[], None] = lambda: None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`base` has name and revision of the pool's base model; `signed` is called for each receipt."""
        self._signer, self._base, self._signed, self._clock_ns = signer, base, signed, clock_ns

    def headers(
        self, asked: EngineRequest, version: VersionRoute, document: Mapping[str, Any], *,
        measured: str | None, cached: bool = False,
    ) -> dict[str, str]:  # fmt: skip
        """Return the headers that a whole answer gets.

        `document`: the answer as the engine gave it, before its form is changed for the client. `measured`: digest of
        the base model of the pod that gave it; None where nobody measured it.
        """
        question = asked.question()
        said = _said(document) if question is not None else None
        if question is None or said is None:
            return {}
        texts, beside = said
        return {RECEIPT_HEADER: self._sign(question, version, texts, beside, measured=measured, cached=cached)}

    def lines(
        self, lines: bytes, asked: EngineRequest, version: VersionRoute, transcript: Transcript, *,
        measured: str | None, cached: bool = False,
    ) -> bytes:  # fmt: skip
        """Return a stream's whole lines with the receipt before `[DONE]`, if that is in them.

        `transcript` holds all that the client got, these lines included: also what another pod said before. `measured`:
        digest of the base model of all pods that gave it.
        """
        at = _end_of(lines)
        if at is None or (question := asked.question()) is None:
            return lines
        receipt = self._sign(question, version, transcript.texts, transcript.beside, measured=measured, cached=cached)
        return lines[:at] + event_bytes(_event(transcript, receipt)) + lines[at:]

    def _sign(
        self, question: str, version: VersionRoute, texts: list[str], beside: set[str], *,
        measured: str | None, cached: bool,
    ) -> str:  # fmt: skip
        receipt = self._signer.sign(
            question=question,
            answer=answer_of(texts),
            choices=len(texts),
            unsigned=tuple(sorted(beside)),
            twin=version.twin,
            adapter=version.digest,
            base={**self._base(), "digest": measured},
            cached=cached,
            time_ms=self._clock_ns() // 1_000_000,
        )
        self._signed()
        return receipt


def _event(transcript: Transcript, receipt: str) -> dict[str, Any]:
    """Return the receipt as a chunk that says nothing: clients that read `choices[0]` of every chunk find one."""
    head = transcript.head or {}
    empty: dict[str, Any] = {"delta": {}} if str(head.get("object", "")).startswith("chat") else {"text": ""}
    choice = {"index": 0, **empty, "logprobs": None, "finish_reason": None}
    return {**head, "choices": [choice], "bettertherapy": {"receipt": receipt}}


def is_end(lines: bytes) -> bool:
    """Tell whether whole lines hold a stream's `[DONE]`."""
    return _end_of(lines) is not None


def _end_of(lines: bytes) -> int | None:
    """Return where the line `data: [DONE]` begins; inside an event's JSON no line can begin."""
    if DONE not in lines:
        return None
    for mark in (_END, _END_TIGHT):
        if lines.startswith(mark):
            return 0
        if (at := lines.rfind(b"\n" + mark)) >= 0:
            return at + 1
    return None


def _said(document: Mapping[str, Any]) -> tuple[list[str], set[str]] | None:
    """Return each choice's text, and what was said beside text; None for a document that is no answer."""
    try:
        choices = document["choices"]
        texts, beside = [], set()
        for choice in sorted(choices, key=lambda choice: choice.get("index", 0)):
            message = choice.get("message")
            text = choice.get("text") if message is None else message.get("content")
            texts.append(text if isinstance(text, str) else "")
            beside |= {name for name, value in (message or {}).items() if value and name not in _TEXT}
    except (LookupError, TypeError, AttributeError):
        return None
    return (texts, beside) if texts else None
