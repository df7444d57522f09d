"""The page of who operates the validator: the miners, and how they stand with this gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from neurons.validator.gateway.keys import Role
from neurons.validator.gateway.roster import Member
from neurons.validator.gateway.standing import Standing
from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.rendering import Renderer
from neurons.validator.pages.staff import signed_in
from neurons.validator.pages.visit import Visit

MOST_SHOWN: Final = 256
"""A subnet has no more miners."""


@dataclass(frozen=True, slots=True)
class Row:
    """One miner."""

    member: Member
    standing: Standing
    twins: int
    """That it announced lately."""
    rests: bool
    """It is left alone after failures."""


class Overview:
    """Answers an operator's requests."""

    def __init__(self, gateway: Gateway, *, renderer: Renderer) -> None:
        self._gateway, self._renderer = gateway, renderer

    async def miners(self, visit: Visit) -> web.StreamResponse:
        """Show every miner of the metagraph in use."""
        signed_in(visit, Role.OPERATOR)
        roster, standings = self._gateway.roster, self._gateway.standings
        now = time.monotonic()
        rows = []
        for identity, member in roster.members.items():
            standing = standings.of.get(identity, Standing())
            twins = member.announcement.twins if member.announcement is not None else ()
            rows.append(Row(member, standing, len(twins), standing.rests(now)))
        rows.sort(key=lambda row: (-row.standing.weight, row.member.uid))
        age = roster.age_seconds
        return self._renderer.page(
            "miners.html", visit, rows=rows[:MOST_SHOWN], count=len(rows), block=roster.block,
            age=None if age == float("inf") else round(age), problem=roster.problem is not None,
            doctors=len(roster.twins()),
        )  # fmt: skip
