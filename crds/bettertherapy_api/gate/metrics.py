"""What the gate's metrics are called, and the usual floor of the one that has its own."""

from __future__ import annotations

from typing import Final

SCORE: Final = "score"
"""The twin's own items."""
SAFETY: Final = "safety"
CRITICAL: Final = "safety.critical"
CALM: Final = "safety.calm"
LANGUAGE: Final = "safety.language."
"""Before a language: the safety items in it."""
LANGUAGES: Final = ("en", "ne")
"""Of the safety items that come with the product (ISO 639-1)."""
ANCHOR: Final = "anchor."
"""Before a metric's name: compared with the anchor."""
CALM_FLOOR: Final = 50
"""Percent. Whoever raises the same alarm whatever is asked stays below; nobody has to be calmer than that."""
