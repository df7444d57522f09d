"""What a pod's answer means: the client's, or a reason to ask another pod."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bettertherapy_api import names
from neurons.conversation import may_be_the_templates
from neurons.miner.errors import RETRY_AFTER_SECONDS
from neurons.miner.tables import Pod, VersionRoute
from neurons.miner.transcript import DATA
from neurons.miner.upstream import BrokeOffError, ConnectFailedError, Reply

log = logging.getLogger(__name__)

EVENT_STREAM: Final = "text/event-stream"
ERROR_EVENTS: Final = (b'data: {"error"', b'data: {"object":"error"', b'data: {"object": "error"')
"""How vLLM says in a stream of status 200 that it failed. In a text these quotes would be escaped."""
ABORTED: Final = (b'"finish_reason":"abort"', b'"finish_reason": "abort"')
"""How it says that it was stopped in the middle."""
MAX_LINE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Refused:
    """An engine's own error, for the client if no other pod does better."""

    status: int
    body: bytes
    headers: dict[str, str]


class TryElsewhere(Exception):  # noqa: N818 - control flow between a request's attempts
    """This pod didn't take the request, or didn't finish; `reason` is the label of retries_total."""

    def __init__(
        self,
        reason: str,
        *,
        why: str = "",
        began: bool = False,
        refused: Refused | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.why = why
        """For the client, in words."""
        self.began = began
        """Whether the engine may have worked on it."""
        self.refused = refused
        self.retry_after = retry_after
        """When the pod wants to be asked again, if it is overloaded."""


@contextmanager
def pod_errors(pod: Pod) -> Iterator[None]:
    """Turn what can go wrong between us and a pod, before anything was forwarded, into TryElsewhere."""
    try:
        yield
    except ConnectFailedError as error:
        pod.failed(time.monotonic())
        log.warning("pod can't be reached", extra={"pod": pod.name, "reason": str(error)})
        raise TryElsewhere("connect") from None
    except BrokeOffError as error:
        pod.failed(time.monotonic())
        log.warning("pod broke off", extra={"pod": pod.name, "reason": str(error)})
        raise TryElsewhere("reset", began=True) from None


def headers_of(version: VersionRoute, pod: Pod, reply: Reply) -> dict[str, str]:
    """Return the headers that tell who answered, and what of the pod's own is kept."""
    headers = {
        "Content-Type": reply.headers.get("content-type", "application/json"),
        names.SERVED_NAME_HEADER: version.served_name,
        names.POD_HEADER: pod.name,
    }
    if version.digest is not None:
        headers[names.ADAPTER_DIGEST_HEADER] = version.digest
    if reply.status != 200 and (after := reply.headers.get("retry-after")) is not None:
        headers["Retry-After"] = after
    elif reply.status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


def check_answer(reply: Reply, pod: Pod, answer: bytes, headers: dict[str, str]) -> None:
    """Raise TryElsewhere for an answer that another pod may give better.

    `answer` is the whole body, or the beginning of a stream.
    """
    status = reply.status
    if status == 200:
        if not answer:
            pod.failed(time.monotonic())
            raise TryElsewhere("reset", began=True)
        return
    if status == 421:
        raise TryElsewhere("adapter_not_here")
    if status == 401 and _error_type(answer) == "NotAMiner":
        # Its tokens and ours are others for a moment: a Secret reaches pods one by one.
        raise TryElsewhere("stranger")
    if status >= 500 and names.RETRY_HEADER in reply.headers:
        if _error_type(answer) == "Busy":
            raise TryElsewhere("busy", retry_after=reply.headers.get("retry-after", "1"))
        pod.failed(time.monotonic())  # until its report says so too
        raise TryElsewhere("pod_draining")
    if status == 404 or (status == 400 and _error_type(answer) == "NotFoundError"):
        if is_unknown_route(answer):
            return
        # The engine restarted and forgot the adapter, and its agent hasn't noticed yet. Which of the two statuses
        # says so depends on vLLM's version.
        raise TryElsewhere("adapter_not_here")
    if status in (502, 504):
        pod.failed(time.monotonic())
        raise TryElsewhere("reset", began=True)
    if status in (429, 503):
        refused = Refused(status, answer, headers)
        raise TryElsewhere("busy", refused=refused, retry_after=reply.headers.get("retry-after"))
    if status >= 500:
        raise TryElsewhere("engine_error", began=True, refused=Refused(status, answer, headers))


def check_adapter(reply: Reply, version: VersionRoute) -> None:
    """Raise TryElsewhere for an answer that doesn't name the adapter that gave it: whose it is, isn't known."""
    named = reply.headers.get(names.ADAPTER_DIGEST_HEADER, None if reply.status == 200 else version.digest)
    if named != version.digest:
        raise TryElsewhere("adapter_not_here")


def check_whole(reply: Reply, pod: Pod, answer: bytes) -> dict[str, Any]:
    """Return a whole answer's document; raises TryElsewhere for a 200 that is none.

    None is what is no JSON of OpenAI's form, and what stopped in the middle.
    """
    document = document_of(answer)
    choices = document.get("choices")
    if not choices and not document.get("data"):
        pod.failed(time.monotonic())
        why = f"an engine answered with what is no answer ({reply.content_type[:50] or 'without a type'})"
        log.warning("pod answered with what is no answer", extra={"pod": pod.name, "reason": reply.content_type[:50]})
        raise TryElsewhere("no_answer", began=True, why=why)
    if any(isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices or ()):
        raise TryElsewhere("error_event", began=True, why="an engine stopped in the middle")
    return document


async def first_events(reply: Reply) -> bytes:
    """Return a stream's beginning, one whole event at least; raises BrokeOffError."""
    data = await reply.chunk()
    while data and b"\n\n" not in data and len(data) < MAX_LINE_BYTES:
        if data.startswith(DATA) and b"\n" in data:
            break  # a line is enough to tell an error
        more = await reply.chunk()
        if not more:
            break
        data += more
    return data


def is_error(events: bytes) -> bool:
    """Tell whether whole lines hold an error or an aborted answer."""
    return any(mark in events for mark in ERROR_EVENTS) or any(mark in events for mark in ABORTED)


@dataclass(frozen=True, slots=True)
class StreamError:
    """What a stream said instead of going on."""

    before: bytes
    """The whole events before it."""
    status: int
    error: dict[str, Any]
    aborted: bool = False


def stream_error(events: bytes) -> StreamError:
    """Take an error apart from the events before it; only for events that `is_error`."""
    at = min((found for mark in ERROR_EVENTS if (found := events.find(mark)) >= 0), default=-1)
    if at < 0:
        marked = min(found for mark in ABORTED if (found := events.find(mark)) >= 0)
        before = events[: max(0, events.rfind(b"data: {", 0, marked))]
        error = {"message": "the engine stopped in the middle", "type": "InternalServerError", "code": 500}
        return StreamError(before, 500, error, aborted=True)
    line = events[at + len(DATA) :].split(b"\n", 1)[0]
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        document = {}
    error = document.get("error", document) if isinstance(document, dict) else {}
    if not isinstance(error, dict):
        error = {"message": str(error)[:500]}
    code = error.get("code")
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 500
    return StreamError(events[:at], status if 400 <= status < 600 else 500, error)


def is_unknown_route(answer: bytes) -> bool:
    """Tell whether a 404 says that the engine has no such route."""
    document = document_of(answer)
    return document.get("detail") == "Not Found" or _error_type(answer) == "NotFound"


def is_about_the_template(reply: Reply, answer: bytes) -> bool:
    """Tell whether an error may be the chat template's."""
    error = document_of(answer).get("error")
    return isinstance(error, dict) and may_be_the_templates(reply.status, error.get("param"))


def message_of(answer: bytes) -> str:
    """Return an error's words."""
    error = document_of(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def document_of(answer: bytes) -> dict[str, Any]:
    """Return an answer's JSON object, an empty one of what is none."""
    try:
        document = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _error_type(answer: bytes) -> str | None:
    document = document_of(answer)
    error = document.get("error", document)
    kind = error.get("type") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) else None
