"""The bytes that btauth/1 signs, made from a body's digest: what goes to several miners is hashed once.

The SDK's `http_auth.build_payload` is the norm, and hashes the body each time; a test holds the two against each other.
"""

from __future__ import annotations

import hashlib


def body_digest(body: bytes) -> str:
    """Return a body's digest as it is signed: 64 hex digits of its SHA-256."""
    return hashlib.sha256(body).hexdigest()


def payload(*, scheme: str, method: str, target: str, digest: str, nonce_ns: int, sender: str, receiver: str) -> bytes:
    """Return what is signed. `target`: path and query as they are sent; `digest`: by `body_digest`.

    Raises UnicodeEncodeError for a target that is no text, as of bytes that were sent without being encoded.
    """
    return (f"btauth/1\n{scheme}\n{method.upper()}\n{target}\n{digest}\n{nonce_ns}\n{sender}\n{receiver}").encode()
