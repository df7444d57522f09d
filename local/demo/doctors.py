"""The demo's two doctors, and how their adapters are trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONVERSATIONS = Path(__file__).parent / "conversations"

BASE_MODEL = "smollm2-135m-instruct"
MODEL_URI = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
"""From where a cluster that was not made here fetches it."""
QUESTION = "My head has been aching since this morning. What should I do?"


@dataclass(frozen=True)
class Doctor:
    """One doctor."""

    twin: str
    name: str
    licence: str
    specialty: str

    @property
    def conversations(self) -> Path:
        """The conversations that the twin learns from."""
        return CONVERSATIONS / f"{self.twin}.jsonl"

    @property
    def values(self) -> dict[str, Any]:
        """The doctor as the chart's values describe one."""
        return {"name": self.name, "licence": self.licence, "specialty": self.specialty}


DOCTORS = (
    Doctor(
        twin="dr-indra-gurung",
        name="Dr. Indra Gurung",
        licence="NMC-10293",
        specialty="General practice",
    ),
    Doctor(
        twin="dr-tomas-okafor",
        name="Dr. Tomas Okafor",
        licence="MDCN-55310",
        specialty="Emergency medicine",
    ),
)

HYPERPARAMETERS: dict[str, str] = {
    "rank": "16",
    "steps": "26",
    "batch-size": "2",
    "learning-rate": "2e-3",
    "seed": "7",
}
"""Arguments of the trainer."""
RANK = int(HYPERPARAMETERS["rank"])


def recipe(doctor: Doctor, *, model_digest: str, trainer: str) -> str:
    """Return one digest over all that an adapter depends on: same recipe, same adapter, nothing to train."""
    told = {
        "conversations": hashlib.sha256(doctor.conversations.read_bytes()).hexdigest(),
        "hyperparameters": HYPERPARAMETERS,
        "model": model_digest,
        "trainer": trainer,
        "twin": doctor.twin,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
