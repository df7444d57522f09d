"""What the pool's routing wants a pod to hold: adapters by served name, found anew only for twins that changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bettertherapy_api.routing import TwinEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WantedAdapter:
    """One adapter and whose it is."""

    twin: str
    twin_uid: str
    served_name: str
    digest: str
    uri: str
    rank: int
    """The rank the twin declares."""


class Wanted:
    """The adapters of all twins that are to be on this pod.

    Two twins of one name may both want the same adapter while one replaces the other.
    """

    def __init__(self, pod_uid: str) -> None:
        self._pod_uid = pod_uid
        self._by_twin: dict[str, tuple[WantedAdapter, ...]] = {}
        self._by_name: dict[str, dict[str, WantedAdapter]] = {}

    def update(self, twins: Mapping[str, TwinEntry], changed: Iterable[str]) -> set[str]:
        """Take the twins of these UIDs as they are now, or gone; return the served names whose adapter may differ."""
        touched: set[str] = set()
        for uid in changed:
            for adapter in self._by_twin.pop(uid, ()):
                del self._by_name[adapter.served_name][uid]
                touched.add(adapter.served_name)
            twin = twins.get(uid)
            if twin is None or not twin.is_held_by(self._pod_uid):
                continue
            self._by_twin[uid] = adapters = tuple(
                WantedAdapter(twin.name, uid, one.served_name, one.digest, one.uri, one.rank)
                for one in {one.served_name: one for one in twin.adapters}.values()
            )
            for adapter in adapters:
                self._by_name.setdefault(adapter.served_name, {})[uid] = adapter
                touched.add(adapter.served_name)
        for name in touched:
            if not self._by_name.get(name, True):
                del self._by_name[name]
        return touched

    def adapter(self, name: str) -> WantedAdapter | None:
        """Return what is to be served under a name, of the twin that said so last.

        None when nothing is, and when twins disagree on its content: a name may never stand for two adapters.
        """
        candidates = self._by_name.get(name)
        if not candidates:
            return None
        if len({adapter.digest for adapter in candidates.values()}) > 1:
            log.error("%s is wanted with several digests, by twins %s: it is not served", name, ", ".join(candidates))
            return None
        return next(reversed(candidates.values()))

    def __iter__(self) -> Iterator[WantedAdapter]:
        for name in self._by_name:
            if (adapter := self.adapter(name)) is not None:
                yield adapter
