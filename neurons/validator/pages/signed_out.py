"""Which sign-ins have ended: a cookie proves itself, so that one which somebody copied would outlive its sign-out.

Where there is a ledger it knows of all that ended, at whichever gateway, also before this one started. While it can't
be asked no sign-in is known to go on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from typing import Final, Protocol

from neurons.ledger import LedgerError
from neurons.validator.pages.cookies import STAFF_SECONDS, StaffSession

MOST: Final = 10_000
LEDGER_SECONDS: Final = 2.0
"""How long a page waits for the ledger's word."""


class SignOuts(Protocol):
    """What a ledger keeps of them."""

    async def sign_out(self, sign_in_ids: Collection[str], *, kept_seconds: float) -> None:
        """Note that these have ended, for so long at least. Raises LedgerError."""

    async def signed_out(self, sign_in_id: str) -> bool:
        """Tell whether this one has ended. Raises LedgerError."""


class UnknownSignInError(Exception):
    """It can't be told whether a sign-in has ended: the ledger can't be asked."""


class SignedOut:
    """The sign-ins that ended at this process, the latest; of more, all that began no later than the oldest did."""

    def __init__(self, ledger: SignOuts | None = None) -> None:
        """`ledger`: where those of all gateways are kept; None: this process knows its own alone."""
        self._ledger = ledger
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._unwritten: dict[str, None] = {}
        """Those that the ledger wasn't there to be told of."""
        self._none_before = -1

    async def add(self, session: StaffSession) -> bool:
        """End a sign-in; False where other gateways aren't told yet: they will be as soon as somebody comes."""
        self._note(session)
        if self._ledger is None:
            return True
        self._unwritten[session.id] = None
        while len(self._unwritten) > MOST:
            del self._unwritten[next(iter(self._unwritten))]
        try:
            await self._write(self._ledger)
        except UnknownSignInError:
            return False
        return True

    async def has(self, session: StaffSession) -> bool:
        """Tell whether it has ended; raises UnknownSignInError."""
        if session.id in self._ids or session.since <= self._none_before:
            return True
        if self._ledger is None:
            return False
        await self._write(self._ledger)
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                ended = await self._ledger.signed_out(session.id)
        except (LedgerError, TimeoutError) as error:
            raise UnknownSignInError from error
        if ended:
            self._note(session)
        return ended

    def _note(self, session: StaffSession) -> None:
        self._ids[session.id] = session.since
        while len(self._ids) > MOST:
            _, since = self._ids.popitem(last=False)
            self._none_before = max(self._none_before, since)

    async def _write(self, ledger: SignOuts) -> None:
        """Tell the ledger of those that it wasn't told of; raises UnknownSignInError."""
        if not self._unwritten:
            return
        telling = tuple(self._unwritten)
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                await ledger.sign_out(telling, kept_seconds=STAFF_SECONDS)
        except (LedgerError, TimeoutError) as error:
            raise UnknownSignInError from error
        for each in telling:
            self._unwritten.pop(each, None)
