"""Writes the status of a custom resource, only when it says something new; conditions keep their transition times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from twin_operator.engine.api import Api
from twin_operator.engine.store import Store as Cache
from twin_operator.engine.resources import Manifest

Truth = Literal["True", "False", "Unknown"]
MESSAGE_LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One aspect of an object's state; without a clock, so that plans stay pure."""

    type: str
    status: Truth
    reason: str
    message: str


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 with seconds in UTC, as the API server writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_timestamp(moment: datetime) -> str:
    """Return RFC 3339 with microseconds in UTC, where something shorter than a second depends on it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def truth(text: str) -> Truth:
    """Return a condition's status as its type; anything else than True and False is Unknown."""
    return "True" if text == "True" else "False" if text == "False" else "Unknown"


def moment(text: str) -> datetime:
    """Return the time that a timestamp of the API server names."""
    return datetime.fromisoformat(text)


def dated(
    conditions: Iterable[Condition], *, live: Iterable[Mapping[str, Any]], generation: int, now: datetime
) -> list[Manifest]:
    """Return API conditions; lastTransitionTime moves only when a condition's status changes."""
    before = {condition["type"]: condition for condition in live}
    result = []
    for condition in conditions:
        known = before.get(condition.type)
        same = known is not None and known.get("status") == condition.status
        message = condition.message
        if len(message) > MESSAGE_LENGTH:
            message = message[: MESSAGE_LENGTH - 1] + "…"
        result.append(
            {
                "type": condition.type,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": known["lastTransitionTime"] if known and same else timestamp(now),
                "reason": condition.reason,
                "message": message,
            }
        )
    return result


def without_none(value: Any) -> Any:
    """Drop None from mappings, deeply: absent is what was not measured."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return value


async def write_status(api: Api, cache: Cache, *, thing: Manifest, status: Manifest) -> bool:
    """Make `status` the whole status of `thing`; tells whether that took a write."""
    wanted = without_none(status)
    if wanted == thing.get("status"):
        return False
    metadata = thing["metadata"]
    manifest = {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        # The UID lets a status never land on a new object of the same name.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": wanted,
    }
    cache.put(await api.apply(manifest, subresource="status"))
    return True


async def write_conditions_only(api: Api, store: Cache, *, thing: Manifest, conditions: list[Manifest]) -> bool:
    """Replace the conditions alone."""
    raise NotImplementedError
