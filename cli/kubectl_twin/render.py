"""Twins on a terminal, with Rich. Without a terminal the same text, without colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kubectl_twin.api import Json
from kubectl_twin.ask import Answer
from kubectl_twin.candidates import candidates, version_of
from kubectl_twin.pools import AdapterLine, PoolLine, is_good, pod_text, routing_text, state_text
from kubectl_twin.runs import Gate, Judging, Metric, gate_of, gate_text, progress_text, span, under_way
from kubectl_twin.suggestions import told
from kubectl_twin.views import ConditionLine, EventLine, age, short_digest
from kubectl_twin.wrapping import pieces
from kubectl_twin.zones import Zone, moment, zone_of

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("•", "yellow")}
_CONDITION = 21
_PIPE_WIDTH = 200
_CANDIDATES = 5
"""Of a terminal that a table is laid out for, before it is looked whether it fits."""


@dataclass
class Labelled:
    """A text beside its label; below it where a name in it would be cut."""

    label: Text
    text: Text
    width: int
    """Of the label, with the gap behind it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Decide by the width that there is."""
        words = pieces(told(self.text.plain))
        # What is too long even below is broken in either place.
        longest = max((width for each in words if (width := cell_len(each)) <= options.max_width), default=0)
        too_long = any(cell_len(each) > options.max_width for word in words for each in word.split())
        if too_long or longest > options.max_width - self.width:
            yield self.label
            yield indented(self.text)
            return
        grid = Table.grid()
        grid.add_column(width=self.width)
        grid.add_column(overflow="fold")
        grid.add_row(self.label, self.text)
        yield grid


def facts(rows: Sequence[tuple[str, str]]) -> Group:
    """Return labels with what is to be said of each."""
    width = max((cell_len(label) for label, _ in rows), default=0) + 2
    return Group(*(Labelled(Text(label, style="dim"), Text(text), width) for label, text in rows))


@dataclass
class Fitted:
    """Rows as a table; where that would wrap or be cut, a block for each: its first cell, below it all others."""

    headers: Sequence[str]
    rows: list[Sequence[str | Text]] = field(default_factory=list)
    right: frozenset[str] = frozenset()
    """Headers of columns of numbers."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Decide by the width that there is."""
        table = plain_table(*self.headers)
        for header, column in zip(self.headers, table.columns, strict=True):
            column.justify = "right" if header in self.right else "left"
        for row in self.rows:
            table.add_row(*row)
        if Measurement.get(console, options.update(max_width=_PIPE_WIDTH), table).maximum <= options.max_width:
            yield table
            return
        for first, *others in self.rows:
            name = f"{self.headers[0]} {first}" if str(first).isdigit() else str(first)
            yield Text.assemble((name, "bold"), overflow="fold")
            said = [
                Text.assemble((f"{header.lower()} " if header else "", "dim"), cell)
                for header, cell in zip(self.headers[1:], others, strict=True)
                if str(cell)
            ]
            yield indented(Text(" · ", overflow="fold").join(said))


def status_report(
    twin: Json,
    *,
    conditions: Sequence[ConditionLine],
    runs: Sequence[Json] | str,
    pools: Sequence[PoolLine] | str,
    events: Sequence[EventLine] | str,
    now: datetime,
) -> Group:
    """Return the report of `kubectl twin status`; what can't be read is a sentence that says why."""
    parts: list[RenderableType] = [_heading(twin), Text()]
    if conditions:
        said: dict[str, str] = {}
        for line in conditions:
            # One cause often makes several conditions false; its sentence is worth reading once.
            message = f"(as {said[line.message]})" if line.message in said else line.message
            parts.append(indented(_condition_line(line, message, now)))
            said.setdefault(line.message, line.type)
    else:
        parts.append(indented(Text("The operator has not looked at this twin yet. Is it running?", style="yellow")))
    parts += [Text(), Text("Versions", style="bold"), indented(_version_table(twin, now))]
    known = () if isinstance(runs, str) else runs
    if (fine_tuning := fine_tuning_lines(twin, known, now=now)) is not None or known is not runs:
        parts += [Text(), Text("Fine-tuning", style="bold")]
        parts += [indented(fine_tuning)] if fine_tuning is not None else []
        parts += [indented(Text(runs, style="yellow"))] if isinstance(runs, str) else []
    parts += [Text(), Text("Pods", style="bold")]
    if isinstance(pools, str):
        parts.append(indented(Text(pools, style="yellow")))
    elif not pools:
        parts.append(indented(Text("No pool serves it.", style="yellow")))
    else:
        parts += [indented(_pool_block(line)) for line in pools]
    parts += [Text(), Text("Events", style="bold")]
    if isinstance(events, str):
        parts.append(indented(Text(events, style="yellow")))
    else:
        parts.append(indented(_event_lines(events, now) if events else Text("none in the last hour", style="dim")))
    return Group(*parts)


