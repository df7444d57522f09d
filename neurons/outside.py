"""HTTP to addresses that somebody else named: whom they may lead to, and how much is read.

An address that a subnet's neuron gives us may lead into our own network. What answers at link-local, loopback and
multicast addresses (the node's metadata, the pod's own ports) is never asked, by whichever name it goes.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

TOTAL_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 10.0


_METADATA: Final = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Nodes' metadata that isn't at a link-local address."""


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddress(OSError):  # noqa: N818 - said of the address
    """It leads where nobody outside has anything to ask."""


class TooLong(ValueError):  # noqa: N818 - said of an answer
    """An answer is longer than it may be."""


class GuardedResolver(AbstractResolver):
    """Resolves names, but for those that lead to forbidden addresses. `loopback`: this machine may be asked."""

    def __init__(self, *, loopback: bool) -> None:
        self._inner, self._loopback = aiohttp.ThreadedResolver(), loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a host's addresses. Raises ForbiddenAddress where one of them is."""
        found = await self._inner.resolve(host, port, family)
        for each in found:
            check_address(each["host"], loopback=self._loopback)
        return found

    async def close(self) -> None:
        """Close it."""
        await self._inner.close()


def outside_session(*, loopback: bool = False, seconds: float = TOTAL_SECONDS) -> aiohttp.ClientSession:
    """Return a session for requests to such addresses; ask it by `ask` alone, which looks at addresses as numbers too.

    `loopback`: this machine may be asked, where nobody else's network is near, as in a test.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=GuardedResolver(loopback=loopback), use_dns_cache=False, force_close=True, limit=16
        ),
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
        headers={"Accept-Encoding": "identity", "User-Agent": "bettertherapy"},
        cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
    )  # fmt: skip


def check_url(url: URL, *, loopback: bool = False) -> None:
    """Look whether an URL may be asked as far as it can be told without a resolver. Raises ForbiddenAddress."""
    if url.scheme not in ("http", "https") or not url.host:
        raise ForbiddenAddress("it is no http:// or https:// address")
    try:
        ipaddress.ip_address(url.host)
    except ValueError:
        return
    check_address(url.host, loopback=loopback)


def check_address(host: str, *, loopback: bool = False) -> None:
    """Look whether an IP address may be asked. Raises ForbiddenAddress."""
    address = ipaddress.ip_address(host.partition("%")[0])
    address = _within(address)
    if address.is_loopback and loopback:
        return
    if (
        address in _METADATA
        or address.is_link_local
        or address.is_loopback
        or address.is_multicast
        or address.is_unspecified
    ):
        raise ForbiddenAddress(f"{address} is this machine's own, or its node's: nobody outside may name it")


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one leads to, if it does: mapped, or by NAT64 (RFC 6052)."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


async def read_bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return a response's body. Raises TooLong above `most` bytes, having read little more than that."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TooLong("it is compressed, which nobody asked for")
    if (response.content_length or 0) > most:
        raise TooLong(f"it has {response.content_length} bytes, at most {most} are read")
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            raise TooLong(f"it has more than {most} bytes")
        parts.append(part)
    return b"".join(parts)
