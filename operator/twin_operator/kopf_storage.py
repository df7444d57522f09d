"""What kopf would keep of an object between two events: nothing, since the operator's handlers only hear of events.

kopf's own storages copy every object of every event three times over, to find what differs; with a hundred twins in a
slice that took more processor time than all reconciling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import kopf

_NOTHING: Final = kopf.BodyEssence({})


class NoDiffBase(kopf.DiffBaseStorage):
    """Finds no difference between two versions of an object: no handler is called for one."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Return the same of every object."""
        return _NOTHING

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Return the same of every object."""
        return _NOTHING

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Write nothing to the object."""


class NoProgress(kopf.ProgressStorage):
    """Remembers of no handler how far it came: raw events are handled once, and have no retries."""

    def fetch(self, *, key: Any, body: kopf.Body) -> Any:
        """Return that nothing is known."""
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Write nothing to the object."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Take nothing from the object."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Write nothing to the object."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return it as it is: nothing of ours is in it."""
        return essence
