"""Secrets P-access, the bearer tokens of those who may ask, and P-pool-tokens, by which agents know the miners: made
once with a random one and never touched again.

The operator may create Secrets but read none, so it can't see whether one exists. It needn't: creating answers
"already exists", also as a dry run, which makes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import labels

TOKEN_BYTES: Final = 32
POOL_TOKEN: Final = "first"  # noqa: S105  # a key's name


def access_secret_name(pool: Pool) -> str:
    """Return the name of the Secret with the bearer tokens."""
    reference = pool.spec.miner.access_secret_ref
    return reference.name if reference else names.access_secret_name(pool.name)


def build_access_secret(pool: Pool, *, token: str) -> Manifest | None:
    """Return the Secret to create where there is none; None when the pool names one, which is somebody else's."""
    if pool.spec.miner.access_secret_ref is not None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": access_secret_name(pool), "labels": labels(pool, "miner")},
        "type": "Opaque",
        "data": {names.ACCESS_CLIENT: base64.b64encode(token.encode()).decode()},
    }


def pool_tokens_name(pool: Pool) -> str:
    """Return the name of the Secret by which the pool's miners are known to its agents."""
    return names.pool_tokens_secret_name(pool.name)


def build_pool_tokens(pool: Pool, *, token: str) -> Manifest:
    """Return that Secret, to create where there is none. Each key is a token, of which any is taken."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": pool_tokens_name(pool), "labels": labels(pool, "engine")},
        "type": "Opaque",
        "data": {POOL_TOKEN: base64.b64encode(token.encode()).decode()},
    }


def build_probe(pool: Pool, name: str) -> Manifest:
    """Return an empty Secret of a name that the pool's pods read, to be created as a dry run only."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": pool.namespace}}


@dataclass(frozen=True, kw_only=True)
class NeededSecret:
    """A Secret that a pool's pods read."""

    name_of: Callable[[Pool], str]
    build: Callable[[Pool, str], Manifest | None]
    """Makes it with a token; None where it is somebody else's to make."""


ACCESS: Final = NeededSecret(
    name_of=access_secret_name, build=lambda pool, token: build_access_secret(pool, token=token)
)
POOL_TOKENS: Final = NeededSecret(
    name_of=pool_tokens_name, build=lambda pool, token: build_pool_tokens(pool, token=token)
)
