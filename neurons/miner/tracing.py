"""The headers by which a request is followed through several services (W3C Trace Context), in standard form only.

A trace that comes in is passed on as it is: nothing here records spans, so an engine's span is the child of the
client's. A request without one gets a new trace, whose id stands in the log and beside the latency histograms
(exemplars) and nowhere else. An id says nothing of who asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from neurons.entropy import random_bytes

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
_TRACESTATE: Final = "tracestate"
_REQUEST_ID_FORM: Final = re.compile(r"[\x21-\x7e]{1,128}")
# Neither id may be all zeros, and there is no version ff; of a later version that has more, only the first four parts
# would be ours to read: such a one is replaced by a new trace.
_TRACEPARENT_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_FORM: Final = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED: Final = "01"
"""An engine that records spans records those of new traces, as it would without any."""


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what of these headers is passed on to the engine; there is always a `traceparent`."""
    found = {}
    request_id = headers.get(REQUEST_ID)
    if request_id is not None and _REQUEST_ID_FORM.fullmatch(request_id):
        found[REQUEST_ID] = request_id
    given, state = headers.get(TRACEPARENT), headers.get(_TRACESTATE)
    if given is None or not _TRACEPARENT_FORM.fullmatch(given):
        found[TRACEPARENT] = new_traceparent()
        return found  # the state belongs to a trace that can't be told
    found[TRACEPARENT] = given
    if state is not None and _TRACESTATE_FORM.fullmatch(state):
        found[_TRACESTATE] = state
    return found


def new_traceparent(of: str = "") -> str:
    """Return the header of a new span: of this trace, or of a new one."""
    # The odds that 16 random bytes are all zeros are none.
    return f"00-{of or random_bytes().hex()}-{random_bytes()[:8].hex()}-{_SAMPLED}"


def trace_id_of(trace: Mapping[str, str]) -> str:
    """Return the id in these headers, empty where there is none."""
    given = _TRACEPARENT_FORM.fullmatch(trace.get(TRACEPARENT, ""))
    return given[1] if given is not None else ""


def exemplar_of(trace: Mapping[str, str]) -> dict[str, str] | None:
    """Return what stands beside a histogram's observation: the trace's id; None where there is none."""
    given = trace.get(TRACEPARENT)
    return {"trace_id": given[3:35]} if given is not None else None


def request_id_of(trace: Mapping[str, str]) -> str:
    """Return the request's id: the client's own, or a new one."""
    return trace.get(REQUEST_ID) or f"req_{random_bytes()[:12].hex()}"
