"""Sees to it that a pool's Secret with tokens is there: made once where the operator may, else asked after.

Secrets are not watched, since the operator can't read them. What was found is remembered for a while, so that a pool
that changes often costs no request each time.
"""

from __future__ import annotations

import enum
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from twin_operator.domain.objects import Pool
from twin_operator.engine.api import Api
from twin_operator.engine.apply import Owner
from twin_operator.errors import ApiError
from twin_operator.kinds.miner_pool.access_secret import (
    ACCESS,
    TOKEN_BYTES,
    NeededSecret,
    build_probe,
)

log = logging.getLogger(__name__)


class AccessState(enum.Enum):
    """Whether the Secret is there."""

    PRESENT = "Present"
    MISSING = "Missing"
    UNKNOWN = "Unknown"
    """The API server didn't say: a quota or an admission webhook refused the question itself."""


MISSING_AGAIN_SECONDS: Final = 10.0
"""A Secret's creation and its end are no events here: nobody watches Secrets."""
FOUND_AGAIN_SECONDS: Final = 20.0
_YOUNG_SECONDS: Final = 120.0
"""So long after a pool was first looked at, a Secret that was found may be the former pool's of that name, about to be
taken by the garbage collector."""
_FRESH_SECONDS: Final = {AccessState.PRESENT: 300.0, AccessState.UNKNOWN: 30.0}
"""How long what was found is believed, unless it may come or go soon."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What is known of a pool's tokens."""

    state: AccessState
    secret: str
    why: str = ""
    """What the API server said, when the state isn't known."""
    made: bool = False
    """Whether this operator made it, for this very pool."""
    look_again: float | None = None
    """Seconds after which to ask again, as it may come or go soon."""


class AccessSecrets:
    """Makes or looks for the Secrets of all pools."""

    def __init__(self, api: Api, *, needed: NeededSecret = ACCESS, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._needed = api, needed
        self._clock = clock
        self._known: dict[str, tuple[float, Access]] = {}
        self._since: dict[str, float] = {}

    async def ensure(self, pool: Pool, owner: Owner) -> Access:
        """Return what is known of the pool's tokens, after making them where that is for the operator to do.

        Raises ApiError when the API server can't be reached.
        """
        now, name = self._clock(), self._needed.name_of(pool)
        known = self._known.get(pool.uid)
        if known is not None and known[1].secret == name and now < known[0] + _fresh_seconds(known[1]):
            return known[1]
        found = await self._look(pool, owner, name)
        young = now < self._since.setdefault(pool.uid, now) + _YOUNG_SECONDS
        if found.state is AccessState.MISSING:
            found = replace(found, look_again=MISSING_AGAIN_SECONDS)
        elif found.state is AccessState.PRESENT and young and not found.made:
            found = replace(found, look_again=FOUND_AGAIN_SECONDS)
        self._known[pool.uid] = (now, found)
        return found

    def forget(self, uid: str) -> None:
        """Drop what is known of a pool that is gone."""
        self._known.pop(uid, None)
        self._since.pop(uid, None)

    async def _look(self, pool: Pool, owner: Owner, name: str) -> Access:
        try:
            if not await self._api.would_create(build_probe(pool, name)):
                return Access(state=AccessState.PRESENT, secret=name)
            secret = self._needed.build(pool, secrets.token_urlsafe(TOKEN_BYTES))
            if secret is None:
                return Access(state=AccessState.MISSING, secret=name)
            metadata = {
                **secret["metadata"], "namespace": owner.namespace, "ownerReferences": [owner.reference()],
            }  # fmt: skip
            await self._api.create({**secret, "metadata": metadata})
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return Access(state=AccessState.PRESENT, secret=name)  # made between the two requests
            if error.status == 0 or error.status >= 500 or error.status == 429:
                raise
            log.warning("MinerPool %s/%s: Secret %s: %s", pool.namespace, pool.name, name, error.message)
            return Access(state=AccessState.UNKNOWN, secret=name, why=error.message)
        log.info("MinerPool %s/%s: made Secret %s with a token", pool.namespace, pool.name, name)
        return Access(state=AccessState.PRESENT, secret=name, made=True)


def _fresh_seconds(known: Access) -> float:
    return known.look_again / 2 if known.look_again is not None else _FRESH_SECONDS[known.state]
