"""Writes the status of a custom resource, only when it says something new.

Every write names the version of the object that it was decided on and is refused when there is a newer one: a status is
never written over what was not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args, get_origin

from pydantic import BaseModel

from bettertherapy_api import names
from twin_operator.engine.api import Api
from twin_operator.engine.resources import Manifest, key_of
from twin_operator.errors import ApiError, ConflictError

Fields: TypeAlias = Mapping[str, "Fields | None"]
"""Names of fields, each with those of its parts."""


class Store(Protocol):
    """Where newer versions of objects go."""

    def put(self, thing: Manifest, /) -> bool:
        """Take a version of an object."""


def without_none(value: Any) -> Any:
    """Drop None from mappings, deeply: absent is what was not measured."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class StatusFields:
    """Which parts of a kind's status this release knows. What a newer release wrote is carried over, never dropped."""

    fields: Fields
    conditions: frozenset[str] | None = None
    """Types of the conditions that are ours; None: all are."""

    @classmethod
    def of(cls, model: type[BaseModel], *, conditions: Iterable[str] | None = None) -> StatusFields:
        """Return what a status model declares."""
        return cls(fields=_fields(model), conditions=None if conditions is None else frozenset(conditions))

    def known_part(self, status: Mapping[str, Any]) -> Manifest:
        """Return the status without what this release does not know."""
        known: Manifest = _known(status, self.fields)
        if self.conditions is not None and "conditions" in known:
            ours = [condition for condition in known["conditions"] if condition.get("type") in self.conditions]
            known["conditions"] = ours
            if not ours:
                del known["conditions"]
        return known

    def carried(self, wanted: Manifest, live: Mapping[str, Any], *, ours: Mapping[str, Any]) -> Manifest:
        """Return the wanted status together with what a newer release of ours wrote.

        `ours` are the fields that our manager owns, as `metadata.managedFields` has them: what others wrote stays by
        itself, and is not made ours. Within a part of the status, unknown fields are kept while what we say of that
        part is unchanged: of another version they would be untrue.
        """
        whole: Manifest = {
            name: _with_unknown(value, live.get(name), self.fields.get(name)) for name, value in wanted.items()
        }
        for name, value in live.items():
            if name not in self.fields and f"f:{name}" in ours:
                whole[name] = value
        if self.conditions is not None:
            owned = ours.get("f:conditions") or {}
            others = [
                condition
                for condition in live.get("conditions") or []
                if condition["type"] not in self.conditions and f'k:{{"type":"{condition["type"]}"}}' in owned
            ]
            if others:
                whole["conditions"] = [*(whole.get("conditions") or []), *others]
        return whole


def _fields(model: type[BaseModel]) -> Fields:
    found: dict[str, Fields | None] = {}
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        found[field.alias or name] = _fields(inner) if inner is not None else None
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, also one in a list; maps by name count as plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, Mapping, Literal):
        return None
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _known(value: Any, fields: Fields | None) -> Any:
    if fields is None:
        return value
    if isinstance(value, Mapping):
        return {name: _known(item, fields[name]) for name, item in value.items() if name in fields}
    if isinstance(value, list):
        return [_known(item, fields) for item in value]
    return value


def _with_unknown(wanted: Any, live: Any, fields: Fields | None) -> Any:
    """Return the live value, unknown fields and all, where it says what we want; in lists element by element."""
    if fields is None or live is None:
        return wanted
    if _known(live, fields) == wanted:
        return live
    if isinstance(wanted, list) and isinstance(live, list):
        return [next((each for each in live if _known(each, fields) == item), item) for item in wanted]
    return wanted


async def write_status(
    api: Api, store: Store, *, thing: Manifest, status: Manifest, known: StatusFields | None = None
) -> bool:
    """Make `status` the whole status of `thing`, the object it was decided on; tells whether that took a write.

    With `known`, what this release does not know of the status is kept as it is.

    Raises ConflictError when the object has changed since (its newer version is in the store then), NotLeaderError and
    ApiError.
    """
    wanted, live = without_none(status), thing.get("status") or {}
    said = live if known is None else known.known_part(live)
    if wanted == said:
        return False
    if known is not None and said != live:
        wanted = known.carried(wanted, live, ours=await _owned_status(api, store, thing))
    await _apply_status(api, store, thing=thing, status=wanted, manager=names.FIELD_MANAGER)
    return True


async def write_conditions_only(api: Api, store: Store, *, thing: Manifest, conditions: Sequence[Manifest]) -> bool:
    """Set some conditions and leave all else of the status alone; tells whether that took a write.

    For a status that can't be read: what it says must not be lost. The conditions belong to a field manager of their
    own, so that our other fields don't count as taken back.

    Raises ConflictError when the object has changed since, NotLeaderError and ApiError.
    """
    live = (thing.get("status") or {}).get("conditions")
    shown = {each.get("type"): each for each in live if isinstance(each, Mapping)} if isinstance(live, list) else {}
    if all(shown.get(condition["type"]) == condition for condition in conditions):
        return False
    status = {"conditions": list(conditions)}
    await _apply_status(api, store, thing=thing, status=status, manager=f"{names.FIELD_MANAGER}-conditions")
    return True


async def _apply_status(api: Api, store: Store, *, thing: Manifest, status: Manifest, manager: str) -> None:
    metadata = thing["metadata"]
    manifest = {
        "apiVersion": thing["apiVersion"],
        "kind": thing["kind"],
        # The resourceVersion lets a status never land on a newer object, nor on a new one of the same name: no other
        # object ever has the same. The UID says so where the object is gone; of one that is there it isn't looked at.
        "metadata": {part: metadata[part] for part in ("name", "namespace", "uid", "resourceVersion")},
        "status": status,
    }
    try:
        answer = await api.apply(manifest, subresource="status", manager=manager)
    except ApiError as error:
        if error.status == 409:
            await _look_again(api, store, thing)
            raise ConflictError(f"{key_of(thing)} has changed since it was read") from error
        raise
    store.put(answer)


async def _look_again(api: Api, store: Store, thing: Manifest) -> Manifest | None:
    key = key_of(thing)
    fresh = await api.get(api.resource_of(key.kind), namespace=key.namespace, name=key.name)
    if fresh is not None:
        store.put(fresh)
    return fresh


async def _owned_status(api: Api, store: Store, thing: Manifest) -> Mapping[str, Any]:
    """Ask which fields of the status our manager owns: the store keeps no managedFields.

    Raises ConflictError when the object has changed since it was read.
    """
    fresh = await _look_again(api, store, thing)
    if fresh is None or fresh["metadata"]["resourceVersion"] != thing["metadata"]["resourceVersion"]:
        raise ConflictError(f"{key_of(thing)} has changed since it was read")
    return next(
        (
            entry["fieldsV1"].get("f:status") or {}
            for entry in fresh["metadata"].get("managedFields") or []
            if entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Apply"
            and entry.get("subresource") == "status"
        ),
        {},
    )  # fmt: skip
