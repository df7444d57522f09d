"""Recall and precision by the conventions of presidio-evaluator: by token, per entity, and whether whole spans are gone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(r"[\w\u0900-\u097f]+|[^\w\s]")


@dataclass
class Score:
    """Of one class. Tokens of punctuation alone count nothing."""

    tokens: int = 0
    removed_tokens: int = 0
    """Tokens of the class that were removed, as whatever class."""
    spans: int = 0
    removed_spans: int = 0
    """Spans of which every token was removed."""
    predicted: int = 0
    """Tokens removed as this class."""
    right: int = 0
    """Of these the ones that some annotation holds."""

    @property
    def recall(self) -> float:
        """Of tokens."""
        return self.removed_tokens / self.tokens if self.tokens else 1.0

    @property
    def span_recall(self) -> float:
        """Of whole spans: what counts for a patient."""
        return self.removed_spans / self.spans if self.spans else 1.0

    @property
    def precision(self) -> float:
        """Of tokens."""
        return self.right / self.predicted if self.predicted else 1.0


Span = tuple[str, int, int]
_MARK: Final = re.compile(r"\[(NAME|PLACE|DATE|NUMBER):([^\]]+)\]")


def unmarked(line: str) -> tuple[str, str, list[Span]]:
    """Return language, text and spans of a line as the sets have it: `en|my brother [NAME:suman] has fits`."""
    language, marked = line.split("|", 1)
    marked = marked.replace("\\n", "\n")
    text, spans, done = "", [], 0
    for match in _MARK.finditer(marked):
        text += marked[done : match.start()]
        spans.append((match[1], len(text), len(text) + len(match[2])))
        text += match[2]
        done = match.end()
    return language, text + marked[done:], spans


def add(scores: defaultdict[str, Score], text: str, annotated: Iterable[Span], found: Iterable[Span]) -> list[Span]:
    """Count one text; returns the annotated spans of which something was left."""
    annotated, found = list(annotated), list(found)
    tokens = [
        match.span() for match in _TOKEN.finditer(text) if match[0][0].isalnum() or "\u0900" <= match[0][0] <= "\u097f"
    ]
    left: list[Span] = []
    for kind, start, end in annotated:
        inside = [token for token in tokens if token[0] < end and start < token[1]]
        gone = [
            token for token in inside if any(a <= max(token[0], start) and min(token[1], end) <= b for _, a, b in found)
        ]
        score = scores[kind]
        score.tokens += len(inside)
        score.removed_tokens += len(gone)
        score.spans += 1
        score.removed_spans += len(gone) == len(inside)
        if len(gone) < len(inside):
            left.append((kind, start, end))
    for kind, start, end in found:
        for token in tokens:
            if token[0] < end and start < token[1]:
                scores[kind].predicted += 1
                scores[kind].right += any(token[0] < b and a < token[1] for _, a, b in annotated)
    return left
