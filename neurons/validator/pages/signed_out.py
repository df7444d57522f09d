"""Which sign-ins have ended: a cookie proves itself, so that one which somebody copied would outlive its sign-out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from neurons.validator.pages.cookies import StaffSession

MOST: Final = 10_000


class SignedOut:
    """The sign-ins that ended at this process, the latest; of more, all that began no later than the oldest did."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._none_before = -1

    def add(self, session: StaffSession) -> None:
        """End a sign-in."""
        self._ids[session.id] = session.since
        while len(self._ids) > MOST:
            _, since = self._ids.popitem(last=False)
            self._none_before = max(self._none_before, since)

    def has(self, session: StaffSession) -> bool:
        """Tell whether it has ended."""
        return session.id in self._ids or session.since <= self._none_before
