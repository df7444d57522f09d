"""What a miner with a wallet has beside the rest: its hotkey, the signed door, receipts, the announcement.

Loaded only where a wallet is mounted: the SDK takes seconds and 50 MB, which no other miner pays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from bettertherapy_api.metrics import miner
from bettertherapy_api.metrics.collectors import Collectors
from bettertherapy_api.metrics.series import Process
from bettertherapy_api.report import SubnetReport
from neurons.chain.axon import serve_axon
from neurons.chain.connection import Chain, substrate_for
from neurons.chain.errors import ChainError, WalletError
from neurons.chain.metagraph import MetagraphReader
from neurons.chain.wallet import Hotkey, load_hotkey, refuse_coldkey
from neurons.miner import registration
from neurons.miner.doors import ReadSigned
from neurons.miner.errors import StartError
from neurons.miner.registration_report import WalletRefused
from neurons.miner.settings import SubnetSettings
from neurons.miner.stamp import Stamper
from neurons.miner.tables import Snapshot
from neurons.receipts import Keypair, Metagraph, ReceiptSigner
from neurons.wire.admission import Admission, Policy
from neurons.wire.announcement import announce
from neurons.wire.metagraph import MetagraphInFile, MetagraphSource
from neurons.wire.nonces import MemoryNonces, Nonces, RedisNonces
from neurons.wire.refusals import WireRefusal, undecidable

log = logging.getLogger(__name__)

FILE_POLL_SECONDS: Final = 1.0
PUBLISH_SECONDS: Final = 600.0
CHAIN_POLL_SECONDS: Final = 120.0
"""Ten blocks; the public endpoints take about one request a second from everybody."""
LOCAL_POLL_SECONDS: Final = 5.0
"""Of a local subnet, whose blocks may take a second, and which only its own neurons ask."""


class SubnetMetrics:
    """Metrics that only a miner with a wallet has."""

    def __init__(self, registry: CollectorRegistry, age: Callable[[], float]) -> None:
        make = Collectors(registry, of=Process.MINER)
        self.requests = make.counter(miner.SIGNED_REQUESTS)
        self.admitted = self.requests.labels("admitted")
        self.receipts = make.counter(miner.RECEIPTS)
        make.watch(miner.METAGRAPH_AGE_SECONDS, age)


class Subnet:
    """One miner's part in its subnet; implements `doors.SignedDoor`."""

    def __init__(self, settings: SubnetSettings, hotkey: Hotkey, *, registry: CollectorRegistry) -> None:
        """Raises StartError for settings that can't be."""
        self._settings, self._key = settings, hotkey
        self._read_at = 0.0
        self._looked = False
        """Whether the chain was asked once, with or without an answer."""
        self._publication = registration.Publication()
        self.news = asyncio.Event()
        """Set when `standing` may say something else."""
        self._chain, self._endpoint = _chain(settings), _endpoint(settings)
        source: MetagraphSource | None = None
        if settings.metagraph_file is not None:
            source = MetagraphInFile(settings.metagraph_file)
        elif self._chain is not None and settings.netuid is not None:
            source = MetagraphReader(self._chain, settings.netuid)
        self._source = source
        self.hotkey = hotkey.address
        self._metrics = SubnetMetrics(registry, self._age)
        policy = Policy(
            max_age=settings.max_age_seconds,
            allowed_skew=settings.skew_seconds,
            min_stake=settings.min_stake,
            per_second=settings.caller_rate,
            burst=settings.caller_burst,
        )
        self._nonces = _nonces(settings, self.hotkey)
        self._admission = (
            Admission(hotkey=self.hotkey, policy=policy, nonces=self._nonces, source=source)
            if self._nonces is not None and source is not None
            else None
        )

    @classmethod
    def open(cls, settings: SubnetSettings, *, registry: CollectorRegistry) -> Subnet:
        """Read the hotkey; raises StartError with a sentence that says what to do."""
        try:
            hotkey = load_hotkey(settings.wallet_dir)
        except WalletError as error:
            raise WalletRefused(error) from None
        subnet = cls(settings, hotkey, registry=registry)
        log.info("signing", extra={"hotkey": subnet.hotkey, "netuid": settings.netuid, "chain": settings.chain})
        if subnet._nonces is None:
            log.warning("the door for signed requests is shut: %s", _NO_SHARED_STORE)
        return subnet

    def standing(self) -> SubnetReport | None:
        """Return where this miner stands on its subnet; None until the chain was asked."""
        settings, source = self._settings, self._source
        if source is None or settings.netuid is None or not self._looked:
            return None
        if self._endpoint is not None and self._chain is not None and not self._publication.tried:
            return None
        return registration.standing(
            source.latest(), hotkey=self.hotkey, netuid=settings.netuid, owner=self._key.coldkey,
            publication=self._publication, read_at=self._read_at,
        )  # fmt: skip

    @property
    def keypair(self) -> Keypair:
        """What signs for this miner."""
        keypair: Keypair = self._key.keypair
        return keypair

    def stamper(self, base: Callable[[], Mapping[str, str | None]]) -> Stamper:
        """Return what signs receipts."""
        return Stamper(ReceiptSigner(self._key.keypair), base=base, signed=self._metrics.receipts.inc)

    def followers(self) -> list[Coroutine[Any, Any, None]]:
        """Return what must run as long as the miner does."""
        running = [self._follow()] if self._source is not None else []
        return [*running, self._publish()] if self._chain is not None and self._endpoint is not None else running

    async def close(self) -> None:
        """Give connections back."""
        if self._nonces is not None:
            await self._nonces.close()
        if self._chain is not None:
            await self._chain.close()

    async def enter(self, request: web.BaseRequest, read: ReadSigned) -> tuple[str, bytes]:
        """Judge a signed request; raises WireRefusal, and what `read` raises."""
        try:
            admission = self._open_door()
            presented = admission.present(request.headers)
            body = await read(request)
            caller = await admission.admit(presented, body, method=request.method, target=request.raw_path)
        except WireRefusal as refusal:
            self._metrics.requests.labels(refusal.code).inc()
            raise
        self._metrics.admitted.inc()
        return caller.hotkey, body

    def announcement(self, snapshot: Snapshot, base: Mapping[str, str | None]) -> bytes:
        """Return the signed announcement of the twins that can answer now."""
        twins = [
            {
                "name": twin.name,
                "doctor": twin.doctor,
                "versions": [
                    {"adapter": version.digest, "weightPercent": version.weight, "pods": pods}
                    for version in twin.active
                    if (pods := len(snapshot.pods_for(version)))
                ],
            }
            for twin in snapshot.twins.values()
            if snapshot.can_answer(twin)
        ]
        now_ms = time.time_ns() // 1_000_000
        return announce(self._key.keypair, netuid=self._settings.netuid, time_ms=now_ms, base=base, twins=twins)

    def _open_door(self) -> Admission:
        if self._admission is not None:
            return self._admission
        if self._nonces is None:
            raise undecidable("nonces_not_shared", _NO_SHARED_STORE, retry_after=60)
        raise undecidable(
            "no_metagraph",
            "this miner has no chain to read the metagraph from, so it knows no validator: set spec.miner.netuid and "
            "spec.miner.chain of its MinerPool",
            retry_after=60,
        )

    async def _follow(self) -> None:
        """Keep the metagraph; raises StartError once it says that our key is a coldkey."""
        source = self._source
        if source is None:
            return
        seconds = FILE_POLL_SECONDS if self._settings.metagraph_file is not None else self._chain_poll_seconds
        looked_at: Metagraph | None = None
        while True:
            metagraph = (await source.refresh()).metagraph
            self._looked = True
            self.news.set()
            if metagraph is not None and metagraph is not looked_at:
                self._read_at = time.time()
            if metagraph is not None and metagraph is not looked_at:
                try:
                    refuse_coldkey(self.hotkey, frozenset(neuron.coldkey for neuron in metagraph.neurons))
                except WalletError as error:
                    raise WalletRefused(error) from None
                looked_at = metagraph
            await asyncio.sleep(seconds)

    async def _publish(self) -> None:
        """Let the chain know where this miner is; look again now and then, since somebody may change it."""
        chain, endpoint, netuid = self._chain, self._endpoint, self._settings.netuid
        if chain is None or endpoint is None or netuid is None:
            return
        said = ""
        while True:
            try:
                changed = await serve_axon(chain, self._key, netuid, address=endpoint[0], port=endpoint[1])
                if changed:
                    log.info("published", extra={"address": self._settings.external_address, "netuid": netuid})
                said = ""
                self._publication = registration.Publication(
                    tried=True, address=self._settings.external_address, at=time.time()
                )
            except ChainError as error:
                self._publication = registration.Publication(tried=True, problem=error)
                # Serving goes on: those who know the address already still find it.
                if str(error) != said:
                    log.warning("the address can't be published: %s", error)
                said = str(error)
            self.news.set()
            # What stood in the way may be gone soon: the hotkey is registered, the chain answers.
            await asyncio.sleep(self._chain_poll_seconds if self._publication.problem is not None else PUBLISH_SECONDS)

    @property
    def _chain_poll_seconds(self) -> float:
        return LOCAL_POLL_SECONDS if self._chain is not None and self._chain.is_local else CHAIN_POLL_SECONDS

    def _age(self) -> float:
        return self._source.latest().age_seconds if self._source is not None else float("inf")


