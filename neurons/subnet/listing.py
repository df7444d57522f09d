"""Miners as a table of 80 columns, a wide one, and for programs. Pure: no requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bettertherapy_api.faults import printable
from neurons.receipts import MetagraphFile, NeuronEntry
from neurons.wire.announcement import Announcement

_NONE: Final = "-"
_UNITS: Final = ((1e3, "k"), (1e6, "M"), (1e9, "G"))
_AXON: Final = len("255.255.255.255:65535")
"""A longer one, of IPv6, is shortened in the middle."""


@dataclass(frozen=True)
class Row:
    """One neuron, and what it announces: None if it was not asked, else why that isn't known."""

    neuron: NeuronEntry
    announced: Announcement | str | None


def rows(metagraph: MetagraphFile, announced: Mapping[str, Announcement | str], *, everyone: bool = False) -> list[Row]:
    """Return the miners, who earns most first; `everyone`: validators without an axon too."""
    shown = [
        Row(neuron, announced.get(neuron.hotkey))
        for neuron in metagraph.neurons
        if everyone or neuron.axon is not None or not neuron.validator_permit
    ]
    return sorted(shown, key=lambda row: (-(row.neuron.incentive or 0.0), row.neuron.uid))


def text(metagraph: MetagraphFile, found: Sequence[Row], *, wide: bool = False) -> str:
    """Return the table; `wide` shows hotkeys whole, and each twin with its digest."""
    made = f", {_moment(metagraph.time)}" if metagraph.time is not None else ""
    head = f"Subnet {metagraph.netuid} as of block {metagraph.block}{made}"
    if not found:
        return f"{head}: no miner is registered.\n"
    header = ("UID", "HOTKEY", "STAKE", "INCENTIVE", "AXON", "UPDATED", "TWINS")
    cells = [header, *(_cells(metagraph, row, wide=wide) for row in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    unknown = [f"UID {row.neuron.uid}: {row.announced}" for row in found if isinstance(row.announced, str)]
    return "\n".join([head, *lines, *(["", "Not announced:", *unknown] if unknown and wide else [])]) + "\n"


def document(metagraph: MetagraphFile, found: Sequence[Row]) -> dict[str, Any]:
    """Return all that is known, for programs."""
    return {
        "netuid": metagraph.netuid,
        "block": metagraph.block,
        "time": metagraph.time,
        "miners": [
            {
                **row.neuron.model_dump(by_alias=True),
                "twins": [
                    {**twin.model_dump(by_alias=True), "doctor": printable(twin.doctor) if twin.doctor else None}
                    for twin in row.announced.twins
                ]
                if isinstance(row.announced, Announcement)
                else None,
                "announcedAt": row.announced.time if isinstance(row.announced, Announcement) else None,
                "problem": row.announced if isinstance(row.announced, str) else None,
            }
            for row in found
        ],
    }


def short(hotkey: str) -> str:
    """Return a hotkey in 13 characters."""
    return f"{hotkey[:6]}…{hotkey[-6:]}"


def _cells(metagraph: MetagraphFile, row: Row, *, wide: bool) -> tuple[str, ...]:
    neuron = row.neuron
    return (
        str(neuron.uid),
        neuron.hotkey if wide else short(neuron.hotkey),
        _amount(neuron.stake),
        _NONE if neuron.incentive is None else f"{neuron.incentive:.4f}",
        _axon(neuron.axon, wide=wide),
        _NONE if not neuron.last_update else _ago(metagraph.block - neuron.last_update),
        _twins(row.announced, wide=wide),
    )


def _twins(announced: Announcement | str | None, *, wide: bool) -> str:
    if announced is None:
        return _NONE
    if isinstance(announced, str):
        return "?"
    if not wide:
        return str(len(announced.twins))
    return " ".join(
        f"{twin.name}@{version.adapter.removeprefix('sha256:')[:8] if version.adapter else 'base'}"
        for twin in announced.twins
        for version in twin.versions
    ) or "none"  # fmt: skip


def _axon(axon: str | None, *, wide: bool) -> str:
    if axon is None or wide or len(axon) <= _AXON:
        return axon or _NONE
    return f"{axon[:8]}…{axon[9 - _AXON :]}"


def _ago(blocks: int) -> str:
    if blocks < 10_000:
        return f"{max(0, blocks)} ago"
    return f"{blocks // 1000}k ago" if blocks < 1_000_000 else f"{blocks // 1_000_000}M ago"


def _amount(stake: float) -> str:
    if stake < 1e5:
        return f"{stake:,.1f}"
    size, unit = next(((size, unit) for size, unit in _UNITS if stake < 1e5 * size), _UNITS[-1])
    return f"{stake / size:,.0f}{unit}"


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
