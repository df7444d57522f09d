"""Publishing where a miner serves: the external address, which others can reach."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import bittensor as bt

from neurons.chain import errors
from neurons.chain.connection import Chain
from neurons.chain.wallet import Hotkey


@dataclass(frozen=True)
class Endpoint:
    """An IP address and a port; `str` is as the metagraph writes it."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, address: str, port: int, *, private_allowed: bool) -> Endpoint:
        """Check an address before it is published.

        `private_allowed` is for local subnets, whose neurons share a private network.

        Raises:
            UnusableAddress: no one else could reach it.
        """
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            raise errors.UnusableAddress(
                f"{address!r} is no IP address, and the chain keeps no names: give the address that it stands for"
            ) from None
        if not 0 < port < 2**16:
            raise errors.UnusableAddress(f"{port} is no port: give one from 1 to 65535")
        reached = _reached(parsed)
        kind = _unusable(reached)
        if kind is None and not private_allowed and _is_private(reached):
            kind = "a private address, which only its own network can reach"
        if kind is not None:
            raise errors.UnusableAddress(
                f"{address} is {kind}: validators could not reach the miner. Give the external one, for example that "
                "of the Service of type LoadBalancer"
            )
        return cls(parsed, port)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _reached(address: _Address) -> _Address:
    """Return the address that packets to this one come to: of IPv4 that is written as IPv6 (mapped, 6to4)."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_private(address: _Address) -> bool:
    """Tell whether only its own network can reach it: of providers and of some clouds' pods (100.64.0.0/10) too."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_private or address.is_site_local
    return address.is_private or not address.is_global


def _unusable(address: _Address) -> str | None:
    if address.is_loopback:
        return "this machine's own (loopback)"
    if address.is_unspecified:
        return "no address but 'all of this machine's'"
    if address.is_link_local:
        return "link-local, known to one network segment"
    if address.is_multicast:
        return "a multicast address"
    if address.is_reserved:
        return "reserved"
    return None


async def serve_axon(chain: Chain, hotkey: Hotkey, netuid: int, *, address: str, port: int) -> bool:
    """Publish where this hotkey serves; returns whether anything had to be written, so call it at every start.

    Raises:
        UnusableAddress: nobody could reach it; the chain isn't asked.
        NotRegistered: the hotkey has no UID.
        TooEarly: another address was published too recently.
        ChainError: any other of `errors`.
    """
    endpoint = Endpoint.parse(address, port, private_allowed=chain.is_local)

    async def publish(client: bt.Client) -> bool:
        # Looked at first, each time and at one block: after an answer that was lost the address is there already.
        view = await client.at()
        if await view.query(bt.storage.SubtensorModule.Uids, [netuid, hotkey.address]) is None:
            raise errors.NotRegistered(
                f"{hotkey.address} isn't registered on subnet {netuid}: register it with its coldkey"
            )
        served = await view.query(bt.storage.SubtensorModule.Axons, [netuid, hotkey.address])
        if served and (int(served["ip"]), int(served["port"])) == (int(endpoint.address), endpoint.port):
            return False
        account = await view.query(bt.storage.System.Account, [hotkey.address])
        intent = bt.ServeAxon(netuid=netuid, ip=str(endpoint.address), port=port)
        await chain.execute(client, intent, hotkey.keypair, nonce=int((account or {}).get("nonce", 0)))
        return True

    return await chain.ask(publish, writes=True)
