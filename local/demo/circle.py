"""The circle of the design, drawn of what really happened: from a patient's question to what the twin learns of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kubectl_twin.terminal import as_text
from kubectl_twin.views import short_digest

WIDTH: Final = 80
_INNER: Final = 36
_GAP: Final = 8


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
    conversations: int
    held_out: int
    task: str
    taken_by: str
    offered: int
    accepted: int
    lines: int
    """That went to the miner."""
    stage: str
    parent: str | None
    made: str | None = None
    """The version that came out of it, as far as the run is."""


def circle(turn: Turn) -> str:
    """Return the drawing, to be read clockwise; no line has more than 80 columns."""
    serving = short_digest(turn.parent) if turn.parent else "the base model"
    made = f"version {short_digest(turn.made)}" if turn.made else "its version is not made yet"
    left = (
        _box("PATIENTS", f"{turn.conversations} conversations yesterday", f"with {turn.doctor}'s twin"),
        _box("FINE-TUNE RUN", f"task-{turn.task[:8]}: {turn.stage}", made),
        _box(f"MINER {turn.taken_by}", f"took task {turn.task[:8]}", f"{turn.accepted} of {turn.offered} took one"),
    )
    right = (
        _box("TWIN", f"answers by {serving}", f"run by {turn.miners} miners"),
        _box("LEDGER", f"{turn.lines} lines for miners", f"{turn.held_out} conversations held out"),
        _box(f"ROUND {turn.round}", f"best: {turn.best}, {turn.best_percent:.0f}%",
             f"{turn.weight_percent:.1f}% of the chain's weights"),
    )  # fmt: skip
    up = ("^ once the doctor chooses it", "^ trains on what it was given")
    down = ("v rated, corrected", "v scored; the weakest topics first")
    joints = ("ask >>", "", "<< task")
    rows: list[str] = []
    for place, joint in enumerate(joints):
        one, other = left[place], right[place]
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            rows.append(f"{first}{(joint if number == len(one) // 2 else '').center(_GAP)}{second}".rstrip())
        if place < len(up):
            rows.append(f"{up[place]:^{_INNER}}{'':{_GAP}}{down[place]:^{_INNER}}".rstrip())
    return "\n".join(rows)


def _box(title: str, *lines: str) -> tuple[str, ...]:
    inside = _INNER - 4
    shown = [as_text(each)[:inside].ljust(inside) for each in lines]
    name = f" {as_text(title)[: inside - 2]} "
    return (f"+-{name.ljust(inside, '-')}-+", *(f"| {each} |" for each in shown), f"+{'-' * (inside + 2)}+")
