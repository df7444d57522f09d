"""Who is on the subnet, and who can be asked for which twin: the gateway's own roster, looked at when a round asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from neurons.ledger.records import Miner
from neurons.receipts import Metagraph
from neurons.validator.gateway.roster import Member, Roster
from neurons.validator.gateway.twins import Twins
from neurons.validator.rounds.asking import members_of
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.rewards import Entrant
from neurons.validator.rounds.steps import Registered


class Subnet(Protocol):
    """What a round sees of the subnet."""

    async def look(self) -> Registered:
        """Read the metagraph and what its miners announce. Raises RoundError when there is none."""

    def serving(self, twin: str) -> Mapping[Miner, Member]:
        """Return who can be asked for a twin, by what was last looked at or followed."""

    def parents(self, twin: str) -> Mapping[Miner, str | None]:
        """Return by which version each of them answers most of the twin's patients; None: the base model itself."""

    def followed(self) -> AbstractAsyncContextManager[None]:
        """While this is entered, what the miners announce is looked at now and then: it counts for minutes alone."""

    @property
    def addressed(self) -> int:
        """Miners with an address."""


class RosterSubnet:
    """The subnet by a gateway's roster."""

    def __init__(self, roster: Roster, twins: Twins) -> None:
        self._roster, self._twins = roster, twins

    @property
    def addressed(self) -> int:
        """See `Subnet`."""
        return len(self._roster.members)

    async def look(self) -> Registered:
        """See `Subnet`."""
        await self._roster.refresh_metagraph()
        metagraph = self._roster.reading.metagraph
        problem = self._roster.reading.problem
        if metagraph is None or problem is not None:
            # An old metagraph may give a newcomer what another earned: a round waits for a fresh one.
            raise RoundError("ChainUnreachable", f"the metagraph can't be read: {problem}", retryable=True)
        await self._roster.refresh_announcements()
        return registered(metagraph)

    def serving(self, twin: str) -> Mapping[Miner, Member]:
        """See `Subnet`."""
        return members_of(
            member
            for member in self._roster.for_twin(twin)
            if member.announcement is not None
            and any(self._twins.approves(twin, adapter) for adapter in member.announcement.held.get(twin, ()))
        )

    def parents(self, twin: str) -> Mapping[Miner, str | None]:
        """See `Subnet`."""
        found: dict[Miner, str | None] = {}
        for miner, member in self.serving(twin).items():
            versions = [
                version
                for each in (member.announcement.twins if member.announcement is not None else ())
                if each.name == twin
                for version in each.versions
                if version.pods and self._twins.approves(twin, version.adapter)
            ]
            if versions:
                found[miner] = max(versions, key=lambda each: (each.weight_percent, each.adapter or "")).adapter
        return found

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """See `Subnet`."""
        following = asyncio.create_task(self._roster.follow_announcements())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.wait({following})

    def twins(self) -> Sequence[str]:
        """Return the twins that some miner serves and this validator answers for."""
        return [name for name in self._roster.twins() if self._twins.serves(name)]


def registered(metagraph: Metagraph) -> Registered:
    """Return a metagraph as rounds keep it."""
    return Registered(
        block=metagraph.block,
        owner_coldkey=str(getattr(metagraph, "owner_coldkey", "")),
        entrants=tuple(
            Entrant(
                miner=Miner(hotkey=each.hotkey, registered_block=each.block_at_registration), uid=each.uid,
                coldkey=each.coldkey,
            )
            for each in metagraph.neurons
        ),
    )  # fmt: skip
