"""Secret P-access: the bearer tokens of those who may ask, made once with a random one and never touched again.

The operator may create Secrets but read none, so it can't see whether one exists. It needn't: creating answers
"already exists", also as a dry run, which makes nothing.
"""

from __future__ import annotations

import base64
from typing import Final

from bettertherapy_api import names
from twin_operator.domain.objects import Pool
from twin_operator.engine.resources import Manifest
from twin_operator.kinds.podspec.parts import labels

TOKEN_BYTES: Final = 32


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


def build_access_probe(pool: Pool) -> Manifest:
    """Return an empty Secret of the name that the pool's miners read, to be created as a dry run only."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": access_secret_name(pool), "namespace": pool.namespace},
    }