def fine_tuning_lines(twin: Json, runs: Sequence[Json], *, now: datetime) -> RenderableType | None:
    """Return how the twin's fine-tuning stands; None for a twin that has none and never had."""
    status, spec, name = twin.get("status") or {}, twin["spec"].get("fineTune"), twin["metadata"]["name"]
    lines: list[tuple[str, str]] = []
    if (run := under_way(runs)) is not None:
        lines.append(("under way", f"{run['metadata']['name']}: {progress_text(run)}"))
    if spec or status.get("nextFineTuneTime"):
        lines.append(("next", _next(status, spec or {}, now, zone_of(twin))))
    if (last := status.get("lastFineTuneTime")) is not None:
        lines.append(("last", f"ended {age(last, now)} ago"))
    if (gate := gate_of(status.get("lastGate"))) is not None:
        judged = status["lastGate"].get("runName")
        lines.append(("last gate", gate_text(gate) + (f" · {judged}" if judged else "")))
    if (canary := status.get("canaryVersion")) is not None:
        lines.append(("canary", _canary(status, twin["spec"], canary, now)))
    if (pending := status.get("pendingVersion")) is not None:
        lines.append(("waits", f"{pending['servedName']} waits for the doctor: `kubectl twin review {name}`"))
    for number, version in enumerate(version_of(run) for run in candidates(twin, runs)[:_CANDIDATES]):
        score = f", score {version['scorePercent']}%" if "scorePercent" in version else ""
        said = f"{version['servedName']}{score} · {version['runName']}"
        lines.append(("to choose" if number == 0 else "", said))
    if not lines:
        return None
    return facts(lines)


def _next(status: Json, spec: Json, now: datetime, zone: Zone) -> str:
    if spec.get("suspend"):
        return "none: spec.fineTune.suspend is true"
    if (planned := status.get("nextFineTuneTime")) is None:
        return "not planned yet"
    left = (datetime.fromisoformat(planned) - now).total_seconds()
    return f"{moment(planned, zone)} {zone.name} " + (
        f"(in {span(left)})" if left > 0 else f"(overdue for {span(-left)})"
    )


def _canary(status: Json, spec: Json, canary: Json, now: datetime) -> str:
    name, weight, step = canary["servedName"], status.get("canaryWeightPercent"), status.get("canaryStep")
    if step is None:
        return f"{name} is being loaded beside what answers"
    steps = (spec.get("rollout") or {}).get("steps") or []
    return f"{name} takes {weight or 0}%, step {step + 1} of {len(steps)}, for {age(status.get('canaryStepTime'), now)}"


def run_line(run: Json) -> Text:
    """Return how far a run is, with its name, for the line that is written over and over."""
    return Text.assemble((f"{run['metadata']['name']}  ", "dim"), progress_text(run))


def gate_table(gate: Gate) -> Fitted:
    """Return a gate's metrics: value, that of the version it is compared with, difference, interval, threshold."""
    numbers = ("NEW", "BEFORE", "CHANGE", "INTERVAL", "AT LEAST")
    table = Fitted(("METRIC", *numbers), right=frozenset(numbers))
    for metric in gate.metrics:
        change = None if metric.baseline is None else metric.value - metric.baseline
        below = metric.threshold is not None and metric.value < metric.threshold
        table.rows.append(
            (
                metric.name,
                Text(f"{metric.value}%", style="red" if below else ""),
                "-" if metric.baseline is None else f"{metric.baseline}%",
                "-"
                if change is None
                else Text(f"{change:+d}", style="green" if change > 0 else "red" if change else ""),
                "-" if metric.interval is None else _interval(metric),
                "-" if metric.threshold is None else f"{metric.threshold}%",
            )
        )
    return table


def _interval(metric: Metric) -> Text:
    """Return the change's interval, red where it doesn't show that no more was lost than may be."""
    low, high = metric.interval or (0, 0)
    return Text(f"{low:+d} to {high:+d}", style="red" if metric.shown is False else "")


def judging_report(judging: Judging) -> Group:
    """Return how a gate's items were scored, by whom, and beside that how clear the answers are."""
    ways = ", ".join(f"{count} by {way}" for way, count in judging.scored_by) or "none"
    lines = [Text.assemble(("items scored: ", "dim"), ways)]
    if judging.ungraded:
        lines.append(Text(f"{judging.ungraded} without a score: they count for neither version", style="yellow"))
    lines += [
        Text.assemble(
            ("grader: ", "dim"), f"{each.model} ({each.wording})",
            f", kappa {each.kappa / 100:.2f}, at least {each.low / 100:.2f}, on {each.known} known answers",
        )
        for each in judging.graders
    ]  # fmt: skip
    if judging.criteria:
        lines.append(Text.assemble(("graders agreed on ", "dim"), f"{judging.agreed} of {judging.criteria} criteria"))
    lines += [
        Text.assemble(
            ("clarity, which doesn't count: ", "dim"),
            f"{each.part.lower()} {each.value}% (was {each.baseline}%) on {each.answers} answers",
        )
        for each in judging.clarity
    ]
    return Group(*lines)


