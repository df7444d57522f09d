"""A twin's versions on a terminal: their history and where they come from."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kubectl_twin.render import indented, plain_table
from kubectl_twin.versions import HistoryRow, Origin, moment
from kubectl_twin.views import short_digest

_WIDE = 120
_STYLES = {"answers": "green", "replaced": "", "answered before": ""}


def history_table(rows: Sequence[HistoryRow], *, width: int) -> RenderableType:
    """Return the table of `kubectl twin history`; where it would wrap, a block per version."""
    if width < _WIDE:
        return Group(*(part for row in rows for part in _block(row)))
    table = plain_table("DIGEST", "SCORE", "RUN", "FROM (UTC)", "TO (UTC)", "OUTCOME")
    for column in table.columns[:5]:
        column.no_wrap = True
    for row in rows:
        table.add_row(_version(row), _percent(row), row.run or "-", moment(row.since), moment(row.until), _outcome(row))
    return table


def _block(row: HistoryRow) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if row.since or row.until:
        grid.add_row("time", f"{moment(row.since)} to {moment(row.until)} UTC")
    if row.score_percent is not None:
        grid.add_row("score", _percent(row))
    if row.run:
        grid.add_row("run", row.run)
    return [Text.assemble((_version(row), "bold"), "  ", _outcome(row)), *([indented(grid)] if grid.row_count else [])]


def _version(row: HistoryRow) -> str:
    return "base model" if row.digest is None else short_digest(row.digest)


def _percent(row: HistoryRow) -> str:
    return "-" if row.score_percent is None else f"{row.score_percent}%"


def _outcome(row: HistoryRow) -> Text:
    live = "yellow" if row.outcome.startswith(("on trial", "waits")) else "red"
    text = Text(row.outcome, style=_STYLES.get(row.outcome, live))
    if row.message:
        text.append(f": {row.message}", style="not red dim")
    return text


def lineage_report(twin: str, base: str, origins: Sequence[Origin]) -> Group:
    """Return for each adapter what it was made of, by whom, and when it answered, newest first."""
    parts: list[RenderableType] = []
    for origin in origins:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in _lines(origin, base):
            grid.add_row(label, text)
        parts += [Text.assemble((origin.served_name, "bold"), f"  {origin.outcome}"), indented(grid), Text()]
    if not origins:
        parts.append(Text(f"{twin} has had no adapter: the base model {base} answers for it."))
    return Group(*parts[:-1] if origins else parts)


def _lines(origin: Origin, base: str) -> list[tuple[str, str]]:
    lines = []
    if origin.recorded:
        counted = f" ({origin.interactions} interactions)" if origin.interactions is not None else ""
        lines.append(("dataset", f"{origin.dataset or 'not recorded'}{counted}"))
        expired = "" if origin.run_exists or not origin.run else " (its object has expired)"
        lines.append(("run", f"{origin.run or 'not recorded'}{expired}"))
        lines.append(("trained from", origin.parent or f"the base model {base}"))
    else:
        lines.append(("made by", "not recorded in the cluster; its manifest may say it: add --from-store"))
    lines.append(("adapter", origin.digest))
    if origin.uri:
        lines.append(("stored at", origin.uri))
    if origin.since or origin.until:
        lines.append(("answered", f"{moment(origin.since)} to {moment(origin.until) if origin.until else 'now'} UTC"))
    return lines
