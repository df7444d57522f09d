"""How often each caller may ask: a bucket of tokens a hotkey."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class Rates:
    """Each caller may ask `per_second` times on average, `burst` at once. It only ever holds admitted callers."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, caller: str) -> int:
        """Return after how many whole seconds the caller may ask again; 0: now."""
        bucket = self._filled(caller)
        return 0 if bucket.tokens >= 1 else max(1, math.ceil((1 - bucket.tokens) / self._per_second))

    def take(self, caller: str) -> None:
        """Count a request; of one that was just let in the bucket is as full as it was."""
        bucket = self._buckets.get(caller) or self._filled(caller)
        bucket.tokens -= 1

    def keep(self, callers: set[str]) -> None:
        """Forget all others."""
        for gone in self._buckets.keys() - callers:
            del self._buckets[gone]

    def _filled(self, caller: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        return bucket
