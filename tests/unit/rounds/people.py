"""Miners, twins and orders for the tests of rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bettertherapy_api.round_progress import RoundOrder
from neurons.ledger import Miner, RoundItem, Twin
from neurons.ledger.records import derived_id
from neurons.validator.rounds.asking import Public
from neurons.validator.rounds.challenges import Challenge, to_document
from neurons.validator.rounds.rewards import Entrant

SAMPLE: Final = Path(__file__).parent / "sample.jsonl"
"""A dozen questions that need no judge."""
STARTED = "2026-11-01T12:00:00Z"
STARTED_MS = 1_793_534_400_000
ROUND = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
TWIN = Twin(uid="11111111-1111-4111-8111-111111111111", name="indra")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def miner(number: int = 0, *, block: int | None = None) -> Miner:
    name = "5" + "".join(_LETTERS[number // len(_LETTERS) ** place % len(_LETTERS)] for place in range(3)) + "z" * 44
    return Miner(hotkey=name, registered_block=100 + number if block is None else block)


def entrant(number: int, *, coldkey: str | None = None, block: int | None = None) -> Entrant:
    return Entrant(miner=miner(number, block=block), uid=number, coldkey=coldkey or f"owner-{number}")


def order(**changes: Any) -> RoundOrder:
    given: dict[str, Any] = {
        "name": "r1", "uid": ROUND, "namespace": "default", "validator": "val", "network": "http://subnet:9944",
        "netuid": 42, "startedAt": STARTED, "seed": 7, "itemsPerTwin": 12, "rewards": {},
    }  # fmt: skip
    return RoundOrder.model_validate(given | changes)


def item_of(challenge: Challenge, *, round_id: str, twin: Twin, at_ms: int) -> RoundItem:
    return RoundItem(
        item_id=derived_id("item", round_id, twin.uid, challenge.id), round_id=round_id, twin=twin, kind="canary",
        text=Public(challenge.prompt), at_ms=at_ms, reference={"challenge": to_document(challenge)},
    )  # fmt: skip
