"""The table of `kubectl twin top`, of 80 columns."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from kubectl_twin.render import Fitted
from kubectl_twin.top import Readings, Top, TopRow

_BAD_SHARE = 0.05


def top_table(found: Top, readings: Readings) -> Group:
    """Return the table, and below it how full the slots are and what could not be read."""
    numbers = ("REQ/S", "P95", "ERRORS", "NOW", "PODS", "SLOTS")
    table = Fitted(("TWIN", *numbers), [_cells(row) for row in found.rows], right=frozenset(numbers))
    said = f"within {readings.seconds:.0f} s"
    if found.slots:
        said += f"; {found.slots_taken} of {found.slots} slots for adapters are in use"
    lines: list[Fitted | Text] = [table, Text(said, style="dim")]
    lines += [Text(f"not read: {pod}: {why}", style="yellow") for pod, why in list(readings.unread.items())[:5]]
    if len(readings.unread) > 5:
        lines.append(Text(f"… and {len(readings.unread) - 5} more", style="yellow"))
    return Group(*lines)


def _cells(row: TopRow) -> list[str | Text]:
    errors = Text("-")
    if row.error_share is not None:
        errors = Text(f"{100 * row.error_share:.1f}%", style="red" if row.error_share > _BAD_SHARE else "")
    return [
        Text(row.twin),
        f"{row.per_second:.2f}",
        "-" if row.p95_seconds is None else f"{row.p95_seconds:.2f}s",
        errors,
        str(row.in_flight),
        row.pods,
        str(row.slots) if row.slots else "-",
    ]
