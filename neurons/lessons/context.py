"""What a question is about when it doesn't say it itself: "Is 500 mg ok?" is about what was spoken of before.

A correction of such an answer carries that with it, or it is no lesson: in another conversation the same words would be
about another medicine. Lookups join their questions in the same way, so that the two are compared like with like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from neurons.lessons.likeness import STEM, Asked

MAX_SAID: Final = 400
"""Characters of an earlier question and of an earlier answer."""
_POINTS: Final = re.compile(
    r"\b(it|its|that|this|these|those|they|them|one|ones|same|other|another|else|more|less|instead|again|both|either)\b"
    r"|^\s*(and|but|or|so|what about|how about)\b",
    re.IGNORECASE,
)
"""Words that point at what was said before."""
_NAMES_NOTHING: Final = frozenset(
    word[:STEM]
    for word in """
    mg mcg ml iu kg gram grams tablet tablets pill pills dose doses day days daily week weeks month months hour hours
    time times once twice half ok okay safe fine good bad enough much many long often still too also right normal sure
    yes please really
    """.split()  # noqa: SIM905 - words are read more easily than a list of them
)
_NUMBER: Final = re.compile(r"\d+\w*")
_ENOUGH: Final = 2


def asked_in(turns: Sequence[tuple[str, str]]) -> str | None:
    """Return the last question with what it is about; None where nobody could tell what that is.

    `turns` are (role, text), the last one the user's. A first question is about what it names. A later one that points
    back, or names less than two things, has the question and the answer before it in front, a line each.
    """
    before, question = turns[:-1], turns[-1][1].strip()
    named = names(question)
    if not any(role == "user" for role, _ in before):
        return question if named else None
    if named >= _ENOUGH and _POINTS.search(question) is None:
        return question
    earlier = [index for index, (role, _) in enumerate(before) if role == "user"][-1]
    said = [" ".join(text.split())[:MAX_SAID] for role, text in before[earlier:] if role in ("user", "assistant")]
    whole = "\n".join([*filter(None, said), question])
    return whole if names(whole) else None


def names(text: str) -> int:
    """Return how many things a text names, beside amounts, times and words that stand in any question."""
    asked = Asked.of(text)
    if asked.foreign:
        return len(asked.content)  # the words above are English ones
    stems = {word[:STEM] for word in asked.content}
    return sum(_NUMBER.fullmatch(stem) is None and stem not in _NAMES_NOTHING for stem in stems)
