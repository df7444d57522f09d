"""Leadership by a coordination.k8s.io Lease: one replica writes, the others keep their caches warm.

The holder renews every `retry` seconds. It stops writing by itself once `renew_deadline` seconds have passed since its
last successful renewal was *sent*, which is before the Lease can expire for anybody else (`duration`): two never write
at once, even when the API server can't be reached. Candidates judge expiry by their own clock from when they saw the
Lease change, so clocks need not agree.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from twin_operator.engine import metrics
from twin_operator.engine.api import Api
from twin_operator.engine.resources import LEASE, Manifest
from twin_operator.errors import ApiError, NotLeaderError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeaseSettings:
    """Which Lease, who we are, and the times in seconds."""

    namespace: str
    name: str
    identity: str
    duration: int = 10
    renew_deadline: float = 6.0
    retry: float = 2.0


class Leadership:
    """Takes part in the election; `leading` is set while this replica may write."""

    def __init__(
        self,
        api: Api,
        settings: LeaseSettings,
        *,
        on_gained: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._settings = settings
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._clock = clock
        self._renewed_at = float("-inf")
        self._seen: tuple[str, str] | None = None  # holder and renewTime as last read
        self._seen_at = float("-inf")
        self.leading = asyncio.Event()
        self.ticked_at = clock()
        """When the election loop last went round; an old value means that it hangs."""

    def require(self) -> None:
        """Raise NotLeaderError unless this replica leads at this very moment; asked before each write."""
        if not self.leading.is_set() or self._clock() - self._renewed_at >= self._settings.renew_deadline:
            raise NotLeaderError(f"{self._settings.identity} does not lead")

    async def run(self) -> None:
        """Take part until cancelled; then give the Lease back so that another replica can take it at once."""
        watchdog = asyncio.create_task(self._watch_deadline(), name="lease-deadline")
        try:
            while True:
                self.ticked_at = self._clock()
                await self._round()
                await asyncio.sleep(self._settings.retry)
        finally:
            watchdog.cancel()
            held = self.leading.is_set()
            self._lose("shutting down")
            if held:
                await self._give_back()

    async def _round(self) -> None:
        sent_at = self._clock()
        try:
            async with asyncio.timeout(self._settings.renew_deadline):
                acquired = await self._acquire_or_renew()
        except ApiError as error:
            # 409: somebody else wrote first. Anything else: keep what we have until the deadline says otherwise.
            log.log(logging.INFO if error.status == 409 else logging.WARNING, "lease: %s", error)
            return
        except TimeoutError:
            log.warning("lease: no answer within %s s", self._settings.renew_deadline)
            return
        if acquired:
            self._renewed_at = sent_at
            if not self.leading.is_set():
                log.info("%s leads now", self._settings.identity)
                self.leading.set()
                metrics.IS_LEADER.set(1)
                self._on_gained()
        else:
            self._lose("another replica holds the Lease")

    async def _acquire_or_renew(self) -> bool:
        """Return whether the Lease is ours now."""
        settings = self._settings
        lease = await self._api.get(LEASE, namespace=settings.namespace, name=settings.name)
        if lease is None:
            await self._api.create(self._lease(metadata={}, transitions=0, acquired=None))
            return True
        spec = lease.get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), self._clock()
        expires = self._seen_at + float(spec.get("leaseDurationSeconds") or settings.duration)
        # A Lease in our own name that we did not renew is an earlier life's (same pod name): it may still be writing.
        ours = holder == settings.identity and self.leading.is_set()
        if holder and not ours and self._clock() < expires:
            return False
        transitions = int(spec.get("leaseTransitions") or 0) + (0 if ours else 1)
        metadata = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        await self._api.replace(
            self._lease(metadata=metadata, transitions=transitions, acquired=spec.get("acquireTime") if ours else None)
        )
        return True

    def _lease(
        self, *, metadata: Manifest, transitions: int, acquired: str | None, holder: str | None = None
    ) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        settings = self._settings
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": settings.name, "namespace": settings.namespace, **metadata},
            "spec": {
                "holderIdentity": settings.identity if holder is None else holder,
                "leaseDurationSeconds": settings.duration,
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    async def _watch_deadline(self) -> None:
        """Stop leading on time even while a renewal hangs."""
        while True:
            await self.leading.wait()
            left = self._renewed_at + self._settings.renew_deadline - self._clock()
            if left <= 0:
                self._lose(f"the Lease could not be renewed for {self._settings.renew_deadline} s")
            else:
                await asyncio.sleep(left)

    def _lose(self, why: str) -> None:
        if self.leading.is_set():
            log.warning("%s leads no more: %s", self._settings.identity, why)
            self.leading.clear()
            metrics.IS_LEADER.set(0)
            self._on_lost()

    async def _give_back(self) -> None:
        settings = self._settings
        try:
            lease = await self._api.get(LEASE, namespace=settings.namespace, name=settings.name)
            if lease is None or lease["spec"].get("holderIdentity") != settings.identity:
                return
            transitions = int(lease["spec"].get("leaseTransitions") or 0)
            metadata = {"resourceVersion": lease["metadata"]["resourceVersion"]}
            await self._api.replace(self._lease(metadata=metadata, transitions=transitions, acquired=None, holder=""))
            log.info("gave the Lease back")
        except ApiError as error:
            log.warning("the Lease was not given back and expires in %d s: %s", settings.duration, error)
