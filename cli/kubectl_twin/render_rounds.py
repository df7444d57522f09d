"""Rounds on a terminal: the list, one round's table, and one miner's answers with what speaks for and against them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from bettertherapy_api.round_view import AnswerView, Evidence, MinerLine, MinerView, RoundView, TaskView
from kubectl_twin.api import Json
from kubectl_twin.render import Fitted, indented
from kubectl_twin.render_gateway import short_hotkey
from kubectl_twin.rounds import Compared, RoundRow, held_seconds, ranked, row_of
from kubectl_twin.runs import span
from kubectl_twin.views import age, short_digest

_TRUTH: Final = {"True": "green", "False": "red", "Unknown": "yellow"}
_WEIGHTS: Final = {"Revealed": "green", "Pending": "yellow", "Waiting": "yellow"}
_VERDICTS: Final = {"supported": "green", "met": "green", "contradicted": "red", "unmet": "red", "unchecked": "yellow"}
_PASSAGE: Final = 600
_TEXT: Final = 2000
_MOST_TASKS: Final = 10


def rounds_table(rows: Sequence[RoundRow], *, now: datetime) -> Fitted:
    """Return the table of `kubectl twin rounds`."""
    table = Fitted(("NAME", "COMPLETE", "SCORED", "BEST", "WEIGHTS", "DURATION", "AGE"))
    for row in rows:
        shown = row.complete if not row.reason else f"{row.complete} ({row.reason})"
        table.rows.append(
            [
                row.name, Text(shown, style=_TRUTH.get(row.complete, "")), row.scored,
                row.best, Text(row.weights, style=_WEIGHTS.get(row.weights, "")),
                row.duration, age(row.created, now),
            ]
        )  # fmt: skip
    return table


def round_report(made: Json, view: RoundView) -> Group:
    """Return the report of `kubectl twin round NAME`."""
    parts: list[RenderableType] = [_heading(made, view), Text()]
    table = Fitted(("UID", "MINER", "SCORE", "CORRECT", "SPEED", "RATED", "TASKS", "WEIGHT", "DONE"))
    for line in ranked(view):
        table.rows.append(_cells(line))
    parts.append(table if table.rows else Text(_without_miners(made, view), style="yellow", overflow="fold"))
    noted = [line for line in ranked(view) if line.notes]
    if noted:
        parts.append(Text())
        for line in noted:
            said = "; ".join(note for note in line.notes)
            parts.append(Text.assemble((f"uid {line.uid} ", "bold"), said, overflow="fold"))
    if table.rows:
        parts += [Text(), Text(f"One miner's answers: `kubectl twin round {view.name} --miner UID`", style="dim")]
    return Group(*parts)


def _without_miners(made: Json, view: RoundView) -> str:
    """Return why there is no table."""
    if view.results_digest is not None:
        return "No miner was asked."
    if (why := row_of(made)).failed:
        return f"It failed ({why.reason}), and has no results: `kubectl describe round {view.name}` says why."
    return "Its results are not there yet."


def miner_report(view: MinerView, *, most: int | None = None) -> Group:
    """Return the report of one miner: every question, its answer, and how that was scored."""
    line = view.miner
    title = f"uid {line.uid} {line.hotkey}"
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), f" in round {view.round}", overflow="fold"),
        Text(_parts(line), overflow="fold"),
        *(Text(note, style="yellow", overflow="fold") for note in line.notes),
    ]
    parts += [Text(_task(each), overflow="fold") for each in view.tasks[:_MOST_TASKS]]
    shown = view.answers if most is None else view.answers[:most]
    for number, answer in enumerate(shown, start=1):
        parts += [Text(), *_answer(number, answer)]
    if len(shown) < len(view.answers):
        more = len(view.answers) - len(shown)
        parts += [Text(), Text(f"… and {more} more: --items {len(view.answers)}", style="dim")]
    return Group(*parts)


def _task(found: TaskView) -> str:
    """Return one fine-tune task as a line."""
    made = f" ({short_digest(found.adapter)})" if found.adapter else ""
    why = f": {found.detail}" if found.detail else ""
    return f"task {found.task[:8]} · {found.twin} · {found.state}{made}{why}"


def compared_text(name: str, found: Compared) -> Text:
    """Return what reckoning once more found, as a sentence."""
    before = found.before or "-"
    if found.same:
        return Text(f"The stored answers of {name} give the same results: {before}", style="green")
    if found.digest is None:
        why = found.message or "the Job said nothing"
        said = f"The results of {name} could not be reckoned again: {why}"
        return Text(said, style="red", overflow="fold")
    more = f". {found.message}" if found.message else ""
    said = f"The stored answers of {name} give other results: {found.digest}, and it had {before}{more}"
    return Text(said, style="bold red", overflow="fold")


def _heading(made: Json, view: RoundView) -> Text:
    seconds = held_seconds(view)
    status = made.get("status") or {}
    weights = status.get("weights") or {}
    parts = [
        f"validator {view.validator}",
        f"{view.items} questions",
        f"took {span(seconds)}" if seconds is not None else "failed" if row_of(made).failed else "under way",
        f"seed {view.seed}",
        f"results {short_digest(view.results_digest) if view.results_digest else '-'}",
    ]
    if weights.get("state"):
        block = f" at block {weights['block']}" if weights.get("block") is not None else ""
        parts.append(f"weights {weights['state']}{block}")
    if tasks := status.get("tasks"):
        told = f"{tasks.get('accepted', 0)} of {tasks.get('sent', 0)} tasks taken"
        copies = f", {copied} not its miner's work" if (copied := tasks.get("disallowed", 0)) else ""
        parts.append(f"{told}, {tasks.get('passed', 0)} of {tasks.get('examined', 0)} examined passed{copies}")
    if status.get("metricsFresh") is False:
        parts.append("metrics stale: speed was not scored")
    said = " · ".join(str(part) for part in parts)
    return Text.assemble((view.name, "bold"), "  ", said, overflow="fold")


def _cells(line: MinerLine) -> list[str | Text]:
    weight = "-" if line.weight is None else f"{100 * line.weight:.1f}%"
    return [
        str(line.uid), short_hotkey(line.hotkey), Text(_percent(line.score), style="bold"),
        _percent(line.correctness), _percent(line.speed), _percent(line.satisfaction),
        _percent(line.participation), weight, f"{line.answered}/{line.asked}",
    ]  # fmt: skip


def _parts(line: MinerLine) -> str:
    named = (
        ("score", line.score), ("correctness", line.correctness), ("clarity", line.clarity), ("speed", line.speed),
        ("satisfaction", line.satisfaction), ("participation", line.participation),
    )  # fmt: skip
    shown = [f"{name} {_percent(value)}" for name, value in named]
    return " · ".join([*shown, f"answered {line.answered} of {line.asked}"])


def _answer(number: int, answer: AnswerView) -> list[RenderableType]:
    score = "not scored" if answer.score is None else f"{answer.score:.0f}%"
    timed = "" if answer.milliseconds is None else f" · {answer.milliseconds / 1000:.2f} s"
    head = f"{number}. {answer.kind} · {answer.twin} · {score} by {answer.how}{timed}"
    parts: list[RenderableType] = [Text(head, style="bold", overflow="fold")]
    parts.append(indented(_said("asked", answer.question)))
    parts.append(indented(_said("answered", answer.answer if answer.answer is not None else "nothing")))
    if answer.expected:
        parts.append(indented(_said("expected", answer.expected)))
    parts += [indented(_evidence(each)) for each in answer.evidence]
    return parts


def _said(label: str, text: str) -> Text:
    cut = text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
    return Text.assemble((f"{label}: ", "dim"), cut, overflow="fold")


def _evidence(found: Evidence) -> Text:
    where = " · ".join(part for part in (found.source, found.url) if part)
    passage = found.passage or ""
    passage = passage if len(passage) <= _PASSAGE else passage[: _PASSAGE - 1] + "…"
    quoted = f"“{passage}”" if passage else ""
    return Text.assemble(
        (found.verdict, _VERDICTS.get(found.verdict, "")), f": {found.claim}",
        (f"  {where} " if where else " ", "dim"), quoted, overflow="fold",
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"
