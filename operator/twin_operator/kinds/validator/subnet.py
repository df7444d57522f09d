"""Condition ChainReachable, and how many miners there are: what a validator's gateways say that they see of its subnet.

The operator asks no chain. A gateway says anew now and then what it sees, so what was said too long ago is known to be
old: it counts for nothing but to be named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bettertherapy_api.report import GATEWAY_REPORT_SECONDS, GATEWAY_STALE_SECONDS, GatewayView
from twin_operator.domain.objects import Validator
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Condition, Finding
from twin_operator.engine.times import moment
from twin_operator.kinds.validator.facts import ValidatorFacts

CONDITION: Final = "ChainReachable"
_STALE: Final = timedelta(seconds=GATEWAY_STALE_SECONDS)
_BEYOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one gateway says."""

    pod: str
    view: GatewayView

    @property
    def at(self) -> datetime:
        """When it said so, by its own clock."""
        return moment(self.view.reported_at)

    @property
    def block(self) -> int:
        """Block of its metagraph; -1 without one."""
        return -1 if self.view.block is None else self.view.block


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the gateways that are here to stay say of the validator's subnet, by pod."""

    fresh: tuple[Said, ...] = ()
    stale: tuple[Said, ...] = ()
    """Said too long ago, or by a clock that goes wrong."""

    @property
    def newest(self) -> GatewayView | None:
        """What is seen by the newest metagraph; by their own times alone two gateways would take turns."""
        newest = max(self.fresh, key=lambda said: (said.block, said.at, said.pod), default=None)
        return None if newest is None else newest.view

    @property
    def stale_at(self) -> datetime | None:
        """When the first of those that are fresh is not so any more, if it says nothing until then."""
        return min((said.at + _STALE + _BEYOND for said in self.fresh), default=None)


def sight(validator: Validator, facts: ValidatorFacts, *, now: datetime) -> Sight:
    """Return what counts; a report about another subnet is of a pod that the next spec replaces."""
    said = [
        Said(pod=pod.name, view=view)
        for pod in facts.gateways
        if (view := facts.views.get(pod.name)) is not None and view.netuid == validator.spec.chain.netuid
    ]
    fresh = tuple(each for each in said if abs(now - each.at) <= _STALE)
    return Sight(fresh=fresh, stale=tuple(each for each in said if each not in fresh))


def chain_reachable(validator: Validator, seen: Sight) -> Condition:
    """Return the condition: False as soon as one gateway says so, since patients ask all of them."""
    netuid = validator.spec.chain.netuid
    blind = [each for each in seen.fresh if not each.view.reachable]
    if blind:
        found = Finding(Reason.CHAIN_UNREACHABLE, _unreachable(blind[0], of=(len(blind), len(seen.fresh))))
        return found.followed_by(_silent(seen)).condition(CONDITION, "False")
    if seen.newest is not None:
        found = Finding(Reason.CHAIN_READ, _reachable(seen.newest, gateways=len(seen.fresh)))
        return found.followed_by(_silent(seen)).condition(CONDITION, "True")
    if validator.spec.gateway.replicas == 0:
        none = Finding(Reason.NO_GATEWAY, "spec.gateway.replicas is 0, so nobody reads the chain")
        return none.condition(CONDITION, "Unknown")
    if seen.stale:
        last = max(seen.stale, key=lambda said: (said.at, said.pod))
        old = Finding(
            Reason.REPORT_STALE,
            f"gateway {last.pod} last said at {last.view.reported_at} what it sees of subnet {netuid}, and gateways do "
            f"so about every {GATEWAY_REPORT_SECONDS} seconds: what it sees now isn't known; see `kubectl logs "
            f"{last.pod} -c gateway` for why its report can't be written, and whether the nodes' clocks agree",
        )
        return old.condition(CONDITION, "Unknown")
    none = Finding(
        Reason.CHAIN_NOT_REPORTED,
        f"no gateway has said yet what it sees of subnet {netuid}: one does soon after its start; then see its log for "
        "why its report can't be written, and whether its image is of a release that reports nothing",
    )
    return none.condition(CONDITION, "Unknown")


def _reachable(newest: GatewayView, *, gateways: int) -> str:
    read = "the gateway reads" if gateways == 1 else f"{gateways} gateways read"
    asked = ""
    if newest.twins is not None:
        asked = f", and {counted(newest.twins, 'twin')} of this validator can be asked there"
    refused = (
        "; this validator has no permit there, so miners refuse it: it comes with an epoch once the validator is "
        "registered and has stake enough"
        if newest.permit is False
        else ""
    )
    return f"{read} subnet {newest.netuid}: {counted(newest.miners or 0, 'miner')} with an address{asked}{refused}"


def _unreachable(said: Said, *, of: tuple[int, int]) -> str:
    view = said.view
    why = view.message or "it doesn't say why"
    last = (
        "none was ever read, so nobody can be asked"
        if view.block is None
        else f"it goes on with that of block {view.block}, read at {view.read_at or 'an unknown time'}"
    )
    others = "" if of[1] == 1 else f"; {of[0]} of {of[1]} gateways say so"
    return f"gateway {said.pod} can't read the metagraph of subnet {view.netuid}: {why}; {last}{others}"


def _silent(seen: Sight) -> str:
    return "".join(f"; gateway {each.pod} has said nothing since {each.view.reported_at}" for each in seen.stale[:5])


def counted(number: int, what: str) -> str:
    """Return a number of things in words: 1 miner, 2 miners."""
    return f"{number} {what}" + ("" if number == 1 else "s")
