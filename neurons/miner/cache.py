"""Answers given before, for the same question to the same version: in memory, bounded, and off unless asked for.

A key is the digest of all that makes an answer: the version, and the very bytes that the engine would get, the doctor's
rules and whatever was found for the question included. So another version, other rules or a new correction never meet
an old answer. Only a question that is nobody's in particular is kept at all, and only for the client who asked it.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from neurons.miner.asked import EngineRequest
from neurons.miner.tables import TwinRoute, VersionRoute

MAX_ANSWER_BYTES: Final = 256 * 1024
"""A longer answer isn't kept."""
_OVERHEAD_BYTES: Final = 600
"""What an entry takes beside its answer."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer in the engine's form, before receipt and twin's name are put on it."""

    body: bytes
    """A whole answer, or all lines of a stream."""
    headers: Mapping[str, str]
    at: float
    """When it was complete, by the cache's clock."""
    measured: str | None = None
    """Digest of the base model that gave it; None where nobody measured it."""


class AnswerCache:
    """The answers of one miner, the longest unused forgotten first."""

    def __init__(self, *, max_bytes: int, max_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._max_seconds, self._clock = max_bytes, max_seconds, clock
        self._answers: OrderedDict[bytes, Kept] = OrderedDict()
        self.bytes = 0
        """What it holds."""

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes) -> Kept | None:
        """Return the answer, if it is not too old."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        if self.age(kept) > self._max_seconds:
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return kept

    def put(self, key: bytes, body: bytes, headers: Mapping[str, str], *, measured: str | None = None) -> None:
        """Keep an answer; one that is too long is not."""
        if len(body) > MAX_ANSWER_BYTES or len(body) + _OVERHEAD_BYTES > self._max_bytes:
            return
        self._drop(key)
        self._answers[key] = Kept(body, dict(headers), self._clock(), measured)
        self.bytes += len(body) + _OVERHEAD_BYTES
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._answers)))

    def age(self, kept: Kept) -> float:
        """Return how many seconds ago an answer was made."""
        return self._clock() - kept.at

    def _drop(self, key: bytes) -> None:
        kept = self._answers.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept.body) + _OVERHEAD_BYTES


@dataclass(slots=True)
class Keeping:
    """One answer on its way into the cache."""

    cache: AnswerCache
    key: bytes
    lines: bytes = b""
    """Of a stream, as far as it has come."""

    def add(self, lines: bytes) -> None:
        """Take a stream's next lines."""
        if len(self.lines) <= MAX_ANSWER_BYTES:
            self.lines += lines

    def put(self, body: bytes, headers: Mapping[str, str], *, measured: str | None) -> None:
        """Keep a complete answer."""
        self.cache.put(self.key, body, headers, measured=measured)


def may_be_kept(asked: EngineRequest) -> bool:
    """Tell whether the answer may be given again: one question, nobody named, nothing known of who asks."""
    return not (asked.personal or asked.named) and asked.is_single_turn() and asked.obstacle() is None


def key_of(
    body: bytes, *, session: bytes, twin: TwinRoute, version: VersionRoute, base: Mapping[str, str | None],
    lessons: str | None = None,
) -> bytes:  # fmt: skip
    """Return the key: `body` is what the engine would get, `session` tells one client's questions from another's.

    `lessons` is the digest of the twin's lessons: a lookup that was late leaves a correction out of the body, and must
    not bring back what was said before the correction.
    """
    who = orjson.dumps(
        [twin.uid, version.served_name, version.digest, dict(base), lessons], option=orjson.OPT_SORT_KEYS
    )
    digest = hashlib.blake2b(digest_size=32)
    for part in (session, who, body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
