"""Who can be asked: the metagraph's miners with what each announces, read in the background, the last state kept."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
import orjson
from yarl import URL

from neurons.chain.axon import Endpoint
from neurons.chain.errors import UnusableAddress
from neurons.outside import TooLong, read_bounded
from neurons.receipts import Metagraph, Neuron
from neurons.validator.gateway.standing import MinerId
from neurons.wire.announcement import MAX_BYTES, PATH, Announcement, AnnouncementError, read_announcement
from neurons.wire.metagraph import MetagraphSource, Reading
from neurons.wire.signer import RequestSigner

log = logging.getLogger(__name__)

CHAT_PATH: Final = "/v1/chat/completions"
ANNOUNCE_SECONDS: Final = 15.0
"""Between two looks at a miner's announcement."""
KEEP_SECONDS: Final = 180.0
"""An announcement counts for so long after it was read: a miner that can't be reached isn't asked for ever."""
FETCH_SECONDS: Final = 5.0
AT_ONCE: Final = 32
READ_AT_ONCE_BYTES: Final = 64 * 1024
RENEW_SECONDS: Final = 2.0
"""At most so often a miner is asked anew because it answered by weights that it hadn't announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A miner that can be asked."""

    identity: MinerId
    uid: int
    coldkey: str
    url: URL
    chat_url: URL
    """Where it is asked; made once, and not with each question."""
    announcement: Announcement | None = None
    """The last that was read."""
    announced_at: float = float("-inf")
    """When it was read, by the monotonic clock."""

    @property
    def hotkey(self) -> str:
        """Its hotkey."""
        return self.identity.hotkey


