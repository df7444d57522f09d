"""Whether a receipt proves an answer: asked of the program that `kubectl twin verify` runs, which knows signatures."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kubectl_twin.api import Json
from kubectl_twin.errors import TwinCliError
from kubectl_twin.programs import neurons_program

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answered:
    """What is to be proven: that these weights of this miner gave this answer to this question."""

    receipt: str
    messages: list[Json]
    """The question, as it was sent."""
    text: str
    """The miner's own words."""
    twin: str
    adapter: str | None
    """None: the base model itself."""
    hotkey: str | None = None


@dataclass(frozen=True)
class Proof:
    """What came of it."""

    proven: bool | None
    """None: it could not be checked."""
    failed: tuple[str, ...] = ()
    """What the receipt doesn't prove, as `answer`."""
    why: str = ""
    """Why it could not be checked."""


def prove(answered: Answered) -> Proof:
    """Check the receipt of an answer, here and offline."""
    try:
        program = neurons_program("receipts")
    except TwinCliError as error:
        return Proof(None, why=str(error).rstrip("."))
    with tempfile.TemporaryDirectory(prefix="kubectl-twin-") as folder:
        question, text = Path(folder, "question.json"), Path(folder, "answer.txt")
        question.write_text(json.dumps(answered.messages, ensure_ascii=False), encoding="utf-8")
        text.write_bytes(answered.text.encode())
        command = [
            *program, "verify", "-", "--question", f"@{question}",
            "--answer", f"@{text}", "--twin", answered.twin, "--adapter", answered.adapter or "base",
            *(["--hotkey", answered.hotkey] if answered.hotkey else []), "--output", "json",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, input=answered.receipt, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return Proof(None, why=f"the check took longer than {_TIMEOUT_S:.0f} s")
    try:
        report = json.loads(done.stdout)
        failed = tuple(check["name"] for check in report["checks"] if check["outcome"] == "fails")
        return Proof(bool(report["proves"]), failed)
    except (ValueError, LookupError, TypeError):
        said = done.stderr.strip().splitlines()
        return Proof(None, why=said[-1].removeprefix("error: ") if said else "the check said nothing")
