"""A twin's versions on a terminal: their history and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kubectl_twin.render import indented, plain_table
from kubectl_twin.versions import HistoryRow, Origin
from kubectl_twin.views import short_digest
from kubectl_twin.zones import Zone, moment

_WIDE = 120
_ROOMY = 100
"""From here on whole digests fit beside their labels."""
_STYLES = {"answers": "green", "replaced": "", "answered before": ""}


def history_table(rows: Sequence[HistoryRow], *, width: int, zone: Zone) -> RenderableType:
    """Return the table of `kubectl twin history`; where it would wrap, a block per version."""
    if width < _WIDE:
        return Group(*(part for row in rows for part in _block(row, zone)))
    table = plain_table("DIGEST", "SCORE", "RUN", f"FROM ({zone.name})", f"TO ({zone.name})", "OUTCOME")
    for column in table.columns[:5]:
        column.no_wrap = True
    for row in rows:
        times = (moment(row.since, zone), moment(row.until, zone))
        table.add_row(_version(row), _percent(row), row.run or "-", *times, _outcome(row, zone))
    return table


def _block(row: HistoryRow, zone: Zone) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if row.since:
        grid.add_row("answered", _times(row, zone))
    if row.score_percent is not None:
        grid.add_row("score", _percent(row))
    if row.run:
        grid.add_row("run", row.run)
    return [Text.assemble((_version(row), "bold"), "  ", _outcome(row, zone)), *([indented(grid)] if grid.row_count else [])]


def _version(row: HistoryRow) -> str:
    return "base model" if row.digest is None else short_digest(row.digest)


def _percent(row: HistoryRow) -> str:
    return "-" if row.score_percent is None else f"{row.score_percent}%"


def _outcome(row: HistoryRow, zone: Zone) -> Text:
    live = "yellow" if row.outcome.startswith(("on trial", "waits")) else "red"
    text = Text(row.outcome, style=_STYLES.get(row.outcome, live))
    if row.decided:
        text.append(f" on {moment(row.decided, zone)} {zone.name}", style="not red")
    if row.message:
        text.append(f": {row.message}", style="not red dim")
    return text


def _times(row: HistoryRow | Origin, zone: Zone) -> str:
    ends = f"to {moment(row.until, zone)} {zone.name}" if row.until else "on"
    return f"from {moment(row.since, zone)} {zone.name} {ends}"


def lineage_report(twin: str, base: str, origins: Sequence[Origin], *, width: int, zone: Zone) -> Group:
    """Return for each adapter what it was made of, by whom, and when it answered, newest first."""
    parts: list[RenderableType] = []
    for origin in origins:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in _lines(origin, base, short_digest if width < _ROOMY else str, zone):
            grid.add_row(label, text)
        parts += [Text.assemble((origin.served_name, "bold"), f"  {origin.outcome}"), indented(grid), Text()]
    if not origins:
        parts.append(Text(f"{twin} has had no adapter: the base model {base} answers for it."))
    return Group(*parts[:-1] if origins else parts)


def _lines(origin: Origin, base: str, shown: Callable[[str], str], zone: Zone) -> list[tuple[str, str]]:
    lines = []
    if origin.recorded or origin.run:
        counted = f" ({origin.interactions} interactions)" if origin.interactions is not None else ""
        lines.append(("dataset", f"{shown(origin.dataset) if origin.dataset else 'not recorded'}{counted}"))
        expired = "" if origin.run_exists or not origin.run else " (its object has expired)"
        lines.append(("run", f"{origin.run or 'not recorded'}{expired}"))
        begun = (
            shown(origin.parent) if origin.parent else f"the base model {base}" if origin.recorded else "not recorded"
        )
        lines.append(("trained from", begun))
    else:
        lines.append(("made by", "not recorded in the cluster; its manifest may say it: add --from-store"))
    lines.append(("adapter", shown(origin.digest)))
    if origin.uri:
        lines.append(("stored at", origin.uri))
    if origin.since:
        lines.append(("answered", _times(origin, zone)))
    if origin.decided:
        lines.append(("decided", f"{moment(origin.decided, zone)} {zone.name}"))
    return lines
