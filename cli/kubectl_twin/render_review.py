"""A review on a terminal: two columns of answers where there is room, one above the other where there is not."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bettertherapy_api import names
from bettertherapy_api.gate.metrics import ANCHOR
from bettertherapy_api.run_progress import ReviewItem
from kubectl_twin.api import Json
from kubectl_twin.render import gate_table, indented, judging_report, verdict_line
from kubectl_twin.review import Reviewed

_WIDE = 100
_ANCHORED = (
    f"{ANCHOR}…: before is the version that a person last approved. An approval makes the new one that, with what it "
    "lost."
)


def review_report(twin: Json, reviewed: Reviewed, *, most: int, width: int) -> Group:
    """Return the report of `kubectl twin review` with the first `most` items."""
    doctor, name = twin["spec"]["doctor"]["name"], twin["metadata"]["name"]
    parts: list[RenderableType] = [
        Text.assemble((doctor, "bold"), f"\n{reviewed.version or 'the new version'}, made by {reviewed.run}", "\n"),
    ]
    if reviewed.gate is not None:
        parts += [verdict_line(reviewed.gate), Text(), indented(gate_table(reviewed.gate)), Text()]
        if any(metric.name.startswith(ANCHOR) for metric in reviewed.gate.metrics):
            parts += [indented(Text(_ANCHORED, style="dim")), Text()]
        if reviewed.gate.judging is not None:
            parts += [indented(judging_report(reviewed.gate.judging)), Text()]
    if reviewed.missing:
        parts += [Text(reviewed.missing, style="yellow"), Text()]
    shown = reviewed.items[:most]
    for item in shown:
        answers = _side_by_side(item, reviewed) if width >= _WIDE else _stacked(item, reviewed)
        parts += [_question(item), answers, Text()]
    if len(shown) < len(reviewed.items):
        parts += [Text(f"{len(reviewed.items) - len(shown)} more: --items {len(reviewed.items)}", style="dim"), Text()]
    if reviewed.of is not None and reviewed.of > len(reviewed.items):
        kept = f"Of {reviewed.of} questions the {len(reviewed.items)} are kept that are to be read first."
        parts += [Text(kept, style="dim"), Text()]
    if reviewed.choose is not None:
        parts.append(Text(reviewed.choose))
    elif reviewed.waits:
        which = f"{name} --digest {names.digest_hex(reviewed.digest)[:12]}" if reviewed.digest else name
        parts.append(Text(f"It waits for a decision: `kubectl twin approve {which}` or `kubectl twin reject {which}`."))
    else:
        parts.append(Text(f"Nothing is to be decided on it. `kubectl twin history {name}` says what became of it."))
    return Group(*parts)


def _question(item: ReviewItem) -> Text:
    how = f" · by {item.way}" if item.way else ""
    why = f" · no score: {item.ungraded}" if item.ungraded else ""
    text = Text.assemble(
        (item.question, "bold"), (f"  {item.kind} · {item.id}{how}", "dim"),
        (why, "yellow"),
    )  # fmt: skip
    if item.warning:
        text.append(f"\n! {item.warning}", style="bold red")
    if item.expected:
        text.append("\nexpected ", style="dim")
        text.append(item.expected)
    return text


def _side_by_side(item: ReviewItem, reviewed: Reviewed) -> Padding:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), expand=True, show_header=False)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    table.add_row(*_labels(item, reviewed))
    table.add_row(Text(item.parent), Text(item.child))
    return Padding(table, (0, 0, 0, 2))


def _stacked(item: ReviewItem, reviewed: Reviewed) -> Padding:
    before, after = _labels(item, reviewed)
    return Padding(
        Group(before, Text(item.parent), after, Text(item.child)), (0, 0, 0, 2)
    )  # fmt: skip


def _labels(item: ReviewItem, reviewed: Reviewed) -> tuple[Text, Text]:
    before, after = item.parent_percent, item.child_percent
    change = after - before if before is not None and after is not None else 0
    style = "green" if change > 0 else "red" if change else ""
    return (
        Text.assemble(
            ("before ", "dim"), _score(before), (_clarity(item.parent_clarity), "dim"), (f"  {reviewed.parent}", "dim")
        ),
        Text.assemble(
            ("new ", "dim"), (_score(after), style), (_clarity(item.child_clarity), "dim"),
            (f"  {reviewed.version or ''}", "dim"),
        ),
    )  # fmt: skip


def _score(percent: int | None) -> str:
    return "no score" if percent is None else f"{percent}%"


def _clarity(parts: dict[str, int]) -> str:
    """Return how clear an answer is, beside whether it is right; nothing where nothing was measured."""
    told = ", ".join(f"{part.lower()} {percent}%" for part, percent in parts.items())
    return f" · how clear: {told}" if told else ""
