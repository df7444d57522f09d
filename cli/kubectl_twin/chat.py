"""One question over a forwarded connection: a chat completion, whole or as it arrives, and what came with it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubectl_twin import sse
from kubectl_twin.api import Json
from kubectl_twin.errors import TwinCliError
from kubectl_twin.forward import Forward

_MOST_OF_A_REFUSAL = 65536


@dataclass(frozen=True)
class Asked:
    """What is sent, and in whose name failures are told."""

    body: Json
    token: str
    headers: Mapping[str, str]
    timeout_seconds: float
    """Longest silence, before the first text and between two."""
    far_end: str
    """Who is asked, as `pool X's miner`."""
    silence: str
    """What to say when nothing comes."""


@dataclass(frozen=True)
class Said:
    """What came back."""

    text: str
    headers: http.client.HTTPMessage
    """Names in any case."""
    extension: Json
    """What stood under `bettertherapy`; empty where nothing did."""
    first_token_seconds: float | None
    """From sending the request to the first text; None without streaming."""
    seconds: float
    tokens: int | None
    finish_reason: str | None


def body_of(twin: str, messages: list[Json], *, max_tokens: int, temperature: float | None, stream: bool) -> Json:
    """Return the request's body."""
    body: Json = {"model": twin, "messages": messages, "max_tokens": max_tokens}
    if temperature is not None:
        body["temperature"] = temperature
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def converse(forward: Forward, asked: Asked, *, emit: Callable[[str], None] | None) -> Said:
    """Ask, call `emit` with each piece of the answer as it arrives, and return the whole.

    Raises:
        TwinCliError: it was refused, nothing came, or the connection broke.
    """
    connection = http.client.HTTPConnection("forwarded")
    connection.sock = forward.socket
    connection.sock.settimeout(asked.timeout_seconds)
    begun = time.monotonic()
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            body=json.dumps(asked.body).encode(),
            headers={
                "Authorization": f"Bearer {asked.token}",
                "Content-Type": "application/json",
                "Connection": "close",
                **asked.headers,
            },
        )
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise _refused(response.status, response.read(_MOST_OF_A_REFUSAL), far_end=asked.far_end)
        read = (_streamed if asked.body.get("stream") else _whole)(response, begun, emit)
    except TimeoutError as error:
        raise TwinCliError(asked.silence) from error
    except (http.client.HTTPException, OSError) as error:
        raise TwinCliError(f"The connection to {asked.far_end} broke: {forward.error or error}. Ask again.") from error
    return Said(
        text=read.text,
        headers=response.headers,
        extension=read.extension,
        first_token_seconds=read.first,
        seconds=time.monotonic() - begun,
        tokens=read.tokens,
        finish_reason=read.finish,
    )


@dataclass(frozen=True)
class _Read:
    text: str
    first: float | None
    tokens: int | None
    finish: str | None
    extension: Json


def _streamed(response: http.client.HTTPResponse, begun: float, emit: Callable[[str], None] | None) -> _Read:
    parts: list[str] = []
    first: float | None = None
    tokens: int | None = None
    finish: str | None = None
    extension: Json = {}
    for piece in sse.pieces(iter(response.readline, b"")):
        if piece.text:
            first = time.monotonic() - begun if first is None else first
            parts.append(piece.text)
            if emit is not None:
                emit(piece.text)
        tokens = piece.completion_tokens if piece.completion_tokens is not None else tokens
        finish = piece.finish_reason or finish
        extension |= piece.extension or {}
    return _Read("".join(parts), first, tokens, finish, extension)


def _whole(response: http.client.HTTPResponse, begun: float, emit: Callable[[str], None] | None) -> _Read:
    del begun
    try:
        answer = json.loads(response.read())
        choice = answer["choices"][0]
        text = str(choice["message"]["content"] or "")
    except (ValueError, LookupError, TypeError) as error:
        raise TwinCliError("The answer is no chat completion: is the pool's engine OpenAI-compatible?") from error
    if emit is not None:
        emit(text)
    usage = answer.get("usage") or {}
    return _Read(
        text, None, usage.get("completion_tokens"), choice.get("finish_reason"), answer.get(sse.EXTENSION) or {}
    )


def _refused(status: int, body: bytes, *, far_end: str) -> TwinCliError:
    try:
        said = str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        said = body[:300].decode("utf-8", errors="replace").strip() or "no reason given"
    return TwinCliError(f"{far_end[0].upper()}{far_end[1:]} answered {status}: {said}")