def verdict_line(gate: Gate) -> Text:
    """Return the gate's decision and why."""
    style = {"Promote": "bold green", "Reject": "bold red"}.get(gate.verdict, "bold yellow")
    why = f": {gate.message}" if gate.message else ""
    return Text.assemble((gate.verdict, style), f" on {gate.samples} items{why}")


def answer_footer(answer: Answer) -> Text:
    """Return the line below an answer: who answered, with which weights, how fast."""
    weights = "base model" if answer.adapter_digest is None else f"adapter {short_digest(answer.adapter_digest)}"
    parts = [answer.doctor, weights, f"pool {answer.pool}"]
    if answer.pod is not None:
        parts.append(f"pod {answer.pod}")
    if answer.first_token_seconds is not None:
        parts.append(f"first token {answer.first_token_seconds:.2f} s")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.1f} tokens/s")
    elif answer.tokens is not None:
        parts.append(f"{answer.tokens} tokens in {answer.seconds:.2f} s")
    if answer.finish_reason == "length":
        parts.append("cut at --max-tokens")
    return Text(" · ".join(parts), style="dim")


def plain_table(*headers: str) -> Table:
    """Return a table without lines, to which rows are added."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def indented(content: RenderableType) -> Padding:
    """Return the content below a heading."""
    return Padding(content, (0, 0, 0, 2), expand=False)


def _heading(twin: Json) -> Text:
    doctor, meta = twin["spec"]["doctor"], twin["metadata"]
    about = [doctor["specialty"]] if doctor.get("specialty") else []
    about.append(f"licence {doctor['licence']}")
    pools = ", ".join((twin.get("status") or {}).get("pools") or []) or "no pool"
    return Text.assemble(
        (doctor["name"], "bold"),
        f" ({', '.join(about)})\n",
        (f"twin {meta['name']} in namespace {meta.get('namespace', '-')}, served by {pools}", "dim"),
    )


def _condition_line(line: ConditionLine, message: str, now: datetime) -> Labelled:
    mark, style = _MARKS[line.good]
    text = Text.assemble((line.status, style), f" {line.reason}", (f" for {age(line.since, now)}", "dim"))
    if message:
        text.append(f"\n{message}")
    return Labelled(Text.assemble((mark, style), " ", (line.type, "bold")), text, _CONDITION)


def _version_table(twin: Json, now: datetime) -> RenderableType:
    status = twin.get("status") or {}
    table = Fitted(("", "SERVED AS", "DIGEST", "SCORE", "SINCE", "FROM"))
    rows = [(kind, status.get(f"{kind}Version")) for kind in ("active", "canary", "pending", "previous")]
    for kind, version in rows:
        if not version:
            continue
        weight = status.get("canaryWeightPercent")
        label = f"{kind} {weight}%" if kind == "canary" and weight is not None else kind
        score = version.get("scorePercent")
        table.rows.append(
            (
                label,
                version.get("servedName", "-"),
                short_digest(version.get("digest")),
                "-" if score is None else f"{score}%",
                age(version.get("since"), now),
                version.get("runName") or version.get("uri") or "-",
            )
        )
    wanted = (twin["spec"].get("adapter") or {}).get("digest")
    replaced = status.get("promotedVersion") and status.get("specDigest") == wanted  # a fine-tune or a rollback has
    if wanted and not replaced and wanted not in {(version or {}).get("digest") for _kind, version in rows}:
        table.rows.append(("wanted", "-", short_digest(wanted), "-", "-", twin["spec"]["adapter"]["uri"]))
    return table if table.rows else Text("none serves yet", style="yellow")


def _pool_block(line: PoolLine) -> Group:
    """Return the pool's line, below it each pod's, below that each adapter's: no table fits a pod's name at 80."""
    parts: list[RenderableType] = [Text.assemble((line.name, "bold"), f" {routing_text(line)}")]
    if not line.pods:
        parts.append(indented(Text("it has no engine pod", style="yellow")))
    for pod in line.pods:
        well = pod.report is not None and pod.report.engine.live and pod.report.ready and pod.reachable
        parts.append(indented(Text.assemble(f"{pod.name}: ", (pod_text(pod), "" if well else "yellow"))))
        parts += [indented(indented(_adapter_line(adapter))) for adapter in pod.adapters]
    return Group(*parts)


def _adapter_line(line: AdapterLine) -> Table:
    mark, style = _MARKS[is_good(line)]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=style), Text.assemble(f"{line.served_name} ", (state_text(line), style)))
    return grid


def _event_lines(events: Sequence[EventLine], now: datetime) -> Group:
    """Return how long ago each was, and how often; beside that what it says."""
    labels = [age(event.time, now) + (f" (x{event.times})" if event.times > 1 else "") for event in events]
    width = max(cell_len(label) for label in labels) + 2
    return Group(
        *(
            Labelled(
                Text(label, style="dim"),
                Text.assemble(
                    (event.type, "yellow" if event.type != "Normal" else ""), f" {event.reason}: {event.message}"
                ),
                width,
            )
            for label, event in zip(labels, events, strict=True)
        )
    )
