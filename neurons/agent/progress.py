"""Judging a wedge: `/health` stays 200 on a wedged engine, so what counts is whether its counters move."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

# Counters that each engine step moves, and gauges that only the engine's own scheduler sets. The gauges matter in a
# long chunked prefill: its steps give no token and leave the counters alone, but the KV cache fills.
_PROGRESS = re.compile(
    r"^(vllm:(?:iteration_tokens_total_(?:sum|count)|generation_tokens_total|prompt_tokens_total"
    r"|kv_cache_usage_perc|num_requests_running|num_requests_waiting)(?:\{[^\n]*\})?) (\S+)",
    re.MULTILINE,
)
_START = re.compile(r"^process_start_time_seconds (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What one reading of the engine's metrics says."""

    progress: tuple[tuple[str, str], ...]
    """Equal in two readings means: nothing moved between them."""
    queued: float
    """Requests running and waiting, by the engine's own account (it may be stale after an abort)."""
    start_time: float | None
    """Seconds since the epoch at which the engine's process started."""


def parse_sample(text: str) -> Sample:
    """Pick the few lines we need out of the metrics text; a full parse of vLLM's costs tens of milliseconds."""
    progress = tuple(sorted(_PROGRESS.findall(text)))
    queued = sum(_number(v) for k, v in progress if k.startswith("vllm:num_requests_"))
    start = _START.search(text)
    return Sample(progress, queued, _number(start.group(1)) if start else None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Verdict(Enum):
    """What a reading amounts to."""

    FINE = "fine"
    SUSPECT = "suspect"
    """Something ought to run and nothing moves: ask for one token, to be sure."""
    WEDGED = "wedged"


class ProgressJudge:
    """Feed it samples; it answers with a verdict. Restart it when the engine restarts."""

    def __init__(self, *, wedge_seconds: float) -> None:
        self._limit = wedge_seconds
        self.restart()

    def restart(self) -> None:
        """Forget everything: another process runs now."""
        self._progress: object = None
        self._busy_since: float | None = None
        self._suspect_since: float | None = None
        self._unanswered = 0

    def judge(self, now: float, sample: Sample | None, *, in_flight: int, unanswered: int) -> Verdict:
        """Judge one reading; `sample` is None when the engine took the question for its metrics and gave no answer.

        `in_flight` counts requests that we have sent and that run still, `unanswered` those that were given up.
        """
        moved = sample is not None and sample.progress != self._progress
        if sample is not None:
            self._progress = sample.progress
        if moved:
            self._busy_since = self._suspect_since = None
            self._unanswered = unanswered
        if in_flight or sample is None:
            self._busy_since = now if self._busy_since is None else self._busy_since
        else:
            self._busy_since = None
        if self._busy_since is not None and now - self._busy_since >= self._limit:
            return Verdict.WEDGED
        queued = sample.queued if sample is not None else 0
        if queued or unanswered > self._unanswered:
            self._suspect_since = now if self._suspect_since is None else self._suspect_since
        else:
            self._suspect_since = None
        if self._suspect_since is not None and not in_flight and now - self._suspect_since >= self._limit / 2:
            return Verdict.SUSPECT
        return Verdict.FINE
