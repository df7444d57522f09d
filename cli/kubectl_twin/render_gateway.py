"""What is printed below a gateway's answer: who gave it, whether its receipt proves that, and how the others did."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_twin.gateway import GatewayAnswer, MinerResult
from kubectl_twin.proof import Proof
from kubectl_twin.render import Fitted
from kubectl_twin.views import short_digest


def gateway_footer(answer: GatewayAnswer) -> Group:
    """Return the lines below an answer."""
    parts: list[RenderableType] = [answer_line(answer)]
    if len(answer.results) > 1:
        parts += [Text(), result_table(answer.results, given=answer.hotkey)]
    return Group(*parts)


def answer_line(answer: GatewayAnswer) -> Text:
    """Return who answered, by which weights, how well and how fast, and what the receipt proves."""
    if not answer.answered:
        return Text(f"no miner answered for {answer.doctor}: what stands above is the gateway's own notice", "yellow")
    weights = "base model" if answer.adapter_digest is None else f"adapter {short_digest(answer.adapter_digest)}"
    parts = [answer.doctor, weights]
    if answer.hotkey is not None:
        parts.append(f"miner {answer.uid} {short_hotkey(answer.hotkey)}")
    if answer.score is not None:
        parts.append(f"score {answer.score:.2f}")
    if answer.first_token_seconds is not None:
        parts.append(f"first text {answer.first_token_seconds:.2f} s")
    if answer.tokens is not None:
        parts.append(f"{answer.tokens} tokens in {answer.seconds:.2f} s")
    if answer.finish_reason == "length":
        parts.append("cut at --max-tokens")
    line = Text(" · ".join(part for part in parts), style="dim")
    line.append(" · ")
    line.append(*proof_text(answer.proof))
    return line


def proof_text(proof: Proof | None) -> tuple[str, str]:
    """Return what the receipt proves, and how to print it."""
    if proof is None:
        return "no receipt came with it", "yellow"
    if proof.proven is None:
        return f"receipt not checked: {proof.why}", "yellow"
    if proof.proven:
        return "receipt verified", "green"
    return f"the receipt does not prove it: {', '.join(proof.failed)}", "bold red"


def result_table(results: Sequence[MinerResult], *, given: str | None) -> Fitted:
    """Return how each miner did that was asked, the best first; `given` is the hotkey whose answer was."""
    table = Fitted(("UID", "MINER", "SCORE", "SECONDS", ""))
    for result in results:
        table.rows.append(
            (
                str(result.uid), short_hotkey(result.hotkey), _score(result), f"{result.seconds:.2f}",
                "given" if result.hotkey == given and result.failure is None else "",
            )
        )  # fmt: skip
    return table


def short_hotkey(hotkey: str) -> str:
    """Return a hotkey in 13 characters, as `kubectl twin miners` prints it."""
    return f"{hotkey[:6]}…{hotkey[-6:]}"


def _score(result: MinerResult) -> Text:
    if result.score is None:
        return Text(result.failure or "-", style="yellow")
    return Text(f"{result.score:.2f}")
