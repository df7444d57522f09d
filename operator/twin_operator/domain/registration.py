"""Condition MinerRegistered: where a pool's miners stand on their subnet, as they themselves saw it on the chain.

The operator asks no chain. It knows the pool's settings, and what the miner pods report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bettertherapy_api.miner_pool import Miner
from bettertherapy_api.report import Registration, SubnetReport
from twin_operator.domain.objects import Pool
from twin_operator.domain.pool_facts import PoolFacts
from twin_operator.domain.reasons import Reason, reason_named
from twin_operator.engine.conditions import Condition, Finding

CONDITION: Final = "MinerRegistered"
_GRAVEST_FIRST: Final = (
    Registration.COLDKEY_FOUND,
    Registration.WALLET_MISSING,
    Registration.FOREIGN_OWNER,
    Registration.NOT_REGISTERED,
    Registration.ADDRESS_REFUSED,
    Registration.ADDRESS_MISSING,
    Registration.CHAIN_UNREACHABLE,
    Registration.REGISTERED,
)
"""All miners of a pool sign with one hotkey, so what is wrong for one is wrong for the pool."""


def registration(pool: Pool, facts: PoolFacts) -> list[Condition]:
    """Return the condition, or none for a pool that names no subnet."""
    miner = pool.spec.miner
    if miner.netuid is None:
        return []
    unset = _unset(miner)
    if unset is not None:
        return [unset.condition(CONDITION, "False")]
    said = _gravest(facts.subnet, netuid=miner.netuid)
    if said is None:
        return [_silent(miner).condition(CONDITION, "Unknown")]
    reason = reason_named(said.registration.value)
    match said.registration:
        case Registration.REGISTERED:
            return [_registered(miner, said)]
        case Registration.CHAIN_UNREACHABLE:
            return [Finding(reason, _unreachable(said)).condition(CONDITION, "Unknown")]
        case _:
            return [Finding(reason, said.message or "the miner gives no details").condition(CONDITION, "False")]


def _unset(miner: Miner) -> Finding | None:
    """What the spec itself lacks."""
    if miner.wallet_secret_ref is None:
        return Finding(
            Reason.WALLET_MISSING,
            "spec.miner.netuid names a subnet and spec.miner.walletSecretRef no hotkey to sign with: set it to a "
            "Secret with the hotkey's file, or remove netuid",
        )
    if miner.chain is None:
        return Finding(
            Reason.CHAIN_NOT_SET,
            "spec.miner.netuid names a subnet and spec.miner.chain no chain to find it on: set it to finney, test or a "
            "URL",
        )
    return None


def _registered(miner: Miner, said: SubnetReport) -> Condition:
    if _turns_validators_away(miner):
        shut = (
            f"{_place(said)}, and its {miner.replicas} miners turn every validator away: they share no store of what "
            "they accepted, so a request could be played again to another. Set NONCE_STORE_URL in "
            "spec.miner.pod.env to a Redis-protocol server, or spec.miner.replicas to 1"
        )
        return Finding(Reason.NONCES_NOT_SHARED, shut).condition(CONDITION, "False")
    return Finding(Reason.REGISTERED, _place(said)).condition(CONDITION, "True")


def _turns_validators_away(miner: Miner) -> bool:
    """Tell whether the door for signed requests is shut, as `neurons.miner.subnet` keeps it."""
    added = {each.name: each.value for each in (miner.pod.env if miner.pod is not None else None) or ()}
    return miner.replicas > 1 and "NONCE_STORE_URL" not in added and added.get("DOORS") != "token"


def _gravest(reports: Sequence[SubnetReport], *, netuid: int) -> SubnetReport | None:
    """What counts for the pool; a report about another subnet is of a pod that the next spec replaces."""
    of_this = [said for said in reports if said.netuid == netuid]
    return min(of_this, key=lambda said: _GRAVEST_FIRST.index(said.registration), default=None)


def _silent(miner: Miner) -> Finding:
    secret = miner.wallet_secret_ref.name if miner.wallet_secret_ref is not None else ""
    said = f"no miner has reported yet where it stands on subnet {miner.netuid}"
    if miner.replicas == 0:
        return Finding(Reason.NO_MINER, f"{said}: spec.miner.replicas is 0")
    return Finding(
        Reason.REGISTRATION_NOT_REPORTED,
        f"{said}; if that lasts, see whether Secret {secret} exists, and the miner's log",
    )


def _place(said: SubnetReport) -> str:
    since = f" since block {said.registered_at_block}" if said.registered_at_block is not None else ""
    where = f", found at {said.axon}" if said.axon else ""
    return f"{said.hotkey} is UID {said.uid} of subnet {said.netuid}{since}{where}"


def _unreachable(said: SubnetReport) -> str:
    why = said.message or "the chain can't be read"
    if said.block is None:
        return f"{why}; no metagraph was read yet, so no validator is let in"
    last = f"UID {said.uid}" if said.uid is not None else "not registered"
    return (
        f"{why}; the miner goes on with the metagraph of block {said.block}, read at {said.read_at}, in which it was "
        f"{last}"
    )
