"""One adapter's way into one engine, and back in whenever the engine forgets it.

    fetch ─> check ─> load ─> confirm by root ─> prove ─> Verified ──(engine lost it)──┐
      ^                                                                                │
      └── Failed: retryable ones after a pause, others when the table changes  <───────┘
          (or, when it was measured in the engine, when another engine process answers)

Each adapter has a task of its own, so a bad one costs the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.report import AdapterReport, AdapterState, FailureReason
from neurons.agent.engine import EngineAnswer, EngineClient, EngineError
from neurons.agent.failure import Failure
from neurons.agent.gates import Gates
from neurons.agent.monitor import EngineMonitor, Listing
from neurons.agent.proof import Proven, Prover
from neurons.agent.refusals import is_for_good
from neurons.agent.started import OF_ANOTHER_START, Started, changed_beyond_attention
from neurons.agent.wanted import WantedAdapter
from neurons.cluster import Backoff
from neurons.store import StoreError

log = logging.getLogger(__name__)

MAX_MESSAGE: Final = 500
_REPUSH_SECONDS: Final = 300.0
"""How often an artifact with wrong content is looked at again: someone may have pushed the right one."""
_PASSING: Final = (200, 408, 425, 429)
"""Answers that say nothing of the adapter: unreadable ones, and those of a server that has no time now."""
_REPUSHABLE: Final = (FailureReason.DIGEST_MISMATCH, FailureReason.MANIFEST_INVALID)
_ON_THE_WAY: Final = frozenset({AdapterState.FETCHING, AdapterState.LOADING, AdapterState.VERIFYING})
"""From one to another of these nobody but a reader of the report sees a difference."""


ANYTHING: Final = Started()
"""All that the pool may hold."""


class Fetch(Protocol):
    """neurons.store.fetch_adapter, with the pod's settings filled in; raises StoreError."""

    def __call__(self, uri: str, digest: str, destination: Path) -> Awaitable[AdapterManifest]:
        """Bring the adapter to `destination` and return its manifest."""


@dataclass(frozen=True)
class PoolFacts:
    """What the routing table says about the pool as a whole; a change wakes adapters that failed because of it."""

    base_model: str
    max_lora_rank: int


