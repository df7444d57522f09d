"""Which conversation a request belongs to, so that all its turns meet one version and one pod."""

from __future__ import annotations

import hashlib
from typing import Final

from neurons.miner.asked import EngineRequest

SESSION_HEADER: Final = "x-session-id"


def session_of(asked: EngineRequest, *, client: str, header: str | None) -> bytes:
    """Return the conversation's key.

    In this order: the header `x-session-id`; `user`, `safety_identifier` or `prompt_cache_key` of the body; how the
    conversation begins, which every later turn repeats. Two clients never share a conversation.
    """
    if header:
        told = b"h" + header.encode("utf-8", "surrogatepass")
    elif asked.identity is not None:
        told = b"i" + asked.identity.encode("utf-8", "surrogatepass")
    else:
        told = b"b" + asked.beginning
    key = hashlib.blake2b(client.encode("utf-8", "surrogateescape")).digest()  # a key has at most 64 bytes, a name more
    return hashlib.blake2b(told, key=key, digest_size=16).digest()
