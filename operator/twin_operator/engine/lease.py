"""Leadership by a coordination.k8s.io Lease: one replica writes, the others keep their caches warm.

Why no two write at once. Times in seconds, with the defaults; D = `duration` (10), R = `renew_deadline` (6).

1. The holder counts from when its last successful renewal was *sent* (t). It begins no write after t + R, and gives
   each write up at t + R at the latest: `require` returns what is left, and that is the request's timeout. The guard is
   asked again when the connection is there and the bytes are about to be sent.
2. A candidate counts from when it *saw* that renewal, which is after t, by its own clock: it takes the Lease at t + D
   at the earliest. So D - R (4 s) pass between the last byte that the holder sends and the first write of another, for
   clocks that run apart and for a request that the API server is still working on when its client gives up.
3. A holder that is paused (SIGSTOP, a frozen node) finds when it goes on that its time is over: the clock counts time
   in which the machine slept. What it had in hand is refused by 1. Only a pause between the last look at the clock and
   the system call right after it can send one request late. That one carries the resourceVersion of what it was decided
   on, so it is refused wherever another leader has written since; where none has, it is no other than one sent in
   time, and the new leader sees it in its watches and reconciles it.
4. A replica that gains the Lease first calls `prepare`, which lists everything anew with consistent reads, and leads
   only afterwards: it decides on nothing older than its Lease. The Lease is renewed meanwhile; if it runs out, or
   preparing takes longer than `prepare_seconds`, the replica does not lead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
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
    prepare_seconds: float = 60.0
    """How long a replica may prepare before it gives the Lease back, for another to try."""


def monotonic() -> float:
    """Return seconds of a clock that is never set and also counts the time in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


async def _nothing() -> None:
    """Prepare nothing."""


class Leadership:
    """Takes part in the election; `leading` is set while this replica may write.

    `prepare` is awaited when the Lease was gained, before this replica leads; `on_gained` and `on_lost` are called at
    the moments when `leading` changes.
    """

    def __init__(
        self,
        api: Api,
        settings: LeaseSettings,
        *,
        prepare: Callable[[], Awaitable[None]] = _nothing,
        on_gained: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._api = api
        self._settings = settings
        self._prepare = prepare
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._clock = clock
        self._renewed_at = float("-inf")
        self._seen: tuple[str, str] | None = None  # holder and renewTime as last read
        self._seen_at = float("-inf")
        self._held = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None
        self.leading = asyncio.Event()
        self.ticked_at = clock()
        """When the election loop last went round; an old value means that it hangs."""

    def require(self) -> float:
        """Return for how many seconds this replica may write from now on; asked before each write.

        Raises NotLeaderError when it doesn't lead at this very moment.
        """
        left = self._renewed_at + self._settings.renew_deadline - self._clock()
        if not self.leading.is_set() or left <= 0:
            raise NotLeaderError(f"{self._settings.identity} does not lead")
        return left

    async def run(self) -> None:
        """Take part until cancelled; then give the Lease back so that another replica can take it at once."""
        watchdog = asyncio.create_task(self._watch_deadline(), name="lease-deadline")
        try:
            while True:
                self.ticked_at = self._clock()
                await self._round()
                if self._preparing is not None and self._preparing.done():
                    self._preparing.result()  # a defect there must not leave a Lease held that nobody uses
                    self._preparing = None
                await asyncio.sleep(self._settings.retry)
        finally:
            watchdog.cancel()
            held = self._held.is_set()
            await self._end_preparing()
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
        if not acquired:
            self._lose("another replica holds the Lease")
            return
        self._renewed_at = sent_at
        if not self._held.is_set():
            self._held.set()
            self._preparing = asyncio.create_task(self._lead(), name="lease-prepare")

    async def _lead(self) -> None:
        """Prepare and lead; a Lease with which nothing can be begun is given back."""
        identity = self._settings.identity
        log.info("%s holds the Lease and looks at everything anew", identity)
        try:
            async with asyncio.timeout(self._settings.prepare_seconds):
                while True:
                    try:
                        await self._prepare()
                        break
                    except* ApiError as group:
                        log.warning("preparing to lead: %s", group.exceptions[0])
                    await asyncio.sleep(self._settings.retry)
        except TimeoutError:
            self._lose(f"preparing took longer than {self._settings.prepare_seconds} s")
            await self._give_back()
            return
        if self._held.is_set():
            log.info("%s leads now", identity)
            self.leading.set()
            metrics.IS_LEADER.set(1)
            self._on_gained()

    async def _end_preparing(self) -> None:
        if self._preparing is not None and not self._preparing.done():
            self._preparing.cancel()
            await asyncio.wait({self._preparing})

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
        ours = holder == settings.identity and self._held.is_set()
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
            await self._held.wait()
            left = self._renewed_at + self._settings.renew_deadline - self._clock()
            if left <= 0:
                self._lose(f"the Lease could not be renewed for {self._settings.renew_deadline} s")
            else:
                await asyncio.sleep(left)

    def _lose(self, why: str) -> None:
        if not self._held.is_set():
            return
        log.warning("%s leads no more: %s", self._settings.identity, why)
        self._held.clear()
        preparing, self._preparing = self._preparing, None
        if preparing is not None and preparing is not asyncio.current_task():
            preparing.cancel()
        if self.leading.is_set():
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
