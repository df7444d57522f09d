"""Put the twin's name where the engine wrote the served name, on bytes: no answer is parsed on the usual path.

`"model":"x"` with bare quotes can only be structure: inside a JSON string the quotes would be escaped.
"""

from __future__ import annotations

from typing import Any

import orjson


class ModelName:
    """The rewriting of one version's answers."""

    __slots__ = ("_compact", "_field", "_given_by", "_spaced", "_twin", "_twin_json")

    def __init__(self, *, twin: str, served_name: str, digest: str | None) -> None:
        served = orjson.dumps(served_name)
        self._twin = twin
        self._compact = b'"model":' + served
        self._spaced = b'"model": ' + served
        self._twin_json = b'"model":' + orjson.dumps(twin)
        self._given_by = {"adapterDigest": digest, "servedName": served_name}
        self._field = b'{"bettertherapy":' + orjson.dumps(self._given_by) + b","

    def told(self, **more: Any) -> dict[str, Any]:
        """Return the field `bettertherapy` with more in it: `in_body` leaves a body alone that begins with it."""
        return {"bettertherapy": {**self._given_by, **more}}

    def marked_cached(self, body: bytes) -> bytes:
        """Return an engine's whole answer with the mark that it was given before."""
        document = orjson.loads(body)
        said = document.pop("bettertherapy", {})
        return orjson.dumps({**self.told(**{**said, "cached": True}), **document})

    def in_events(self, data: bytes) -> bytes:
        """Rewrite whole lines of an event stream."""
        if self._compact in data:
            return data.replace(self._compact, self._twin_json)
        if self._spaced in data:
            return data.replace(self._spaced, self._twin_json)
        return data

    def in_body(self, body: bytes) -> bytes:
        """Rewrite a whole JSON answer and add the field `bettertherapy`; anything else is returned as it is."""
        if self._compact in body:
            body = body.replace(self._compact, self._twin_json, 1)
        elif self._spaced in body:
            body = body.replace(self._spaced, self._twin_json, 1)
        else:
            body = self._parsed(body)
        if body.startswith(b'{"') and not body.startswith(b'{"bettertherapy":'):
            body = self._field + body[1:]
        return body

    def _parsed(self, body: bytes) -> bytes:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body
        if not isinstance(document, dict) or "model" not in document:
            return body
        document["model"] = self._twin
        return orjson.dumps(document)
