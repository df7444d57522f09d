"""The gateway as a process: start everything, listen, and leave without cutting an answer."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import web

from bettertherapy_api.report import GatewayView
from neurons.chain.connection import Chain
from neurons.chain.errors import WalletError
from neurons.chain.metagraph import MetagraphReader
from neurons.chain.wallet import load_hotkey
from neurons.cluster import ClusterClient
from neurons.http_server import HttpServer
from neurons.ledger import Ledger, QueuedLedger, Recorder, WriterProcess
from neurons.metrics_port import MetricsPort
from neurons.miner.bodies import bounded_request
from neurons.miner.cors import Cors
from neurons.miner.errors import StartError
from neurons.miner.memory import RequestMemory
from neurons.miner.upstream import Upstream
from neurons.receipts import Keypair
from neurons.validator.gateway.asking import Asker
from neurons.validator.gateway.chat import Chats
from neurons.validator.gateway.deliveries import Deliveries
from neurons.validator.gateway.feedback import Feedback
from neurons.validator.gateway.files import FileError, FollowedFile
from neurons.validator.gateway.keys import Keyring, KeysFile
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.notices import EmergencyNotices, Notices, unread_words
from neurons.validator.gateway.ranking import AgreementRanker, Ranker
from neurons.validator.gateway.recording import Recording, Scrubber
from neurons.validator.gateway.roster import Roster
from neurons.validator.gateway.rounds import Rounds, RoundsReader
from neurons.validator.gateway.scrubbing import load_scrubber
from neurons.validator.gateway.security_log import SecurityLog
from neurons.validator.gateway.server import GatewayServer
from neurons.validator.gateway.sessions import SECRET_FILE, Ids, Sessions, kept_secret, named_secret
from neurons.validator.gateway.settings import Settings
from neurons.validator.gateway.standing import MinerId, Standings
from neurons.validator.gateway.subnet_report import report_view
from neurons.validator.gateway.subnet_view import view
from neurons.validator.gateway.task_desk import TaskDesk
from neurons.validator.gateway.tidying import Tidying
from neurons.validator.gateway.twins import Twins, TwinsFile
from neurons.validator.pages import Gateway, open_pages
from neurons.validator.rounds.reading import LedgerRounds
from neurons.wire.metagraph import MetagraphInFile, MetagraphSource
from neurons.wire.signer import RequestSigner

log = logging.getLogger(__name__)
T = TypeVar("T")

MINER_IDLE_SECONDS: Final = 15.0
"""A connection to a miner that rested longer isn't used again."""
BACKLOG: Final = 1024
LAST_BYTES_SECONDS: Final = 5.0
FILE_POLL_SECONDS: Final = 1.0
CHAIN_POLL_SECONDS: Final = 120.0
"""Ten blocks; the public endpoints take about one request a second from everybody."""
LOCAL_POLL_SECONDS: Final = 5.0
"""A local subnet is nobody else's."""
SECRET_BYTES: Final = 32
LARGE_PERCENT: Final = 75
"""Of a client's memory, for large bodies: the pages' visitors are one client, as an app's patients are, and some who
send much and slowly must not keep out the small questions of the others."""


class _StoppedEarlyError(Exception):
    """It was told to end while it started."""


