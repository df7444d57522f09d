"""The headers by which a request is followed through several services: taken in their standard form only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from neurons.entropy import random_bytes

REQUEST_ID: Final = "x-request-id"
_FORMS: Final = {
    REQUEST_ID: re.compile(r"[\x21-\x7e]{1,128}"),
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[\x20-\x7e]{1,512}"),
}


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what of these headers is passed on to the engine."""
    found = {}
    for name, form in _FORMS.items():
        value = headers.get(name)
        if value is not None and form.fullmatch(value):
            found[name] = value
    return found


def request_id_of(trace: Mapping[str, str]) -> str:
    """Return the request's id: the client's own, or a new one."""
    return trace.get(REQUEST_ID) or f"req_{random_bytes()[:12].hex()}"
