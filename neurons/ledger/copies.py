"""Copies of datasets in a store: finding lines that may be learned no more, and taking them out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from neurons.ledger.dataset import without_lines
from neurons.ledger.errors import LedgerError
from neurons.store import open_store

_MAX_OBJECTS: Final = 100_000
_MAX_BYTES: Final = 256 * 1024 * 1024
_BY_DIGEST: Final = re.compile(r"(?:.*/)?([0-9a-f]{64})\.jsonl")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of one file."""

    name: str
    lines: int
    """That were taken out."""
    deleted: bool
    """It was named after its bytes' digest, which no other bytes may have: it is gone as a whole."""


async def clean(uri: str, line_ids: Collection[str]) -> tuple[Cleaned, ...]:
    """Take the lines with these ids out of every `*.jsonl` below a folder of a store. Raises StoreError, LedgerError.

    A file appears with all its lines or without these; one that holds none of them isn't touched.
    """
    location = open_store(uri)
    cleaned: list[Cleaned] = []
    found = await location.listing(at_most=_MAX_OBJECTS + 1)
    if len(found) > _MAX_OBJECTS:
        raise LedgerError(
            f"{uri} has more than {_MAX_OBJECTS} objects: name its folders one by one, so that each is looked through."
        )
    for meta in found:
        name = str(meta["path"])
        if not name.endswith(".jsonl") or (data := await location.read(name, at_most=_MAX_BYTES)) is None:
            continue
        kept, count = without_lines(data, line_ids)
        if not count:
            continue
        named = _BY_DIGEST.fullmatch(name)
        deleted = named is not None and named[1] == hashlib.sha256(data).hexdigest()
        if deleted or not kept:
            await location.delete(name)
        else:
            await location.put(name, kept)
        cleaned.append(Cleaned(name=name, lines=count, deleted=deleted or not kept))
    return tuple(cleaned)
