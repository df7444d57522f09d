"""Requests by chance for every HTTP door: paths, headers and bodies like those it takes, with anything in any place.

Used by the unit suite for some hundreds and by the benchmark for ten thousand.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.doors.hostile_requests import hostile_requests
from tests.unit.doors.http_processes import Door, asked
from tests.unit.miner.test_bodies import ANY, CHAT, COMPLETION, EMBEDDING, RESPONSE, changed, places

AT_ONCE: Final = 16
PATIENCE_SECONDS: Final = 20.0
"""Longer than any process here takes for an answer that it gives: hold 2 s, deadline 5 s."""
_BODIES: Final[tuple[dict[str, Any], ...]] = (
    CHAT, COMPLETION, EMBEDDING, RESPONSE,
    {"model": "indra", "user": "u", "consent": True, "consentWording": "w"},
    {"sessionId": "0" * 36, "answerId": "0" * 36, "questionId": "0" * 36, "stars": 5, "comment": "x", "user": "u"},
    {"sessionId": "0" * 36, "preferredId": "0" * 36},
    {"method": "info", "params": {"block": 1}}, {"count": 1, "changes": {}},
    {"text": "I have a headache", "compare": False}, {"given": True}, {"receipt": "x"},
    {"language": "ne", "back": "/doctor/indra"}, {"key": "bt-x"}, {"conversations": "{}", "shape": "openai"},
    {"model": "base-model", "messages": [{"role": "user", "content": "x"}]}, {"model": "base-model", "prompt": "x"},
)  # fmt: skip
_HEADER: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), max_size=12)
_VALUE: Final = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
_NAMED: Final = st.sampled_from(
    ["Content-Type", "Accept", "Origin", "Cookie", "X-Session-Id", "X-Request-Id", "traceparent", "Referer", "Host",
     "Content-Encoding", "X-Bittensor-Version", "X-Bittensor-Hotkey", "X-Bittensor-Nonce", "Range", "If-None-Match",
     "Sec-Fetch-Site", "X-Forwarded-For", "Accept-Language"]
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body with something else in one or two places."""
    document: Any = draw(st.sampled_from(_BODIES))
    for _ in range(draw(st.integers(0, 2))):
        document = changed(document, draw(st.sampled_from(places(document))), draw(ANY))
    body = json.dumps(document).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=6)) + body[at + draw(st.integers(0, 4)) :]
    return body


@st.composite
def requests(draw: st.DrawFn, door: Door) -> bytes:
    """A whole request, which an HTTP server can read or refuse."""
    method, path = draw(st.sampled_from(door.routes))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_whole_ones(path, door.authorization, method)))
    if draw(st.integers(0, 9)) == 0:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]))
    if draw(st.integers(0, 9)) == 0:
        path += draw(st.sampled_from(["/", "/x", "?a=b", "%00", "//", "/../x", "?user=%ff", ";x"]))
    named = draw(st.lists(st.tuples(_NAMED | _HEADER.filter(bool), _VALUE), max_size=3))
    headers = [("Host", "x"), *((name, value.strip()) for name, value in named)]
    if draw(st.integers(0, 9)):
        headers.append(("Authorization", door.authorization))
    if door.visitors and not path.startswith("/v1/"):
        cookie, token = draw(st.sampled_from(door.visitors))
        headers += [("Cookie", cookie), ("X-Form-Token", token)]
    body = draw(bodies()) if method in ("POST", "PUT", "PATCH") else b""
    if draw(st.booleans()):
        headers.append(("Content-Type", "application/json"))
    headers.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace") + body


def _whole_ones(path: str, authorization: str, method: str) -> list[bytes]:
    """Hostile ones that don't leave the server waiting for what never comes."""
    return [
        request
        for request in hostile_requests(path, authorization, method=method)
        if b"chunked" not in request and b"Transfer" not in request and request.count(b"\r\n\r\n") == 1
        and _is_whole(request)
    ]  # fmt: skip


def _is_whole(request: bytes) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return not lengths or lengths[0].rpartition(b" ")[2] == str(len(body)).encode()


def drawn(door: Door, count: int) -> list[bytes]:
    """So many requests for a door, the same ones each time."""
    made: list[bytes] = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests(door))
    def take(request: bytes) -> None:
        made.append(request)

    take()
    return made


@dataclass
class Outcome:
    """What came of all requests to one door."""

    statuses: Counter[int] = field(default_factory=Counter)
    hung: list[bytes] = field(default_factory=list)
    failed: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    """Status, request, answer of what is the server's fault and no engine's."""


async def send_all(door: Door, given: list[bytes]) -> Outcome:
    """Send them, several at once, and look at each answer."""
    outcome, gate = Outcome(), asyncio.Semaphore(AT_ONCE)

    async def one(request: bytes) -> None:
        async with gate:
            try:
                status, body = await asked(door.port, request, seconds=PATIENCE_SECONDS)
            except TimeoutError:
                outcome.hung.append(request)
                return
        outcome.statuses[status] += 1
        if status >= 500 and not _is_the_engines(status, body):
            outcome.failed.append((status, request, body))

    await asyncio.gather(*(one(request) for request in given))
    return outcome


def _is_the_engines(status: int, body: bytes) -> bool:
    """Tell whether it is an engine that failed, or one that is missing, and the answer says so."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    said = f"{error.get('type')} {error.get('code')}"
    return status in (502, 503) and any(
        word in said for word in ("engine", "no_pod_ready", "no_answer", "overloaded", "not_kept", "Engine", "no_miner",
                                  "service_unavailable")
    )  # fmt: skip


def told(outcomes: Mapping[str, Outcome]) -> str:
    """Return what was found, for a message."""
    return "; ".join(
        f"{name}: {dict(outcome.statuses)}, hung {[each[:300] for each in outcome.hung[:2]]}, failed "
        f"{[(status, request[-400:], body[:200]) for status, request, body in outcome.failed[:3]]}"
        for name, outcome in outcomes.items()
    )
