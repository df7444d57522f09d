"""Kubernetes Events for what a person would want to know: one per transition, however often it is reconciled.

An event's name is made from what it says, so a second attempt, another replica or a restarted operator meets 409
instead of repeating it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from twin_operator.engine.api import Api
from twin_operator.engine.resources import EVENT, Manifest
from twin_operator.errors import ApiError

log = logging.getLogger(__name__)

CONTROLLER = "bettertherapy.io/twin-operator"
_NOTE_BYTES = 1024
"""The API server counts bytes, and refuses an event whose note has more."""
_REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that happened to an object."""

    reason: str
    note: str
    kind: Literal["Normal", "Warning"] = "Normal"
    action: str = "Reconcile"
    occasion: str = ""
    """Tells this occurrence from others with the same words: a transition time, a restart count."""


class EventPoster:
    """Posts notices. A failed post is logged and dropped: events inform people, nothing depends on them."""

    def __init__(self, api: Api, *, instance: str) -> None:
        self._api = api
        self._instance = instance[:128]
        self._posted: OrderedDict[str, None] = OrderedDict()

    async def post(self, thing: Manifest, notice: Notice) -> None:
        """Post `notice` about `thing` unless it was posted already."""
        metadata = thing["metadata"]
        name = _name(metadata, notice)
        if name in self._posted:
            return
        self._remember(name)
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "type": notice.kind,
            "reason": notice.reason,
            "action": notice.action,
            "note": _shortened(notice.note),
            "regarding": {
                "apiVersion": thing["apiVersion"], "kind": thing["kind"], "name": metadata["name"],
                "namespace": metadata["namespace"], "uid": metadata["uid"],
            },
        }  # fmt: skip
        try:
            await self._api.create(event)
        except ApiError as error:
            if error.status != 409 and not error.namespace_ends:
                log.warning(
                    "event %s about %s %s was not posted: %s", notice.reason, thing["kind"], metadata["name"], error
                )

    def _remember(self, name: str) -> None:
        self._posted[name] = None
        while len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)


def _shortened(note: str) -> str:
    encoded = note.encode()
    if len(encoded) <= _NOTE_BYTES:
        return note
    return encoded[: _NOTE_BYTES - len("…".encode())].decode(errors="ignore") + "…"


def _name(metadata: Manifest, notice: Notice) -> str:
    text = "\0".join((metadata["uid"], notice.kind, notice.reason, notice.occasion or notice.note))
    return f"{metadata['name'][:200].rstrip('-.')}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
