"""The miner's series.

`version` is the served name (`<twin>-<first 8 of the digest>`, or the base model's name). A version's series are
dropped some time after it has left the routing table, and only so many have their own (`bounds`). Requests for models
that do not exist count under twin="" version="".
"""

from __future__ import annotations

from typing import Final

from bettertherapy_api.metrics.series import Kind, Process, Reader, Series

_VERSION: Final = ("twin", "version")
_REQUEST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_FIRST_TOKEN: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)


def _counter(name: str, text: str, *labels: str, read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_miner_{name}_total", kind=Kind.COUNTER, of=Process.MINER, help=text, labels=labels,
        read_by=read_by,
    )  # fmt: skip


def _gauge(name: str, text: str, *labels: str, unit: str = "", read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_miner_{name}", kind=Kind.GAUGE, of=Process.MINER, help=text, labels=labels, unit=unit,
        read_by=read_by,
    )  # fmt: skip


def _seconds(
    name: str, text: str, *labels: str, buckets: tuple[float, ...], read_by: tuple[Reader, ...] = ()
) -> Series:
    return Series(
        name=f"bettertherapy_miner_{name}_seconds", kind=Kind.HISTOGRAM, of=Process.MINER, help=text, labels=labels,
        unit="seconds", buckets=buckets, read_by=read_by,
    )  # fmt: skip


