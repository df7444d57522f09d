"""What the pool's routing wants of a pod: adapters by served name, found anew only for twins that changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from bettertherapy_api.routing import Adapter, TwinEntry

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
    """Adapters of all twins: those that are to be on a pod, or those that it may be asked to load.

    Two twins of one name may both want the same adapter while one replaces the other.
    """

    def __init__(self, adapters_of: Callable[[TwinEntry], Iterable[Adapter]]) -> None:
        """`adapters_of` returns which adapters of a twin's entry are meant."""
        self._adapters_of = adapters_of
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
            if twin is None:
                continue
            self._by_twin[uid] = adapters = tuple(
                WantedAdapter(twin.name, uid, one.served_name, one.digest, one.uri, one.rank)
                for one in {one.served_name: one for one in self._adapters_of(twin)}.values()
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