class GatewayService:
    """One gateway. `run` returns when it has been told to stop and has drained."""

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        keypair: Keypair | None = None,
        recorder: Recorder | None = None,
        scrub: Scrubber | None = None,
        ranker: Ranker | None = None,
        notices: Notices | None = None,
        rounds: RoundsReader | None = None,
        connect: Callable[[], ClusterClient] = ClusterClient,
    ) -> None:
        """What is given stands in place of what the settings name. Raises StartError with what to do."""
        self._settings = settings
        self.metrics = metrics or Metrics()
        try:
            self._keypair = keypair or load_hotkey(settings.wallet_dir).keypair
            self._keys = FollowedFile(settings.keys_file, KeysFile, what="API keys")
            self._twins_file = (
                FollowedFile(settings.twins_file, TwinsFile, what="twins") if settings.twins_file is not None else None
            )
        except (WalletError, FileError) as error:
            raise StartError(str(error)) from None
        self._secret = _secret(settings)
        self._recorder, self._scrub = recorder, scrub
        self._connect = connect
        self._ranker = ranker or AgreementRanker()
        self._notices = notices or EmergencyNotices(country=settings.country)
        self._rounds = rounds
        self.standings = Standings()
        self.roster: Roster | None = None
        """Once it runs."""
        self.port = 0
        """The port it listens on, once `listening` is set."""
        self.metrics_port = 0
        """The port where its metrics are, then."""
        self.listening = asyncio.Event()
        self._stop = asyncio.Event()
        self._chats: Chats | None = None
        self._writer: WriterProcess | None = None

    def stop(self) -> None:
        """Begin to drain; a second call changes nothing."""
        if not self._stop.is_set():
            log.info("draining")
            if self._chats is not None:
                self._chats.draining = True
            self._stop.set()

    async def _page_of_metrics(self) -> bytes:
        return await asyncio.to_thread(self.metrics.render)

    async def _openmetrics_page(self) -> bytes:
        return await asyncio.to_thread(self.metrics.render_openmetrics)

    async def run(self) -> None:
        """Serve until `stop`; where that comes before it listens, it doesn't begin."""
        try:
            await self._run()
        except _StoppedEarlyError:
            log.info("told to end before it listened")

    async def _run(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            source, private, poll_seconds = self._source(stack)
            recorder, waiting = await self._ledger(stack)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=MINER_IDLE_SECONDS),
                    timeout=aiohttp.ClientTimeout(
                        total=settings.patience.deadline + 5, sock_connect=settings.patience.connect
                    ),
                    auto_decompress=False,
                    headers={"Accept-Encoding": "identity", "User-Agent": "bettertherapy"},
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            )
            upstream = await stack.enter_async_context(
                Upstream(connect_seconds=settings.patience.connect, idle_seconds=MINER_IDLE_SECONDS)
            )
            signer = RequestSigner(self._keypair)
            twins = Twins(self._twins_file)
            self.roster = roster = Roster(
                source, signer, session, private_addresses=private,
                poll_seconds=settings.poll_seconds or poll_seconds, announce_seconds=settings.announce_seconds,
                changed=self._changed,
            )  # fmt: skip
            recording = Recording(recorder, self._scrub, metrics=self.metrics)
            sessions = Sessions(Ids(self._secret), recorder, uid_of=twins.uid)
            if isinstance(recorder, QueuedLedger):
                recorder.on_erasure(sessions.forget)
            asker = Asker(
                roster=roster, standings=self.standings, twins=twins, signer=signer, upstream=upstream,
                metrics=self.metrics, patience=settings.patience,
            )  # fmt: skip
            self._chats = chats = Chats(
                roster=roster, twins=twins, asker=asker, ranker=self._ranker, standings=self.standings,
                notices=self._notices, sessions=sessions, recording=recording, metrics=self.metrics,
                wanted=settings.patience.miners, keep_alive_seconds=settings.keep_alive_seconds,
            )  # fmt: skip
            chats.draining = self._stop.is_set()
            feedback = Feedback(
                sessions=sessions, recording=recording, recorder=recorder, standings=self.standings, twins=twins,
                metrics=self.metrics,
            )  # fmt: skip
            keyring, security_log = Keyring(self._keys), SecurityLog()
            pages = None
            if settings.pages_origin is not None:
                gateway = Gateway(
                    chats=chats, feedback=feedback, sessions=sessions, recording=recording, recorder=recorder,
                    twins=twins, roster=roster, standings=self.standings, keyring=keyring, scrub=self._scrub,
                    notices=self._notices,
                )  # fmt: skip
                opened = await stack.enter_async_context(
                    open_pages(gateway, settings=settings, secret=self._secret, http=session, log=security_log)
                )
                pages = opened.handle
            server = GatewayServer(
                keyring=keyring, chats=chats, feedback=feedback, roster=roster, twins=twins, metrics=self.metrics,
                cors=Cors(settings.cors_origins), max_in_flight=settings.max_in_flight,
                memory=RequestMemory(
                    settings.request_memory_bytes, large_percent=LARGE_PERCENT, process="gateway"
                ),
                unread=unread_words(country=settings.country), pages=pages,
                rounds=Rounds(self._rounds or _reader(recorder)), beside=self._beside, log=security_log,
                by_https=(settings.pages_origin or "").startswith("https:"),
                tasks=TaskDesk(
                    keypair=self._keypair, ledger=_ledger_of(recorder), reading=source.latest, metrics=self.metrics,
                    deliveries=Deliveries(settings.deliveries) if settings.deliveries is not None else None,
                ),
            )  # fmt: skip
            metrics_port = await stack.enter_async_context(
                MetricsPort(
                    self._page_of_metrics,
                    host=settings.host,
                    port=settings.metrics_port,
                    openmetrics=self._openmetrics_page,
                )
            )
            self.metrics_port = metrics_port.port
            self.metrics.watch(age=lambda: roster.age_seconds, twins=lambda: len(roster.twins()), waiting=waiting)
            followers = [
                *_tidying(settings.deliveries, recorder),
                roster.follow(),
                self._keys.follow(),
                *self._reporting(roster, twins, recorder),
            ]
            if self._twins_file is not None:
                followers.append(self._twins_file.follow())
            try:
                await self._serve(server, followers)
            finally:
                await recording.close(seconds=settings.drain_seconds)

    def _reporting(self, roster: Roster, twins: Twins, recorder: Recorder | None) -> list[Coroutine[Any, Any, None]]:
        """Tell the operator what is seen of the subnet, where there is one to tell."""
        own, netuid = self._settings.own_pod, self._settings.netuid
        if own is None or netuid is None:
            return []

        def see() -> GatewayView | None:
            asked = roster.looked.is_set()
            return view(
                roster.reading, netuid=netuid, hotkey=str(self._keypair.ss58_address), miners=len(roster.members),
                read_at=roster.read_at, now=time.time(),
                twins=sum(twins.serves(name) for name in roster.twins()) if asked else None,
                ledger_trouble=recorder.trouble if isinstance(recorder, QueuedLedger) else None,
            )  # fmt: skip

        return [report_view(own, see, roster.news, connect=self._connect)]

    async def _serve(self, server: GatewayServer, followers: list[Coroutine[Any, Any, None]]) -> None:
        settings = self._settings
        runner = web.ServerRunner(
            HttpServer(server.handle, request_factory=bounded_request),
            shutdown_timeout=LAST_BYTES_SECONDS,
        )
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        await site.start()
        self.port = runner.addresses[0][1]
        self.listening.set()
        log.info("listening", extra={"port": self.port, "hotkey": str(self._keypair.ss58_address)})
        tasks = [asyncio.create_task(follower) for follower in followers]
        stopped = asyncio.create_task(self._stopped())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # a follower only ends by an error: without it nothing new would be learned
            await asyncio.sleep(settings.drain_delay_seconds)
            await site.stop()
            if await server.idle(settings.drain_seconds):
                log.info("drained")
            else:
                log.error("questions were cut: they ran longer than drain-seconds", extra={"count": server.in_flight})
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            await runner.cleanup()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def _source(self, stack: AsyncExitStack) -> tuple[MetagraphSource, bool, float]:
        """Return whom the metagraph comes from, whether miners may be on private networks, and how often to look."""
        settings = self._settings
        if settings.metagraph_file is not None:
            return MetagraphInFile(settings.metagraph_file), True, FILE_POLL_SECONDS
        if settings.chain is None or settings.netuid is None:
            raise StartError("name the subnet: --chain and --netuid, or --metagraph-file to run without a chain")
        try:
            chain = Chain(settings.chain)
        except ValueError as error:
            raise StartError(f"--chain is no chain: {error}") from None
        stack.push_async_callback(chain.close)
        seconds = LOCAL_POLL_SECONDS if chain.is_local else CHAIN_POLL_SECONDS
        return MetagraphReader(chain, settings.netuid), chain.is_local or settings.private_addresses, seconds

    async def _ledger(self, stack: AsyncExitStack) -> tuple[Recorder | None, Callable[[], float]]:
        if self._recorder is not None:
            return self._recorder, lambda: 0.0
        settings = self._settings
        if settings.ledger_url is None:
            log.warning("no ledger is named (LEDGER_URL): nothing is kept of what is asked, answered and rated")
            return None, lambda: 0.0
        if self._scrub is None:
            self._scrub = await self._unless_stopped(asyncio.to_thread(load_scrubber))
        queued = await self._unless_stopped(
            QueuedLedger.open(
                settings.ledger_url, folder=settings.state_dir / "queue",
                # The one that this replaces ends its requests, what it records, and its queue, one after another.
                wait_seconds=3 * settings.drain_seconds,
                beside=True,
            )
        )  # fmt: skip
        if (writer := queued.writer) is not None:
            self._writer = writer
            self.metrics.watch_writer(runs=lambda: writer.runs, ends=lambda: writer.ends)

        async def leave() -> None:
            """Wait for what was recorded last to come into the ledger: the queue's disk may go with the pod."""
            if not await queued.drained(timeout_seconds=settings.drain_seconds):
                log.error("the ledger didn't take in time what waits for it", extra={"count": queued.waiting})
            await queued.close()

        stack.push_async_callback(leave)
        return queued, lambda: float(queued.waiting)

    def _beside(self) -> str:
        """Return what is wrong with the processes beside this one; nothing is lost by it."""
        if self._writer is None or self._writer.runs:
            return ""
        return "the process that writes the ledger is being started; records are queued on disk"

    async def _unless_stopped(self, starting: Coroutine[Any, Any, T]) -> T:
        """Return what this step of the start brings; raises _StoppedEarlyError once it is told to end."""
        step, stopped = asyncio.ensure_future(starting), asyncio.create_task(self._stopped())
        try:
            await asyncio.wait((step, stopped), return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                return await step
            raise _StoppedEarlyError
        finally:
            step.cancel()
            stopped.cancel()
            await asyncio.gather(step, stopped, return_exceptions=True)

    def _changed(self, members: set[MinerId]) -> None:
        self.standings.keep(members)
        self.metrics.keep(members)


def _reader(recorder: Recorder | None) -> RoundsReader | None:
    """Return what reads rounds in the ledger; None where there is none to read."""
    ledger = _ledger_of(recorder)
    return LedgerRounds(ledger) if ledger is not None else None


def _tidying(deliveries: str | None, recorder: Recorder | None) -> list[Coroutine[Any, Any, None]]:
    """Take away what was delivered and is settled, where anything is delivered."""
    ledger = _ledger_of(recorder)
    if deliveries is None or ledger is None:
        return []
    return [Tidying(Deliveries(deliveries), ledger).follow()]


def _ledger_of(recorder: Recorder | None) -> Ledger | None:
    """Return the database behind the queue; None where there is none."""
    if isinstance(recorder, QueuedLedger):
        return recorder.ledger
    return recorder if isinstance(recorder, Ledger) else None


def _secret(settings: Settings) -> bytes:
    """Return the secret of ids: the file that is named, or one that this gateway keeps. Raises StartError."""
    if settings.secret_file is not None:
        try:
            secret = named_secret(settings.secret_file)
        except OSError as error:
            raise StartError(f"the secret of session ids can't be read: {error.strerror}") from None
        if len(secret) < SECRET_BYTES:
            raise StartError(f"the secret of session ids has fewer than {SECRET_BYTES} bytes: make it of random ones")
        return secret
    path: Path = settings.state_dir / SECRET_FILE
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return kept_secret(settings.state_dir)
        secret = secrets.token_bytes(SECRET_BYTES)
        part = path.with_name(f".{SECRET_FILE}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StartError(f"the state folder {settings.state_dir} can't be used: {error.strerror}") from None
    return secret
