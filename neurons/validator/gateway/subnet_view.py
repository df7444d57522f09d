"""What this gateway sees of its subnet, by what it last read of the chain, and of its ledger: a pure function."""

from __future__ import annotations

from datetime import UTC, datetime

from bettertherapy_api.report import GatewayView, as_message
from neurons.chain.errors import Unreachable
from neurons.miner.registration import PATIENCE_SECONDS
from neurons.receipts import Metagraph, neuron_of
from neurons.wire.metagraph import Reading


def view(
    reading: Reading, *, netuid: int, hotkey: str | None, miners: int, twins: int | None, read_at: float | None,
    now: float, ledger_trouble: str | None = None,
) -> GatewayView | None:  # fmt: skip
    """Return what to report; None before the chain was asked.

    `hotkey`: the validator's own.

    `miners`: those with an address in the metagraph in use. `twins`: those that can be asked now, None until that is
    known. `read_at`: when that metagraph was read; it and `now` in seconds since 1970. `ledger_trouble`: why nothing
    comes into the ledger, where that is so.
    """
    metagraph, problem = reading.metagraph, reading.problem
    if metagraph is None and problem is None:
        return None
    passing = isinstance(problem, Unreachable) and metagraph is not None and reading.age_seconds < PATIENCE_SECONDS
    reachable = problem is None or passing
    return GatewayView(
        netuid=netuid,
        reachable=reachable,
        message=None if reachable else as_message(str(problem) or type(problem).__name__),
        miners=None if metagraph is None else miners,
        twins=None if metagraph is None else twins,
        permit=None if metagraph is None or hotkey is None else _has_permit(metagraph, hotkey),
        block=None if metagraph is None else metagraph.block,
        read_at=None if metagraph is None or read_at is None else _timestamp(read_at),
        ledger_trouble=None if ledger_trouble is None else as_message(ledger_trouble),
        reported_at=_timestamp(now),
    )


def _has_permit(metagraph: Metagraph, hotkey: str) -> bool:
    own = neuron_of(metagraph.neurons, hotkey)
    return own is not None and own.validator_permit


def says_the_same(one: GatewayView, other: GatewayView) -> bool:
    """Tell whether nothing differs that somebody waits for: blocks and times go on, and each try has its own words."""
    passing = {"message": None, "block": None, "read_at": None, "ledger_trouble": None, "reported_at": ""}
    alike = one.model_copy(update=passing) == other.model_copy(update=passing)
    return alike and (one.ledger_trouble is None) == (other.ledger_trouble is None)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
