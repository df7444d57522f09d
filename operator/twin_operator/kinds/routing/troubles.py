"""What a pass over a pool's routing could not write: whom it concerns, what is said of it, when it is tried again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bettertherapy_api.routing import PoolHeader
from twin_operator.domain.objects import PoolRef
from twin_operator.errors import ApiError, ChildConflictError, ConflictError, OperatorError
from twin_operator.kinds.routing.plan import SlicePatch

log = logging.getLogger(__name__)

OF_POOL: Final = ""
"""In place of a twin's UID: what every pass looks at."""
OF_FULL_LOOK: Final = "*"
"""In place of a twin's UID: what only a look at all twins does."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that is not published as it should be."""

    why: str
    said: bool
    """Whether a person must do something; what passes by itself is only tried again."""
    of_pool: bool = False
    """Whether the pool says so too."""
    again: str | None = None
    """Under which name it is tried again: things of one name share a delay. None: only a change can help."""


@dataclass(kw_only=True)
class Pass:
    """One pass over a pool: what it could not do, by the UID of the twin that it concerns."""

    pool: PoolRef
    header: PoolHeader | None
    users: dict[str, set[str]] = field(default_factory=dict)
    """The twins that need a system prompt, by its digest."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    """What was decided on something that has changed since: to be looked at anew at once."""

    def keep(self, former: Mapping[str, Trouble], *, but: Collection[str]) -> None:
        """Take over the troubles of what this pass doesn't look at."""
        for uid, trouble in former.items():
            if uid != OF_POOL and uid not in but:
                self.troubles.setdefault(uid, trouble)

    def odd(self, uid: str, error: Exception) -> None:
        """Note that nothing can be made of a twin."""
        text = " ".join(str(error).split())[:300]
        why = f"the operator can't make it ({type(error).__name__}: {text})"
        self.troubles[uid] = Trouble(why=why, said=True)

    def not_written(self, patch: SlicePatch, error: OperatorError, *, of: str) -> None:
        """Note that a patch was not written; `of` is whom it concerns where it names no twin and no prompt of one."""
        refused = isinstance(error, ApiError) and error.refused
        prompted = {uid for digest in patch.prompts for uid in self.users.get(digest, ())}
        if patch.twins:
            for uid in patch.twins:
                self.failed(error, [uid], again=uid if refused else patch.name)
        elif prompted:
            self.failed(error, prompted, again=patch.name, what="its system prompt is not published: ")
        else:
            self.failed(error, [of], again=patch.name)

    def failed(self, error: OperatorError, uids: Iterable[str], *, again: str, what: str = "") -> None:
        """Note that something failed, for each of these UIDs."""
        if isinstance(error, ConflictError):
            self.conflicts.update(uids)
            return
        said, why = isinstance(error, ChildConflictError), str(error)
        if isinstance(error, ApiError) and error.refused:
            said, why = True, f"the API server refuses it: {error.message}"
        log.warning("RoutingSlices of MinerPool %s/%s: %s%s", self.pool.namespace, self.pool.name, what, error)
        for uid in uids:
            if what or uid not in self.troubles:  # of a twin's several, the prompt is what it waits for longest
                self.troubles[uid] = Trouble(
                    why=what + why, said=said, of_pool=bool(what) or uid in (OF_POOL, OF_FULL_LOOK), again=again
                )

    def said(self) -> dict[str, str]:
        """Return why twins are not published, by UID, and what the pool says ("")."""
        told = {uid: trouble for uid, trouble in self.troubles.items() if trouble.said}
        found = {uid: trouble.why for uid, trouble in told.items() if uid not in (OF_POOL, OF_FULL_LOOK)}
        of_pool = [told[uid].why for uid in sorted(told) if told[uid].of_pool]
        return {**found, OF_POOL: of_pool[0]} if of_pool else found