REQUESTS: Final = _counter(
    "requests",
    "Requests that ended, by twin, version and HTTP status; an error event in a stream of status 200 counts as the"
    " status that it names (499: the client left; broken: the stream broke off and no engine finished it).",
    *_VERSION, "code", "process",
    read_by=(Reader.CANARY, Reader.AUTOSCALER, Reader.ALERTS, Reader.DASHBOARDS, Reader.TOP),
)  # fmt: skip
REQUEST_SECONDS: Final = _seconds(
    "request", "Seconds from a request's headers to the last byte of its answer, waiting for a pod included.",
    *_VERSION, buckets=_REQUEST, read_by=(Reader.CANARY, Reader.PILOT, Reader.ALERTS, Reader.DASHBOARDS, Reader.TOP),
)  # fmt: skip
FIRST_TOKEN_SECONDS: Final = _seconds(
    "first_token", "Seconds from a streaming request's headers to the first byte of its answer.",
    *_VERSION, buckets=_FIRST_TOKEN, read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
IN_FLIGHT: Final = _gauge(
    "in_flight", "Requests that are at an engine pod now.", *_VERSION,
    read_by=(Reader.AUTOSCALER, Reader.PLACEMENT, Reader.DASHBOARDS, Reader.TOP),
)  # fmt: skip
RETRIES: Final = _counter(
    "retries",
    "Attempts given up for another pod: adapter_not_here, pod_draining, busy, connect, reset, engine_error,"
    " error_event (an error or a stop in an answer of status 200), no_answer (a 200 that is none), stream (it broke"
    " off), template (it refused), template_unknown (it didn't say what it takes).",
    "reason", read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
CONTINUED_STREAMS: Final = _counter(
    "continued_streams",
    "Streams that an engine broke, by what came of them: continued (another pod went on, the client saw nothing),"
    " impossible (such an answer can't go on elsewhere), failed (no other pod finished it).",
    "outcome", read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
DRAWS: Final = _counter(
    "draws",
    "Questions for which several answers were drawn, by what came of it: compared, one_complete (in time), live (none"
    " was complete by then: one was forwarded as it came), failed, refused (the engine draws one).",
    "outcome",
)  # fmt: skip
CANDIDATES: Final = _counter(
    "candidates", "Answers drawn of which one was chosen: complete, or missing (late, failed) when it was.", "outcome"
)
CANDIDATE_CHOSEN: Final = _counter(
    "candidate_chosen",
    "Answers chosen among several, by their number among those drawn (0: what one draw would have given).",
    "index",
)  # fmt: skip
COMPARING_SECONDS: Final = _seconds(
    "comparing", "Seconds from the first sign of several answers until one was chosen.", buckets=_REQUEST
)
SCORER_FAILURES: Final = _counter(
    "scorer_failures", "Comparisons in which a scorer had no say: error, late, nonsense (no number from 0 to 1).",
    "scorer", "why",
)  # fmt: skip
CACHE: Final = _counter(
    "cache", "Questions that may be answered from what was answered before: hit, miss. Hits count in no other series.",
    "outcome",
)  # fmt: skip
TEMPLATE_REFUSALS: Final = _counter(
    "template_refusals", "Chat requests that the chat template of the pool's base model refuses in every form."
)
SHORTENED_HISTORIES: Final = _counter(
    "shortened_histories",
    "Conversations that the pool's context doesn't hold, by what was done: summarised (rounds are left out, the user's"
    " sentences kept), dropped (nothing of them is), too_long (refused: the newest message alone is).",
    "outcome",
)  # fmt: skip
LEFT_OUT_MESSAGES: Final = _counter(
    "left_out_messages", "Messages of those conversations that didn't reach the engine whole."
)
LESSONS: Final = _gauge("lessons", "Corrections and liked answers in use, of all twins.")
LESSON_LOOKUPS: Final = _counter(
    "lesson_lookups",
    "Chats with twins that have lessons: found (some are in the prompt), none (none is alike enough), late (the"
    " question couldn't be compared in time; only the same words were looked for).",
    "outcome",
)  # fmt: skip
LESSON_ERRORS: Final = _counter(
    "lesson_errors", "Lessons files that couldn't be used; the last good one of that twin stays."
)
HELD: Final = _gauge(
    "held", "Requests that wait now: for a pod (rollout, scale-up from zero), or for a place at one that is full.",
    read_by=(Reader.AUTOSCALER, Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
TURN_SECONDS: Final = _seconds(
    "turn", "Seconds that requests waited for a place at full engine pods, of those that got one after a wait.",
    buckets=_FIRST_TOKEN,
)  # fmt: skip
TURNED_AWAY: Final = _counter(
    "turned_away", "Requests answered 429 because more was asked of their twin than its share of full engines answers."
)
PODS_READY: Final = _gauge(
    "pods_ready", "Engine pods that may get requests, as last reported.",
    read_by=(Reader.CANARY, Reader.PLACEMENT, Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
TABLE_ERRORS: Final = _counter(
    "table_errors", "Tables that didn't parse; the last good one stays in use.", "table", read_by=(Reader.ALERTS,)
)
TABLE_GENERATION: Final = _gauge(
    "table_generation", "Generation of the MinerPool that the routing table in use was made from."
)
CLIENTS: Final = _gauge("clients", "Access tokens that are accepted now.")
SIGNED_REQUESTS: Final = _counter(
    "signed_requests", "Requests that came by the signed door, by what was decided: admitted, or why not.", "outcome",
    read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
RECEIPTS: Final = _counter("receipts", "Answers that got a signed receipt.", read_by=(Reader.DASHBOARDS,))
METAGRAPH_AGE_SECONDS: Final = _gauge(
    "metagraph_age_seconds", "Seconds since the metagraph in use was read; +Inf while none was.", unit="seconds",
    read_by=(Reader.ALERTS,),
)  # fmt: skip
SERIES: Final = (
    REQUESTS, REQUEST_SECONDS, FIRST_TOKEN_SECONDS, IN_FLIGHT, RETRIES, CONTINUED_STREAMS, DRAWS, CANDIDATES,
    CANDIDATE_CHOSEN, COMPARING_SECONDS, SCORER_FAILURES, CACHE, TEMPLATE_REFUSALS, SHORTENED_HISTORIES,
    LEFT_OUT_MESSAGES, LESSONS, LESSON_LOOKUPS, LESSON_ERRORS, HELD, TURN_SECONDS, TURNED_AWAY, PODS_READY,
    TABLE_ERRORS, TABLE_GENERATION, CLIENTS, SIGNED_REQUESTS, RECEIPTS, METAGRAPH_AGE_SECONDS,
)  # fmt: skip
