"""Where a miner stands on its subnet, by what it last read of the chain: a pure function."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api.report import Registration, SubnetReport, as_message
from neurons.chain.errors import ChainError, NotRegistered, Refused, Unreachable, UnusableAddress
from neurons.receipts import Neuron, neuron_of
from neurons.wire.metagraph import Reading

PATIENCE_SECONDS: Final = 600.0
"""So old the last metagraph may be before a chain that gives no answer counts as unreachable: public endpoints turn a
question away now and then, and one that was is no news."""


SETTLED_SECONDS: Final = 120.0
"""So long after an address was published a metagraph may still be of a block before."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What became of publishing the miner's address."""

    tried: bool = False
    address: str | None = None
    """What the chain has for it, once it was published."""
    at: float = 0.0
    """When the chain was last seen to have it, in seconds since 1970."""
    problem: ChainError | None = None
    """Why it could not be published."""


def standing(
    reading: Reading, *, hotkey: str, netuid: int, owner: str | None, publication: Publication, read_at: float
) -> SubnetReport:
    """Return what to report.

    `owner`: the coldkey that must own the hotkey, if that is known. `read_at`: when the metagraph was read, in seconds
    since 1970.
    """
    metagraph = reading.metagraph
    neuron = neuron_of(metagraph.neurons, hotkey) if metagraph is not None else None
    state, message = (
        _unread(reading)
        or _not_ours(neuron, hotkey=hotkey, netuid=netuid, owner=owner)
        or _not_found(neuron, publication)
        or _published_over(neuron, publication, read_at)
        or (Registration.REGISTERED, None)
    )
    last = {}
    if state is Registration.CHAIN_UNREACHABLE and metagraph is not None:
        last = {"block": metagraph.block, "read_at": _timestamp(read_at)}
    return SubnetReport.model_validate(
        {
            "registration": state, "message": None if message is None else as_message(message), "netuid": netuid,
            "hotkey": hotkey, **({} if neuron is None else _place(neuron, publication, read_at)), **last,
        }
    )  # fmt: skip


_Found = tuple[Registration, str | None]


def _unread(reading: Reading) -> _Found | None:
    """What is wrong with the chain itself."""
    problem = reading.problem
    if isinstance(problem, Refused):  # there is no such subnet
        return Registration.NOT_REGISTERED, str(problem)
    if isinstance(problem, Unreachable) and reading.metagraph is not None and reading.age_seconds < PATIENCE_SECONDS:
        return None
    if problem is not None or reading.metagraph is None:
        return Registration.CHAIN_UNREACHABLE, str(problem or "no metagraph was read yet")
    return None


def _not_ours(neuron: Neuron | None, *, hotkey: str, netuid: int, owner: str | None) -> _Found | None:
    """What is wrong with the registration."""
    if neuron is None:
        return (
            Registration.NOT_REGISTERED,
            f"{hotkey} isn't registered on subnet {netuid}: it never was, or it gave way to another. Register it with "
            "its coldkey, outside the cluster",
        )
    if owner is not None and neuron.coldkey != owner:
        return (
            Registration.FOREIGN_OWNER,
            f"{hotkey} on subnet {netuid} belongs to the coldkey {neuron.coldkey}, and coldkeypub.txt in the wallet's "
            f"Secret names {owner}: it was registered by somebody else. Use a hotkey of your own",
        )
    return None


def _not_found(neuron: Neuron | None, publication: Publication) -> _Found | None:
    """What is wrong with the address by which validators find a registered miner."""
    problem = publication.problem
    if isinstance(problem, UnusableAddress | Refused):
        return Registration.ADDRESS_REFUSED, f"spec.miner.externalAddress can't be published: {problem}"
    if publication.address is not None or neuron is None or neuron.axon is not None:
        return None
    if problem is not None and not isinstance(problem, NotRegistered):
        return Registration.CHAIN_UNREACHABLE, f"the address is not published yet: {problem}"
    return (
        Registration.ADDRESS_MISSING,
        f"{neuron.hotkey} is UID {neuron.uid}, and the chain has no address for it, so no validator finds it: set "
        "spec.miner.externalAddress",
    )


def _published_over(neuron: Neuron | None, publication: Publication, read_at: float) -> _Found | None:
    """What is wrong when the chain has another address than this miner published."""
    if neuron is None or not _is_another(neuron, publication, read_at):
        return None
    return (
        Registration.ADDRESS_REFUSED,
        f"the chain has {neuron.axon} by now, and not {publication.address}, which this miner published: another miner "
        "signs with the same hotkey, and validators find that one alone. Give each MinerPool a hotkey of its own",
    )


def _is_another(neuron: Neuron, publication: Publication, read_at: float) -> bool:
    if neuron.axon is None or publication.address is None or read_at - publication.at < SETTLED_SECONDS:
        return False
    return _parsed(neuron.axon) != _parsed(publication.address)


def _parsed(address: str) -> tuple[str, str]:
    """Return IP and port; an IP of version 6 may be written in several ways."""
    host, _, port = address.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), port
    except ValueError:  # of a metagraph that somebody wrote
        return host, port


def _place(neuron: Neuron, publication: Publication, read_at: float) -> dict[str, object]:
    ours = None if _is_another(neuron, publication, read_at) else publication.address
    return {
        "uid": neuron.uid,
        "registered_at_block": neuron.block_at_registration,
        "axon": ours or neuron.axon,
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