class AdapterKeeper:
    """Brings one adapter in and keeps it there; `run` never returns."""

    def __init__(
        self,
        adapter: WantedAdapter,
        path: Path,
        *,
        pool: PoolFacts,
        fetch: Fetch,
        engine: EngineClient,
        monitor: EngineMonitor,
        prover: Prover,
        gates: Gates,
        loadable: bool,
        started: Started = ANYTHING,
        backoff: Backoff,
        changed: Callable[[], None],
        moved: Callable[[], None],
        loaded: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.adapter = adapter
        self.path = path
        self.pool = pool
        self._fetch = fetch
        self._engine = engine
        self._monitor = monitor
        self._prover = prover
        self._gates = gates
        self._loadable = loadable
        self._started = started
        self._backoff = backoff
        self._changed, self._moved = changed, moved
        self._loaded = loaded
        self._lost = asyncio.Event()
        self._again = asyncio.Event()
        self._verified_at = 0.0
        self._epoch = 0
        self._proven: Proven | None = None
        self._load_millis: int | None = None
        self._manifest_rank: int | None = None
        self._attention_only: bool | None = None
        self._failing_since: float | None = None
        self._verdict: Failure | None = None
        self._afresh = False
        self._reported: tuple[tuple[object, ...], AdapterReport] | None = None
        """The last report, and what it was made from."""
        self.manifest: AdapterManifest | None = None
        """The adapter's own, once it was verified."""
        self.state = AdapterState.FETCHING
        self.failure: Failure | None = None
        self.report()

    @property
    def name(self) -> str:
        """The served name."""
        return self.adapter.served_name

    @property
    def verified(self) -> bool:
        """Whether requests may go to it now."""
        return self.state is AdapterState.VERIFIED

    @property
    def hopeless(self) -> bool:
        """Whether no new try in this pod helps: it failed for good, or needs an engine that was started for more."""
        failure = self.failure
        return failure is not None and (not failure.retryable or failure.reason in OF_ANOTHER_START)

    def failing_seconds(self) -> float:
        """Return for how long it has been failing, 0 when it is not."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def report(self) -> AdapterReport:
        """Return what to tell the operator: the same object as long as that is the same."""
        said = (
            self.adapter, self.state, self.failure, self._proven, self._manifest_rank, self._load_millis,
            self._attention_only,
        )  # fmt: skip
        if self._reported is None or self._reported[0] != said:
            self._reported = (said, self._report())
        return self._reported[1]

    def _report(self) -> AdapterReport:
        reason = message = retryable = None
        proven = self._proven if self.verified else None
        milli_nats = None
        if proven is not None:
            milli_nats, message = proven.milli_nats, proven.message
        if self.state is AdapterState.FAILED and self.failure is not None:
            reason, message, retryable = self.failure.reason, self.failure.message[:MAX_MESSAGE], self.failure.retryable
            milli_nats = self.failure.milli_nats
        elif self.verified and self._manifest_rank not in (None, self.adapter.rank):
            # The bytes are the right ones, so it goes on serving; but a new pod would refuse it.
            reason = FailureReason.RANK_MISMATCH
            message = (
                f"it serves, but the twin now declares rank {self.adapter.rank} and the adapter has "
                f"{self._manifest_rank}: a new pod will refuse it. Set adapter.rank to {self._manifest_rank}."
            )
        return AdapterReport(
            twin=self.adapter.twin,
            twin_uid=self.adapter.twin_uid,
            digest=self.adapter.digest,
            state=self.state,
            reason=reason,
            message=message,
            retryable=retryable,
            fingerprint_milli_nats=milli_nats,
            load_millis=self._load_millis if self.verified else None,
            proof=proven.proof if proven is not None else None,
            attention_only=self._attention_only,
            measured_milli_nats=proven.measured if proven is not None else None,
        )

    def update(self, adapter: WantedAdapter, pool: PoolFacts) -> None:
        """Take what a new table says; a failed adapter tries again when its own entry or the pool's facts changed."""
        if (adapter, pool) == (self.adapter, self.pool):
            return
        self.adapter, self.pool = adapter, pool
        if not self.verified:
            self._again.set()
        self._changed()

    def look_at(self, listing: Listing, *, epoch: int) -> None:
        """Notice that the engine forgot the adapter, from a listing asked for after it was verified."""
        failure = self.failure
        if self.state is AdapterState.FAILED and failure is not None and failure.epoch not in (None, epoch):
            # What one engine process showed is no verdict in the next.
            failure.epoch = None
            self._again.set()
        if not self.verified or self._lost.is_set():
            return
        forgotten = listing.asked_at > self._verified_at and not self._is_listed(listing)
        if forgotten or epoch != self._epoch:
            self.lose()

    def lose(self) -> None:
        """Stop serving it until it is verified again."""
        if self.verified:
            log.warning("adapter %s is gone from the engine; loading it again", self.name)
            self._set(AdapterState.LOADING)
            self._lost.set()

    def take_out(self, failure: Failure) -> None:
        """Stop serving it, now, and have it unloaded: a second look showed what the first did not."""
        if self.verified:
            log.warning("adapter %s is taken out: %s: %s", self.name, failure.reason, failure.message)
            self._verdict = self.failure = failure
            self._set(AdapterState.FAILED)
            self._lost.set()

    def load_afresh(self) -> None:
        """Have it unloaded, loaded and proven again: the engine answers otherwise than it did."""
        if self.verified:
            self._afresh = True
            self.lose()

    def leave(self) -> None:
        """Say that it is on its way out; its `run` has ended."""
        self._set(AdapterState.UNLOADING)

    async def run(self) -> None:
        """Bring the adapter in, again and again; cancel to stop."""
        while True:
            self._lost.clear()
            self._again.clear()
            try:
                if (verdict := self._verdict) is not None:
                    await self._carry_out(verdict)
                await self._bring_in()
            except Failure as failure:
                await self._fail(failure)
            except Exception as error:
                log.exception("adapter %s: unexpected error", self.name)
                text = f"unexpected {type(error).__name__} in the agent, see its log; it tries again."
                await self._fail(Failure(FailureReason.ENGINE_REFUSED, text, retryable=True))
            else:
                self._backoff.reset()
                await self._lost.wait()

    async def _carry_out(self, verdict: Failure) -> None:
        """Unload what is to be taken out; raises the verdict."""
        self._verdict = None
        try:
            await self._forget()
        except EngineError as error:
            self._afresh = True
            log.warning("adapter %s can't be unloaded now: %s; no request is let through to it", self.name, error)
        raise verdict

    async def _bring_in(self) -> None:
        manifest = await self._fetch_and_check()
        digest = self.adapter.digest
        self._prover.refuse_known(digest)
        if self.state is not AdapterState.FAILED:
            self._set(AdapterState.LOADING)
        await self._monitor.wait_up()
        async with self._gates.engine:
            self._epoch = self._monitor.epoch
            began = time.monotonic()
            try:
                self._check_base()
                await self._prover.prepare(digest)
                await self._load()
                self._set(AdapterState.VERIFYING)
                proven = await self._prover.prove(self.name, digest, manifest, forget=self._forget)
            except EngineAnswer as error:
                raise _refused(error) from error
            except EngineError as error:
                self._monitor.kick()
                text = f"{error}. It is tried again."
                raise Failure(FailureReason.ENGINE_UNREACHABLE, text, retryable=True) from error
        if self._monitor.epoch != self._epoch:
            text = "the engine restarted while the adapter was being loaded. It is tried again."
            raise Failure(FailureReason.ENGINE_UNREACHABLE, text, retryable=True)
        seconds = time.monotonic() - began
        self._load_millis, self._proven = round(seconds * 1000), proven
        self._manifest_rank, self.manifest = manifest.rank, manifest
        self._verified_at = time.monotonic()
        self.failure = self._failing_since = None
        self._loaded(seconds)  # before it counts as verified: Ready waits for a look at the base model beside it
        self._set(AdapterState.VERIFIED)
        log.info("adapter %s verified in %d ms: %s, %s", self.name, self._load_millis, proven.proof, proven.milli_nats)

    async def _fetch_and_check(self) -> AdapterManifest:
        adapter = self.adapter
        if self.state not in (AdapterState.FAILED, AdapterState.LOADING):
            self._set(AdapterState.FETCHING)
        try:
            manifest = await self._gates.fetch(lambda: self._fetch(adapter.uri, adapter.digest, self.path))
        except StoreError as error:
            raise Failure(error.reason, str(error), retryable=error.retryable) from error
        if manifest.base_model.name != self.pool.base_model:
            raise Failure(
                FailureReason.BASE_MODEL_MISMATCH,
                f"the adapter was trained on {manifest.base_model.name}, this pool serves {self.pool.base_model}. "
                "Train it on the pool's base model, or select another pool.",
                retryable=False,
            )
        if manifest.rank != adapter.rank:
            raise Failure(
                FailureReason.RANK_MISMATCH,
                f"the twin declares rank {adapter.rank}, the adapter has rank {manifest.rank}. "
                f"Set adapter.rank to {manifest.rank}.",
                retryable=False,
            )
        if manifest.rank > self.pool.max_lora_rank:
            raise Failure(
                FailureReason.RANK_TOO_HIGH,
                f"the adapter has rank {manifest.rank}, the pool takes {self.pool.max_lora_rank} at most. "
                "Raise the pool's engine.maxLoraRank, or train the adapter with a lower rank.",
                retryable=False,
            )
        if self._loadable:
            beyond = await asyncio.to_thread(changed_beyond_attention, self.path)
            self._attention_only = None if beyond is None else not beyond
            self._started.refuse(rank=manifest.rank, beyond=beyond or ())
        return manifest

    def _check_base(self) -> None:
        bases = self._monitor.listing.bases()
        if self._loadable and bases and self.pool.base_model not in bases:
            raise Failure(
                FailureReason.BASE_MODEL_MISMATCH,
                f"this pod's engine serves {', '.join(bases)}, the pool asks for {self.pool.base_model}. "
                "The pod is being replaced; if it stays, check the Deployment's rollout.",
                retryable=True,
            )

    async def _load(self) -> None:
        listing = await self._list()
        if not self._loadable:
            if listing.root(self.name) is None:
                raise Failure(
                    FailureReason.ENDPOINT_NOT_LOADABLE,
                    f"the server at this pool's endpoint does not list {self.name}, and adapters can't be loaded into "
                    "a server that is not ours. Load it there under this name, or use a pool with its own engine.",
                    retryable=True,
                )
            return
        if self._is_listed(listing) and not self._afresh:
            return  # the agent restarted, the engine did not
        if listing.root(self.name) is not None:
            # Other bytes under our name. Forgetting the name makes the next load a new adapter to vLLM.
            log.warning("adapter %s is loaded from %s; unloading it", self.name, listing.root(self.name))
            await self._finish(self._engine.unload(self.name))
        self._afresh = False
        try:
            await self._finish(self._engine.load(self.name, self.path))
        except EngineAnswer as error:
            if not error.is_name_taken:
                raise
            # "Already loaded" is success only if it is ours, which the listing tells.
            listing = await self._list()
            if listing.root(self.name) is None:
                raise
        else:
            listing = await self._list()
        if not self._is_listed(listing):
            root = listing.root(self.name)
            raise Failure(
                FailureReason.ROOT_MISMATCH,
                f"the engine answers for {self.name} from {root or 'nowhere'}, expected {self.path}. "
                "It is unloaded and loaded again; if this stays, restart the pod.",
                retryable=True,
            )

    async def _forget(self) -> None:
        """Take unproven weights out of the engine."""
        if self._loadable:
            await self._finish(self._engine.unload(self.name))

    async def _list(self) -> Listing:
        asked_at = time.monotonic()
        return Listing(tuple(await self._engine.models()), asked_at)

    def _is_listed(self, listing: Listing) -> bool:
        root = listing.root(self.name)
        return root is not None if not self._loadable else root == str(self.path)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a load or unload end even when the twin is deleted meanwhile: the engine would do it after all."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})  # bounded by the engine client's own time limit
            if not task.cancelled():
                task.exception()  # seen; whoever cancelled us unloads the name anyway
            raise

    async def _fail(self, failure: Failure) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        known = self.failure
        self.failure = failure
        if known is None or (known.reason, known.message) != (failure.reason, failure.message):
            log.warning("adapter %s: %s: %s", self.name, failure.reason, failure.message)
        self._set(AdapterState.FAILED)
        if failure.retryable:
            pause: float | None = self._backoff.next()
        else:
            pause = _REPUSH_SECONDS if failure.reason in _REPUSHABLE else None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._again.wait()
        self._again.clear()

    def _set(self, state: AdapterState) -> None:
        on_the_way = {self.state, state} <= _ON_THE_WAY
        self.state = state
        self.report()  # made in this adapter's own turn: all of a thousand at once would hold the loop
        (self._moved if on_the_way else self._changed)()


def _refused(error: EngineAnswer) -> Failure:
    if "max_lora_rank" in error.message:
        return Failure(
            FailureReason.RANK_TOO_HIGH,
            f"the engine refuses it: {error.message[:200]}. Raise the pool's engine.maxLoraRank, or train the adapter "
            "with a lower rank.",
            retryable=False,
        )
    broken = error.status >= 500 and not is_for_good(error.message)
    server_side = broken or error.status in _PASSING or error.is_not_found
    return Failure(
        FailureReason.ENGINE_REFUSED,
        f"the engine answered {error.status} {error.kind}: {error.message[:300]}. "
        + ("It is tried again; see the engine's log." if server_side else "Check the adapter's format (PEFT LoRA)."),
        retryable=server_side,
    )
