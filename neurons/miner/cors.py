"""Which pages of other origins may call this miner from a browser (CORS), and how they are told."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from aiohttp import web

from bettertherapy_api import names
from neurons.miner.errors import EMERGENCY_HEADER, SHOULD_RETRY_HEADER
from neurons.miner.tracing import REQUEST_ID

ANY: Final = "*"
_METHODS: Final = "GET, HEAD, POST, OPTIONS"
_SHOWN: Final = ", ".join(
    (
        REQUEST_ID, "retry-after", SHOULD_RETRY_HEADER, EMERGENCY_HEADER, names.SERVED_NAME_HEADER,
        names.ADAPTER_DIGEST_HEADER, names.POD_HEADER, names.RECEIPT_HEADER, names.CANDIDATES_HEADER,
        names.CACHED_HEADER, "x-twin-history", "x-twin-lessons", "x-bettertherapy-miner", "x-bettertherapy-answer",
    )
)  # fmt: skip
"""All that answers of a miner or a gateway tell in headers: of others, a browser shows a page nothing."""
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_\-, ]{1,1024}")
_DEFAULT_HEADERS: Final = "authorization, content-type"
_ORIGIN: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[[0-9A-Fa-f:.]+\]|[^\s/,?#@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
)
_PORTS: Final = range(1, 65536)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def read_origins(text: str) -> frozenset[str]:
    """Read a list with commas, each origin in the form in which browsers send it: any other would allow nobody.

    Raises ValueError with what is wrong.
    """
    origins = set()
    for given in filter(None, (one.strip() for one in text.split(","))):
        match = _ORIGIN.fullmatch(given)
        if given != ANY and (match is None or (match["port"] and int(match["port"]) not in _PORTS)):
            raise ValueError(
                f"{given!r} is not `*` or an origin as a browser sends it: scheme, host and port, and no user, slash, "
                "? or # around them, as in https://clinic.example"
            )
        origin = given.lower()
        origins.add(origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "")))
    return frozenset(origins)


class Cors:
    """The allowed origins; none by default, `*` for all. Tokens are sent by the page, never by the browser itself."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """Return what an answer to this request carries."""
        if not self._origins:
            return {}
        origin = request.headers.get("Origin")
        if origin is None or not (ANY in self._origins or origin in self._origins):
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _SHOWN, "Vary": "Origin"}

    def is_preflight(self, request: web.BaseRequest) -> bool:
        """Tell whether a browser asks whether it may ask."""
        return (
            bool(self._origins) and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        )

    def preflight(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to that; who may not gets no permission in it."""
        wanted = request.headers.get("Access-Control-Request-Headers", "")
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": wanted if _HEADER_NAMES.fullmatch(wanted) else _DEFAULT_HEADERS,
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=headers)