_NO_SHARED_STORE: Final = (
    "this pool has several miners, and no store in which they share what they accepted, so a request could be played "
    "again to another: set NONCE_STORE_URL in spec.miner.pod.env of the MinerPool, or spec.miner.replicas to 1"
)


def _nonces(settings: SubnetSettings, hotkey: str) -> Nonces | None:
    """Return the store; None where replicas have none to share. Raises StartError."""
    window, skew = settings.max_age_seconds, settings.skew_seconds
    if settings.nonce_store is None:
        return MemoryNonces(window_seconds=window, skew_seconds=skew) if settings.replicas == 1 else None
    try:
        return RedisNonces.connect(settings.nonce_store, receiver=hotkey, window_seconds=window, skew_seconds=skew)
    except ValueError:
        # Its words hold the URL, and the URL may hold a password.
        raise StartError(
            "NONCE_STORE_URL is no address of a Redis-protocol server: write redis://HOST:PORT/DB, rediss:// for TLS, "
            "or unix:///PATH"
        ) from None


def _chain(settings: SubnetSettings) -> Chain | None:
    """Return the way to the chain, if the miner was told of one; raises StartError for a network that is none."""
    if settings.chain is None or settings.netuid is None:
        return None
    try:
        substrate_for(settings.chain, timeout_seconds=1.0)
    except ValueError as error:
        raise StartError(f"spec.miner.chain of the MinerPool is no chain: {error}") from None
    return Chain(settings.chain)


def _endpoint(settings: SubnetSettings) -> tuple[str, int] | None:
    """Return address and port to publish; raises StartError for what is none."""
    if settings.external_address is None:
        return None
    host, _, port = settings.external_address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise StartError(
            f"spec.miner.externalAddress is {settings.external_address!r}: write it as IP:PORT, with a port from 1 to "
            "65535, such as 203.0.113.7:8091, or [2001:db8::7]:8091"
        )
    return host.strip("[]"), int(port)
