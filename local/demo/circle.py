"""The circle of the design, drawn of what really happened: from a patient's question to what the twin learns of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kubectl_twin.views import printable, short_digest

WIDTH: Final = 80
_INNER: Final = 34
_GAP: Final = "      "


@dataclass(frozen=True)
class Turn:
    """What happened on one way round."""

    doctor: str
    miners: int
    """That were asked the same."""
    best: str
    best_percent: float
    weight_percent: float
    """The best miner's share of the weights that the chain has."""
    round: str
    results: str | None
    conversations: int
    held_out: int
    task: str
    taken_by: str
    offered: int
    accepted: int
    lines: int
    """That went to the miner."""
    run: str
    stage: str
    parent: str | None
    made: str | None = None
    """The version that came out of it, as far as the run is."""


def circle(turn: Turn) -> str:
    """Return the drawing; no line has more than 80 columns."""
    hidden = f"{turn.held_out} of them no miner gets"
    left = (
        _box("PATIENTS", f"{turn.conversations} conversations yesterday", hidden),
        _box("LEDGER", f"task {turn.task[:8]}, signed", f"{turn.lines} conversations that teach"),
        _box(f"MINER {turn.taken_by}", f"took it ({turn.accepted} of {turn.offered} offered)", turn.run[:_INNER - 2]),
    )
    version = short_digest(turn.made) if turn.made else "not made yet"
    right = (
        _box(f"TWIN of {turn.doctor}", f"answers by {short_digest(turn.parent) if turn.parent else 'the base model'}",
             f"{turn.miners} miners run it"),
        _box(f"ROUND {turn.round}", f"best: {turn.best}, {turn.best_percent:.0f}%",
             f"results {short_digest(turn.results) if turn.results else '-'}"),
        _box("FINE-TUNE", f"{turn.stage}; version {version}", "the doctor chooses what serves"),
    )  # fmt: skip
    joints = (" asks> ", " <best ", " <new  ")
    weights = f"weight {turn.weight_percent:.1f}% on the chain"
    between = (("rated, corrected", "scored"), ("handed to the best", weights))
    rows: list[str] = []
    for place, (one, other, joint) in enumerate(zip(left, right, joints, strict=True)):
        middle = len(one) // 2
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            rows.append(f"{first}{joint.strip().center(len(_GAP)) if number == middle else _GAP}{second}".rstrip())
        if place < len(between):
            down, up = between[place]
            rows += [f"{f'v {down}':^{_INNER}}{_GAP}{f'{up} ^' if place else f'v {up}':^{_INNER}}".rstrip()]
    return "\n".join(rows)


def _box(title: str, *lines: str) -> tuple[str, ...]:
    inside = _INNER - 4
    shown = [printable(each)[:inside].ljust(inside) for each in lines]
    name = f" {printable(title)[: inside - 2]} "
    return (f"+-{name.ljust(inside, '-')}-+", *(f"| {each} |" for each in shown), f"+{'-' * (inside + 2)}+")
