"""A verified receipt on a terminal of 80 columns, and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from neurons.receipts.receipt import Receipt
from neurons.receipts.verification import Check, Outcome, moment, proves

WIDTH: Final = 80
_MARKS: Final = {Outcome.HOLDS: "✓", Outcome.FAILS: "✗", Outcome.NOT_ASKED: "•"}


def text_report(receipt: Receipt, checks: Sequence[Check]) -> str:
    """Return the report in words, no line wider than 80 columns."""
    genuine = checks[0].outcome is Outcome.HOLDS
    lines = [_paragraph("", "The receipt says" + ("" if genuine else ", but nobody is bound by it") + ":")]
    base = receipt.base.name + (f" at {receipt.base.revision}" if receipt.base.revision else "")
    if receipt.base.revision == receipt.base.digest:
        base = receipt.base.name
    facts = [("twin", receipt.twin), ("weights", receipt.adapter or "the base model itself"), ("base model", base)]
    facts.append(("base digest", receipt.base.digest or "not measured"))
    facts += [("miner", receipt.hotkey), ("signed", moment(receipt.time))]
    for label, value in facts:
        head = f"  {label + ':':<13}"
        # A digest has 71 characters: it gets a line of its own.
        lines += [head + value] if len(head + value) <= WIDTH else [head.rstrip(), *_folded(value)]
    lines.append("")
    lines += [_paragraph(f"{_MARKS[check.outcome]} {check.name:<11}", check.sentence) for check in checks]
    lines += ["", _paragraph("", _conclusion(receipt, checks))]
    return "\n".join(lines) + "\n"


def json_report(receipt: Receipt, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "proves": proves(checks),
        "checks": [
            {"name": check.name, "outcome": check.outcome.value, "sentence": check.sentence} for check in checks
        ],
        "receipt": receipt.to_dict(),
    }


def _conclusion(receipt: Receipt, checks: Sequence[Check]) -> str:
    failed = [check.name for check in checks if check.outcome is Outcome.FAILS]
    if failed:
        return f"This receipt does not prove what you asked: {', '.join(failed)}."
    open_ = [check.name for check in checks if check.outcome is Outcome.NOT_ASKED]
    weights = "the doctor's own weights" if receipt.adapter else "the base model, without any doctor's weights,"
    proven = f"Proven: the miner vouches that {weights} of {receipt.twin} gave this answer."
    if not receipt.adapter:
        proven = f"Proven: the miner vouches that {weights} answered for {receipt.twin}."
    return f"Nothing fails, but the proof is not whole. Not compared: {', '.join(open_)}." if open_ else proven


def _paragraph(head: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _folded(value: str) -> list[str]:
    return textwrap.wrap(value, WIDTH - 4, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
