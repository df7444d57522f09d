"""Writes a day's conversations into a validator's ledger, as its gateway would have: sent to the gateway's pod, and run
there, since the ledger is its own. It uses what is in that image alone.

Standard input is JSON: `twin{uid,name}`, `miner`, `adapter`, `atMs` and `lines` as the trainer reads them. Each is a
patient's own conversation; the same day is written once. The last line says how many there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from neurons.ledger import (
    Answer,
    AnyRecord,
    Chosen,
    Consent,
    Correction,
    Ledger,
    Miner,
    Question,
    Rating,
    Session,
    Twin,
)
from neurons.ledger.dataset import is_held_out
from neurons.ledger.records import derived_id


@dataclass(frozen=True)
class Written:
    """A text that was made up, and names nobody."""

    text: str
    scrubbed_by: str = "demo"


def patient_of(told: dict[str, Any], line: dict[str, Any]) -> str:
    """Return whose conversation it is."""
    return derived_id("demo-patient", told["twin"]["uid"], str(told["atMs"]), str(line["id"]))


def records_of(told: dict[str, Any], line: dict[str, Any]) -> list[AnyRecord]:
    """Return all that the ledger keeps of one patient's conversation."""
    twin, at_ms = Twin(**told["twin"]), int(told["atMs"])

    def own(kind: str) -> str:
        return derived_id(f"demo-{kind}", twin.uid, str(at_ms), str(line["id"]))

    patient, session, question, answer = patient_of(told, line), own("session"), own("question"), own("answer")
    asked, said = (Written(each["content"]) for each in line["messages"][-2:])
    found: list[AnyRecord] = [
        Consent(own("consent"), patient, True, at_ms - 1000),
        Session(session, patient, twin, at_ms),
        Question(question, session, patient, twin, asked, at_ms),
        Answer(
            answer_id=answer, question_id=question, session_id=session, patient_id=patient, twin=twin,
            miner=Miner(hotkey=told["miner"], registered_block=0), at_ms=at_ms + 10, latency_ms=1000, text=said,
            adapter_digest=told["adapter"],
        ),
        Chosen(question, answer, session, patient, at_ms + 20),
    ]  # fmt: skip
    if "rating" in line:
        found.append(Rating(own("rating"), answer, question, patient, line["rating"], at_ms + 100))
    if "correction" in line:
        corrected = Written(line["correction"])
        found.append(Correction(own("correction"), answer, question, patient, own("doctor"), corrected, at_ms + 200))
    return found


async def remember(told: dict[str, Any], url: str) -> dict[str, int]:
    """Write it all; returns how many conversations there are, and how many of them no miner gets."""
    patients = []
    async with await Ledger.open(url) as ledger:
        for line in told["lines"]:
            await ledger.record(*records_of(told, line))
            patients.append(patient_of(told, line))
    held_out = sum(is_held_out(told["twin"]["uid"], each) for each in patients)
    return {"conversations": len(patients), "heldOut": held_out}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(remember(json.load(sys.stdin), os.environ["LEDGER_URL"]))))
