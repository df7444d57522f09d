"""Memories in statuses, read part by part: what another release or a hand has written oddly costs nothing beside it.

For memories alone, without which one decides anew. What may answer patients is read whole, or not at all.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Document = TypeVar("Document", bound=BaseModel)


def readable(model: type[Document], document: object) -> Document | None:
    """Return what can be read of a document, lists item by item; None where a part is missing that must be there."""
    whole = _read(model, document)
    if whole is not None or not isinstance(document, dict):
        return whole
    needed = {
        alias for name, field in model.model_fields.items() if field.is_required() for alias in (name, field.alias)
    }
    base: dict[str, Any] = {name: value for name, value in document.items() if name in needed}
    if _read(model, base) is None:
        return None
    kept = {name: _part(model, base, name, value) for name, value in document.items() if name not in needed}
    return _read(model, {**base, **{name: value for name, value in kept.items() if value is not None}})


def _part(model: type[BaseModel], base: dict[str, Any], name: str, value: object) -> object:
    """Return what can be read of one field."""
    if isinstance(value, list):
        return [item for item in value if _read(model, {**base, name: [item]}) is not None]
    return value if _read(model, {**base, name: value}) is not None else None


def _read(model: type[Document], document: object) -> Document | None:
    try:
        return model.model_validate(document)
    except ValidationError:
        return None
