"""What a patient's question is about: the topic of a set of questions whose middle it is nearest to.

It decides which conversations a fine-tune task takes first, and nothing else. Of the 286 questions of the image's own
set, each left out in turn, 268 find a topic, and 169 of these their own, among 14.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from neurons.lessons.embedding import Embedder
from neurons.validator.rounds.challenges import Challenge

FLOOR: Final = 0.62
"""Cosine to a topic's middle below which a question is of none: "Where do I pay my bill?" is at 0.53."""


class Topics:
    """Topics by the embeddings of their questions. Blocks, some milliseconds a question."""

    def __init__(self, challenges: Iterable[Challenge], embedder: Embedder) -> None:
        import numpy as np  # noqa: PLC0415 - only a round that hands out tasks needs it

        self._embedder = embedder
        by_topic: dict[str, list[str]] = {}
        for each in challenges:
            by_topic.setdefault(each.topic, []).append(each.prompt)
        self._names = sorted(by_topic)
        middles = [embedder.embed(by_topic[name]).sum(axis=0) for name in self._names]
        self._middles = np.array([each / np.linalg.norm(each) for each in middles])

    def of(self, questions: Sequence[str]) -> list[str | None]:
        """Return each question's topic; None where it is far from all."""
        if not questions or not self._names:
            return [None] * len(questions)
        likeness = self._embedder.embed(questions) @ self._middles.T
        return [self._names[int(row.argmax())] if float(row.max()) >= FLOOR else None for row in likeness]
