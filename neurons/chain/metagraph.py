"""The metagraph: who is on the subnet, as of one block, and how old that is.

`MetagraphReader` keeps the last good one, so that miners and validators go on when the chain is away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import bittensor as bt

from neurons.chain import errors
from neurons.chain.connection import Chain

log = logging.getLogger(__name__)

STALLED_SECONDS: Final = 180.0
"""Without a new block: 15 of the chain's."""


@dataclass(frozen=True)
class Identity:
    """Who a neuron is. A UID is none: it goes to another when its neuron is pruned, and so does a hotkey's past."""

    hotkey: str
    registered_at: int
    """Block of its registration."""


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """One row. Stake is in the subnet's alpha; `incentive` and `dividends` are 0..1."""

    uid: int
    hotkey: str
    coldkey: str
    axon: str | None
    """`ip:port` where it serves; None while it serves nowhere."""
    validator_permit: bool
    stake: float
    incentive: float
    dividends: float
    last_update: int
    """Block at which it last set or committed weights."""
    block_at_registration: int

    @property
    def identity(self) -> Identity:
        """Who it is; what is kept about a neuron is kept by this."""
        return Identity(self.hotkey, self.block_at_registration)


@dataclass(frozen=True, kw_only=True)
class Metagraph:
    """A subnet's neurons as of `block`; `neurons[uid]` is the one of that UID."""

    netuid: int
    block: int
    tempo: int
    owner_hotkey: str
    owner_coldkey: str
    max_uids: int
    neurons: tuple[Neuron, ...]

    def by_hotkey(self, hotkey: str) -> Neuron | None:
        """Return the neuron of a hotkey; None if it isn't registered."""
        return next((neuron for neuron in self.neurons if neuron.hotkey == hotkey), None)

    def registered(self, hotkey: str, *, coldkey: str | None = None, identity: Identity | None = None) -> Neuron:
        """Return a hotkey's neuron, if it is the one that is meant.

        `coldkey` is the owner that it is to have, `identity` the registration; either may be left out.

        Raises:
            ForeignOwner: another coldkey owns it.
            NotRegistered: it has no UID, or was registered anew since.
        """
        neuron = self.by_hotkey(hotkey)
        if neuron is None:
            raise errors.NotRegistered(
                f"{hotkey} isn't registered on subnet {self.netuid} (block {self.block}): it never was, or it gave way "
                "to another. Register it with its coldkey"
            )
        if coldkey is not None and neuron.coldkey != coldkey:
            raise errors.ForeignOwner(
                f"{hotkey} on subnet {self.netuid} belongs to the coldkey {neuron.coldkey}, not to {coldkey}: it was "
                "registered by somebody else. Use a hotkey of your own"
            )
        if identity is not None and neuron.identity != identity:
            raise errors.NotRegistered(
                f"{hotkey} was registered anew at block {neuron.block_at_registration}, after block "
                f"{identity.registered_at}: what was kept about the former registration doesn't hold for this one"
            )
        return neuron


@dataclass(frozen=True)
class Reading:
    """The last good metagraph, and what is wrong with the chain now."""

    metagraph: Metagraph | None
    """None while none was ever read."""
    age_seconds: float
    """Since its block was first read; infinite without one."""
    problem: errors.ChainError | None
    """Why the last try gave none, or none newer for `STALLED_SECONDS`; None if it did."""

    def usable(self, *, max_age_seconds: float) -> Metagraph:
        """Return the metagraph if it is no older than that.

        Raises:
            ChainError: there is none, or it is too old; it says since when and why.
        """
        if self.metagraph is not None and self.age_seconds <= max_age_seconds:
            return self.metagraph
        if self.problem is not None and self.metagraph is None:
            raise self.problem
        what = f"the last good metagraph is {self.age_seconds:.0f} seconds old, {max_age_seconds:.0f} are allowed"
        raise errors.Unreachable(f"{what}: {self.problem or 'nobody has read it since'}")


class MetagraphReader:
    """Reads one subnet's metagraph and keeps the last good one."""

    def __init__(self, chain: Chain, netuid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._chain = chain
        self._netuid = netuid
        self._clock = clock
        self._metagraph: Metagraph | None = None
        self._read_at = 0.0
        self._problem: errors.ChainError | None = None

    async def read(self) -> Metagraph:
        """Read it from the chain and keep it.

        Raises:
            ChainError: it can't be had; the last good one stays.
        """
        try:
            metagraph = await self._chain.ask(lambda client: read_metagraph(client, self._netuid))
        except errors.ChainError as error:
            self._problem = error
            raise
        kept = self._metagraph
        if kept is None or metagraph.block > kept.block or self._chain.is_local:
            # A local subnet is one process, whose blocks come when somebody asks for them; it may have begun anew.
            self._metagraph, self._read_at, self._problem = metagraph, self._clock(), None
            return metagraph
        # An endpoint may lag behind the one before, or have lost its peers: an older metagraph is no news, and one of
        # the same block as old as it was.
        self._problem = self._stalled(metagraph.block, kept.block)
        return kept

    def _stalled(self, block: int, newest: int) -> errors.ChainError | None:
        age = self._clock() - self._read_at
        if age < STALLED_SECONDS:
            return None
        behind = f", behind block {newest}" if block < newest else ""
        return errors.Unreachable(
            f"{self._chain.network} stands at block {block}{behind}, and has brought no newer one for {age:.0f} "
            "seconds: it is out of touch with the chain; use another endpoint"
        )

    async def refresh(self) -> Reading:
        """Read it if that can be done, and return what there is; never raises `ChainError`."""
        try:
            await self.read()
        except errors.ChainError as error:
            log.warning("subnet %d: keeping the last good metagraph: %s", self._netuid, error)
        return self.latest()

    def latest(self) -> Reading:
        """Return what there is, without asking."""
        age = float("inf") if self._metagraph is None else self._clock() - self._read_at
        return Reading(self._metagraph, age, self._problem)


async def read_metagraph(client: bt.Client, netuid: int) -> Metagraph:
    """Read a subnet's metagraph at the head, in three requests.

    Raises:
        Refused: there is no such subnet.
    """
    found = await bt.metagraph.fetch(client, netuid, commitments=False)
    if found is None:
        raise errors.Refused(
            f"there is no subnet {netuid} on this chain: choose one that there is", name="SubnetNotExists"
        )
    return Metagraph(
        netuid=netuid,
        block=found.block,
        tempo=found.tempo,
        owner_hotkey=found.owner_hotkey,
        owner_coldkey=found.owner_coldkey,
        max_uids=found.max_uids,
        neurons=tuple(
            Neuron(
                uid=neuron.uid,
                hotkey=neuron.hotkey,
                coldkey=neuron.coldkey,
                axon=neuron.axon,
                validator_permit=neuron.validator_permit,
                stake=neuron.total_stake.rao / 1e9,
                incentive=neuron.incentive,
                dividends=neuron.dividends,
                last_update=neuron.last_update,
                block_at_registration=neuron.block_at_registration,
            )
            for neuron in found.neurons
        ),
    )
