"""One way to write a document as bytes, so that whoever hashes or signs it gets the same (`docs/receipts.md`).

UTF-8 JSON without white space, members sorted by the code points of their names, characters as themselves.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson


class NotCanonicalError(ValueError):
    """The bytes are no JSON object in canonical form."""


def canonical(document: Any) -> bytes:
    """Return the canonical form of what JSON can hold; raises ValueError for anything else."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"it can't be written as JSON: {error}") from None


def parse_canonical(data: bytes) -> dict[str, Any]:
    """Return the object that `data` is the canonical form of; raises NotCanonicalError.

    Strict, because a second form of a signed document (a member twice, say) could be read in two ways.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise NotCanonicalError("it is no JSON") from None
    if not isinstance(document, dict):
        raise NotCanonicalError("it is no JSON object")
    try:
        written = canonical(document)
    except ValueError:  # orjson reads 1024 levels and writes 254
        raise NotCanonicalError("its JSON is nested too deep") from None
    if written != data:
        raise NotCanonicalError("its JSON is not in canonical form: somebody wrote it anew")
    return document


def sha256(data: bytes) -> str:
    """Return `sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
