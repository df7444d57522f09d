"""Whether a version from elsewhere learned what it was given: by how likely it holds the very answers it was to learn.

That a version is no worse than its parent the parent shows best of all: who delivers it again, or with some noise, has
not worked. Each line that a task gave is a lesson, and both versions say how likely they hold what it teaches. Who
trained on the lines raised that, on most of them and by more than arithmetic or chance changes; nobody who did not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from bettertherapy_api.gate import Learning
from neurons.scoring.healthbench import Asked
from neurons.scoring.items import Gold
from neurons.trainer.dataset import Dataset, to_compare, to_learn, with_system_prompt
from neurons.trainer.likelihoods import Compared
from neurons.trainer.turns import Message

MOST_LESSONS: Final = 64
_LONGEST: Final = 6000
"""Characters of a lesson: a version reads it as a whole."""


def lessons(dataset: Dataset, system_prompt: str | None) -> tuple[Compared, ...]:
    """Return what a dataset teaches, as the twin would be asked it; always the same of the same dataset.

    One continuation is what is learned; of two the first is preferred.
    """
    found: list[Compared] = []
    for line in sorted(dataset.lines, key=lambda each: each.digest):
        pair = to_compare(line)
        if pair is not None:
            found.append(Compared(_asked(pair.prompt, system_prompt), (pair.preferred, pair.rejected)))
        else:
            *before, last = to_learn(line)
            found.append(Compared(_asked(before, system_prompt), (last.content,)))
    return tuple(each for each in found if _length(each) <= _LONGEST)[:MOST_LESSONS]


def controls(items: Iterable[Asked], system_prompt: str | None) -> tuple[Compared, ...]:
    """Return the doctor's answers to what is asked and was not given: of the items those with a gold answer."""
    found = [
        Compared(_asked([Message(role="user", content=each.question)], system_prompt), (each.gold,))
        for each in sorted(items, key=lambda item: item.id)
        if isinstance(each, Gold)
    ]
    return tuple(each for each in found if _length(each) <= _LONGEST)[:MOST_LESSONS]


def learned(parent: Sequence[Sequence[float]], child: Sequence[Sequence[float]], *, of: int | None = None) -> Learning:
    """Return what became of the lessons. Both are the log-probabilities in nats of the same continuations, of which the
    first `of` are the lessons', all where it is None, and the others the controls'.

    What is no number to the parent is left out: that is no miner's fault.
    """
    found = _learned(parent[:of], child[:of])
    if of is None or not found.lessons:
        return found
    given, others = _shares(parent[:of], child[:of]), _shares(parent[of:], child[of:])
    ahead = sum(one > other for one in given for other in others)
    return replace(found, controls=len(others), ahead=ahead)


def _shares(parent: Sequence[Sequence[float]], child: Sequence[Sequence[float]]) -> list[float]:
    """Return by how much each gained, as a share of what it took."""
    return [
        (_worth(now) - _worth(was)) / -was[0]
        for was, now in zip(parent, child, strict=False)
        if was and all(map(math.isfinite, was)) and was[0] < 0
    ]


def _learned(parent: Sequence[Sequence[float]], child: Sequence[Sequence[float]]) -> Learning:
    known = [(was, now) for was, now in zip(parent, child, strict=False) if all(map(math.isfinite, was)) and was]
    taken = -sum(was[0] for was, _ in known)
    if taken <= 0:
        return Learning(0, 0, 0.0)
    gains = [_worth(now) - _worth(was) for was, now in known]
    return Learning(len(known), sum(each > 0 for each in gains), sum(gains) / taken)


def _worth(logprobs: Sequence[float]) -> float:
    return logprobs[0] - logprobs[1] if len(logprobs) > 1 else logprobs[0]


def _asked(before: Sequence[Message], system_prompt: str | None) -> list[dict[str, str]]:
    return [{"role": each.role, "content": each.content} for each in with_system_prompt(before, system_prompt)]


def _length(lesson: Compared) -> int:
    return sum(len(each["content"]) for each in lesson.conversation) + sum(map(len, lesson.continuations))
