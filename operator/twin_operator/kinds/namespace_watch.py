"""Asks Prometheus at intervals, one set of questions for all that a namespace has of what is watched.

What is asked, and what follows from the answers, is each watch's own. Nothing here delays a reconciliation: those read
what was seen last.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from twin_operator.engine.prometheus import Prometheus, Sample, query_all
from twin_operator.errors import PrometheusError

log = logging.getLogger(__name__)


class Watched(Protocol):
    """A pool or a twin, as far as it is needed here."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def uid(self) -> str:
        """Its UID."""


Thing = TypeVar("Thing", bound=Watched)
Kept = TypeVar("Kept")


class NamespaceWatch(ABC, Generic[Thing, Kept]):
    """Remembers something of each thing that is watched, for as long as it is."""

    unknown: ClassVar[str]
    """What is logged when Prometheus doesn't answer; its places are for the namespace and the error."""

    def __init__(self, prometheus: Prometheus, *, matchers: str, poll_seconds: float) -> None:
        """`matchers`: of the series of one namespace, which stands as {namespace} in them."""
        self._prometheus = prometheus
        self._matchers = matchers
        self._poll_seconds = poll_seconds
        self._kept: dict[str, Kept] = {}
        """By the thing's UID."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Look once at all that is watched now."""
        by_namespace: dict[str, list[Thing]] = {}
        for thing in self._things():
            by_namespace.setdefault(thing.namespace, []).append(thing)
        uids = {thing.uid for things in by_namespace.values() for thing in things}
        self._kept = {uid: kept for uid, kept in self._kept.items() if uid in uids}
        await asyncio.gather(*(self._ask(namespace, things) for namespace, things in by_namespace.items()))

    async def _ask(self, namespace: str, things: Sequence[Thing]) -> None:
        answers = None
        try:
            answers = await query_all(self._prometheus, self._queries(self._matchers.replace("{namespace}", namespace)))
        except PrometheusError as error:
            log.warning(self.unknown, namespace, error)
        await self._take(namespace, things, answers)

    @abstractmethod
    def _things(self) -> Iterable[Thing]:
        """Return what is watched now."""

    @abstractmethod
    def _queries(self, matchers: str) -> Mapping[str, str]:
        """Return the queries for one namespace by their names."""

    @abstractmethod
    async def _take(
        self, namespace: str, things: Sequence[Thing], answers: Mapping[str, Sequence[Sample]] | None
    ) -> None:
        """Take the answers by the queries' names; None where Prometheus didn't answer."""