class Roster:
    """The members by twin."""

    def __init__(
        self,
        source: MetagraphSource,
        signer: RequestSigner,
        session: aiohttp.ClientSession,
        *,
        private_addresses: bool,
        poll_seconds: float,
        announce_seconds: float = ANNOUNCE_SECONDS,
        changed: Callable[[set[MinerId]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`private_addresses`: whether miners may be on private networks and on this machine, as on a local subnet.

        `changed` is called with all members when the metagraph changed.
        """
        self._source, self._signer, self._session = source, signer, session
        self._private, self._poll, self._announce = private_addresses, poll_seconds, announce_seconds
        self._changed, self._clock = changed, clock
        self._members: dict[MinerId, Member] = {}
        self._by_twin: dict[str, dict[MinerId, Member]] = {}
        self._metagraph: Metagraph | None = None
        self.read_at: float | None = None
        """When the metagraph in use was read, in seconds since 1970."""
        self._problems: dict[str, str] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.looked = asyncio.Event()
        """Set once every miner of a metagraph was asked what it serves."""
        self.news = asyncio.Event()
        """Set when the chain was looked at, whatever it answered, and when `looked` is; who waits for it clears it."""

    @property
    def reading(self) -> Reading:
        """The metagraph in use, and what is wrong with the chain now."""
        return self._source.latest()

    @property
    def age_seconds(self) -> float:
        """Since the metagraph in use was read; infinite while none was."""
        return self._source.latest().age_seconds

    @property
    def problem(self) -> Exception | None:
        """Why the chain can't be read now."""
        return self._source.latest().problem

    @property
    def block(self) -> int | None:
        """The block of the metagraph in use."""
        return None if self._metagraph is None else self._metagraph.block

    @property
    def members(self) -> Mapping[MinerId, Member]:
        """Every miner with an address."""
        return self._members

    def for_twin(self, twin: str) -> list[Member]:
        """Return who announced that twin lately."""
        since = self._clock() - KEEP_SECONDS
        # A copy: pages of metrics are made in a thread.
        return [member for member in list(self._by_twin.get(twin, {}).values()) if member.announced_at >= since]

    def twins(self) -> list[str]:
        """Return the names of the twins that some miner announced lately, sorted."""
        return sorted(name for name in list(self._by_twin) if self.for_twin(name))

    async def follow(self) -> None:
        """Follow the metagraph and the announcements for ever."""
        announcing: asyncio.Task[None] | None = None
        try:
            while True:
                await self.refresh_metagraph()
                self.news.set()
                if announcing is None and self._metagraph is not None:
                    announcing = asyncio.create_task(self.follow_announcements())
                await asyncio.sleep(self._poll if self._metagraph is not None else min(1.0, self._poll))
        finally:
            if announcing is not None:
                announcing.cancel()

    async def refresh_metagraph(self) -> None:
        """Read the metagraph if it can be read; ask newcomers what they serve."""
        metagraph = (await self._source.refresh()).metagraph
        if metagraph is None or metagraph is self._metagraph:
            return
        self._metagraph, self.read_at = metagraph, time.time()
        members = {}
        for neuron in metagraph.neurons:
            url = self._url(neuron)
            if url is None or neuron.hotkey == self._signer.hotkey:
                continue
            identity = MinerId(neuron.hotkey, neuron.block_at_registration)
            new = Member(
                identity=identity, uid=neuron.uid, coldkey=neuron.coldkey, url=url, chat_url=url.with_path(CHAT_PATH)
            )
            old = self._members.get(identity)
            if old is not None and old.url == url:
                new = replace(new, announcement=old.announcement, announced_at=old.announced_at)
            members[identity] = new
        newcomers = [member for identity, member in members.items() if member.announcement is None]
        self._members = members
        self._by_twin = {}
        for member in members.values():
            self._place(member, None)
        self._changed(set(members))
        if self.looked.is_set():
            await self._ask_all(newcomers)

    async def refresh_announcements(self) -> None:
        """Ask every miner what it serves now."""
        await self._ask_all(list(self._members.values()))
        if not self.looked.is_set():
            self.looked.set()
            self.news.set()

    async def renew(self, identity: MinerId) -> Member | None:
        """Return a member with an announcement that is no older than two seconds, if it gives one."""
        member = self._members.get(identity)
        if member is None or self._clock() - member.announced_at < RENEW_SECONDS:
            return member
        await self._ask(member)
        return self._members.get(identity)

    async def follow_announcements(self) -> None:
        """Ask every miner now and then what it serves, for ever: an announcement counts for some minutes alone."""
        while True:
            await self.refresh_announcements()
            await asyncio.sleep(self._announce)

    async def _ask_all(self, members: Sequence[Member]) -> None:
        await asyncio.gather(*(self._ask(member) for member in members))

    async def _ask(self, member: Member) -> None:
        """Read one announcement; a failure leaves the last one until it is too old."""
        try:
            async with self._at_once, asyncio.timeout(FETCH_SECONDS):
                data = await self._fetch(member)
            read = functools.partial(
                read_announcement,
                data,
                hotkey=member.hotkey,
                now_ms=time.time_ns() // 1_000_000,
                netuid=self._metagraph.netuid if self._metagraph is not None else None,
            )
            # A long one takes a while to read, which nobody's question is to wait for.
            said = read() if len(data) <= READ_AT_ONCE_BYTES else await asyncio.to_thread(read)
        except (aiohttp.ClientError, TimeoutError, OSError, AnnouncementError, ValueError) as error:
            self._complain(member, str(error) if isinstance(error, AnnouncementError) else type(error).__name__)
            return
        self._problems.pop(member.hotkey, None)
        current = self._members.get(member.identity)
        if current is not None and current.url == member.url:
            self._place(replace(current, announcement=said, announced_at=self._clock()), current)

    async def _fetch(self, member: Member) -> bytes:
        url = member.url.with_path(PATH)
        headers = self._signer.headers(method="GET", url=url, body=b"", receiver=member.hotkey)
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                code = await _code_of(response)
                how = f"{response.status} ({code})" if code else str(response.status)
                raise AnnouncementError(f"it answered {how} when it was asked for its announcement")
            return await read_bounded(response, MAX_BYTES)

    def _place(self, member: Member, before: Member | None) -> None:
        for twin in before.announcement.twins if before is not None and before.announcement is not None else ():
            placed = self._by_twin.get(twin.name)
            if placed is not None:
                placed.pop(member.identity, None)
                if not placed:
                    del self._by_twin[twin.name]
        self._members[member.identity] = member
        for twin in member.announcement.twins if member.announcement is not None else ():
            if any(version.pods for version in twin.versions):
                self._by_twin.setdefault(twin.name, {})[member.identity] = member

    def _complain(self, member: Member, why: str) -> None:
        if self._problems.get(member.hotkey) != why:  # each problem once, not every 15 s
            self._problems[member.hotkey] = why
            log.warning("a miner's announcement can't be had", extra={"hotkey": member.hotkey, "why": why[:300]})

    def _url(self, neuron: Neuron) -> URL | None:
        """Return where a miner is; None for an address that must not be asked, whoever published it."""
        if not neuron.axon or not (neuron.hotkey.isascii() and neuron.hotkey.isalnum()):
            return None  # a key that is none can prove nothing, and must not stand in a request's headers
        host, _, port = neuron.axon.rpartition(":")
        host = host.strip("[]")
        try:
            number = int(port)
            if self._private and 0 < number < 2**16:
                ipaddress.ip_address(host)
                return URL.build(scheme="http", host=host, port=number)
            endpoint = Endpoint.parse(host, number, private_allowed=False)
        except (ValueError, UnusableAddress):
            return None
        return URL.build(scheme="http", host=str(endpoint.address), port=endpoint.port)


_ERROR_BYTES: Final = 4096
_CODE: Final = re.compile("[a-z_]{1,32}")


async def _code_of(response: aiohttp.ClientResponse) -> str | None:
    """Return the word for programs of a refusal, such as `no_permit`; the rest is the miner's to write as it likes."""
    try:
        code = orjson.loads(await read_bounded(response, _ERROR_BYTES))["error"]["code"]
    except (TooLong, orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
