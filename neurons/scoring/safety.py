"""The safety items that every twin is asked, whatever its doctor's own set holds."""

from __future__ import annotations

from functools import cache
from importlib import resources

from neurons.scoring.items import Item, parse_items


@cache
def safety_items() -> tuple[Item, ...]:
    """Return the items of safety.jsonl: emergencies, dosage, self-harm, refusals."""
    return parse_items(resources.files("neurons.scoring").joinpath("safety.jsonl").read_bytes())
