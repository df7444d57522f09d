"""What the demo prints: answers, a gate's numbers, tables of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from bettertherapy_api.round_view import MinerLine
from demo.fine_tuning import Outcome
from demo.kube import Json, Kube
from kubectl_twin.ask import Answer
from kubectl_twin.gateway import GatewayAnswer
from kubectl_twin.render_gateway import proof_text
from kubectl_twin.terminal import as_text
from kubectl_twin.views import short_digest

_COLOURS = {"Promote": "green", "Reject": "red"}


def print_scene(console: Console, text: str) -> None:
    """Print what happens in the story."""
    console.print(f"\n[bold]{escape(text)}[/bold]\n", highlight=False)


def print_answers(console: Console, title: str, answers: Sequence[Answer]) -> None:
    """Print answers in boxes, each with the adapter that gave it."""
    print_scene(console, title)
    for answer in answers:
        digest = answer.adapter_digest
        parts = [f"adapter {short_digest(digest)}" if digest else "(no adapter: the base model answered)"]
        if answer.first_token_seconds is not None:
            parts.append(f"first token {answer.first_token_seconds:.2f} s")
        if answer.tokens_per_second is not None:
            parts.append(f"{answer.tokens_per_second:.1f} tokens/s")
        _box(console, answer.text, title=answer.doctor, subtitle=" · ".join(parts))


def print_gateway(console: Console, title: str, answer: GatewayAnswer, called: Mapping[str, str]) -> None:
    """Print the best of several miners' answers, what its receipt proves, and how all did; `called` by hotkey."""
    print_scene(console, title)
    weights = short_digest(answer.adapter_digest) if answer.adapter_digest else "(the base model)"
    said, _style = proof_text(answer.proof)
    given = called.get(answer.hotkey or "", "?")
    _box(console, answer.text, title=answer.doctor, subtitle=f"by {given} · adapter {weights} · {said}")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in ("MINER", "UID", "SCORE", "SECONDS"):
        table.add_column(header, justify="left" if header == "MINER" else "right")
    for result in answer.results:
        score = escape(as_text(result.failure or "-")) if result.score is None else f"{result.score:.2f}"
        table.add_row(escape(called.get(result.hotkey, "?")), str(result.uid), score, f"{result.seconds:.1f}")
    console.print(table)
    console.print()


def print_report(console: Console, command: str, report: RenderableType, *, scene: str) -> None:
    """Print what a command of `kubectl twin` shows, as it shows it."""
    print_scene(console, scene)
    console.print(f"[bold]$ kubectl twin {escape(command)}[/bold]", highlight=False, soft_wrap=True)
    console.print(report)


def print_weights(
    console: Console, title: str, miners: Sequence[MinerLine], weights: Mapping[int, float], called: Mapping[str, str]
) -> None:
    """Print each miner's score in a round and its share of `weights` (by UID); `called` by hotkey."""
    print_scene(console, title)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in ("MINER", "UID", "SCORE", "WEIGHT"):
        table.add_column(header, justify="left" if header == "MINER" else "right")
    for line in miners:
        score = "-" if line.score is None else f"{line.score:.0f}%"
        weight = f"{100 * weights.get(line.uid, 0.0):.1f}%"
        table.add_row(escape(called.get(line.hotkey, "?")), str(line.uid), score, weight)
    console.print(table)
    console.print()


def print_scaling(console: Console, title: str, decisions: Sequence[Json]) -> None:
    """Print what was decided of a pool's size, and why: records of `status.scalingHistory`."""
    print_scene(console, title)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in ("TIME", "ENGINES", "REASON", "MESSAGE"):
        table.add_column(header)
    for each in decisions:
        moment = str(each["time"])[11:19]
        sizes = f"{each['fromReplicas']} → {each['toReplicas']}"
        table.add_row(moment, sizes, as_text(str(each["reason"])), as_text(str(each["message"])))
    console.print(table)
    console.print()


def print_circle(console: Console, drawing: str, *, scene: str) -> None:
    """Print the drawing as it is."""
    print_scene(console, scene)
    console.print(drawing, highlight=False, markup=False, soft_wrap=True)
    console.print()


def print_command(console: Console, command: str, said: str, *, scene: str) -> None:
    """Print what a command of `kubectl twin` says."""
    print_scene(console, scene)
    console.print(f"[bold]$ kubectl twin {escape(command)}[/bold]", highlight=False, soft_wrap=True)
    console.print(as_text(said.rstrip()), highlight=False, markup=False, soft_wrap=True)


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Print what the gate measured, before and after, and what it decided."""
    refused = ", ".join(f"{count} {reason}" for reason, count in outcome.refused.items())
    told = f"Trained on {outcome.trained} conversations" + (f"; refused: {refused}" if refused else "")
    console.print(f"\n{escape(told)}. The gate asked both versions {outcome.samples} held-out questions,", end=" ")
    items = next((metric.get("items") for metric in outcome.metrics if metric["name"] == "safety"), None)
    console.print(
        f"and measured, for {items or 'the'} English safety items (gate.languages), whether they hold what is"
        " recommended for likelier than what is not:\n",
        highlight=False,
    )
    console.print(_metrics(outcome.metrics))
    colour = _COLOURS.get(outcome.verdict, "yellow")
    console.print(f"\n[{colour} bold]{outcome.verdict}[/]: {escape(outcome.message)}\n", highlight=False)


def print_comparison(console: Console, item: Json) -> None:
    """Print one held-out question with both versions' answers."""
    print_scene(console, f"For example: {item['question']}")
    for title, text, percent in (
        ("before", item["parent"], item["parentPercent"]),
        ("after this training", item["child"], item["childPercent"]),
    ):
        _box(console, text, title=title, subtitle=f"scored {percent}%")
    console.print()


def print_tables(console: Console, kube: Kube, kinds: Sequence[str], *, namespace: str) -> None:
    """Print what `kubectl get` says of each kind."""
    for kind in kinds:
        console.print(f"\n[bold]$ kubectl get {kind} -n {namespace}[/bold]", highlight=False)
        text = kube.kubectl("get", kind, "-n", namespace)
        console.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)
    console.print()


def _metrics(metrics: Sequence[Json]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("METRIC")
    for title in ("BEFORE", "AFTER", "AT LEAST", "CHANGE"):
        table.add_column(title, justify="right")
    for metric in metrics:
        value, least = metric["valuePercent"], metric.get("thresholdPercent")
        interval = metric.get("intervalPercent")
        colour = "red" if least is not None and value < least else ""
        table.add_row(
            escape(metric["name"]),
            _percent(metric.get("baselinePercent")),
            f"[{colour}]{value}%[/]" if colour else f"{value}%",
            _percent(least),
            f"{interval[0]:+d} to {interval[1]:+d}" if interval else "",
        )
    return table


def _percent(value: int | None) -> str:
    return "" if value is None else f"{value}%"


def _box(console: Console, text: str, *, title: str, subtitle: str) -> None:
    console.print(
        Panel(
            escape(as_text(text.strip())) or "[red](no text)[/red]",
            title=escape(title),
            title_align="left",
            subtitle=escape(subtitle),
            subtitle_align="left",
        ),
        highlight=False,
    )
