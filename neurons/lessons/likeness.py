"""Whether two questions ask the same: alike by their embeddings, and not the same sentence about another thing.

"Can I take ibuprofen on warfarin?" and "Can I take paracetamol on warfarin?" are as alike to a sentence model as two
ways to ask one of them (0.87). What tells them apart is that nearly all words are the same but the one that matters;
and where that is an amount, or what turns a question round, no model hears it (500 mg and 5000 mg: 0.97).
Measured by `tests.bench.lesson_floor`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

FLOOR: Final = 0.76
SURE: Final = 0.91
"""From here on two questions are the same whatever their words: no pair about two things was as alike."""
NEVER: Final = 2.0
"""No two questions are so alike: where the model isn't made for the script, or one amount is another's, only the same
words count."""
_MOST_DIFFERENT: Final = 2
_SHARED: Final = 0.5
STEM: Final = 5
"""Characters in which words of one stem begin alike: climb, climbing. Names do too: hydrocodone, hydrocortisone."""
_ENDING: Final = 3
_LONG_ENDINGS: Final = frozenset(["ation", "ations", "ment", "ments", "ness", "able", "ingly"])
_AMOUNT: Final = re.compile(r"\d+(?:[.,]\d+)*(?!\d|(?:st|nd|rd|th)\b)|\b\d+(?:st|nd|rd|th)\b")
_AMOUNTS: Final = {
    word: str(number)
    for number, word in enumerate(
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty
        """.split()  # noqa: SIM905 - words are read more easily than a list of them
    )
} | {
    "once": "1", "twice": "2", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70",
    "eighty": "80", "ninety": "90", "hundred": "100", "thousand": "1000",
    "first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th",
}  # fmt: skip
_OPPOSITES: Final = tuple(
    (frozenset(one.split()), frozenset(other.split()))
    for one, other in (
        ("before", "after"), ("before", "during while"), ("during", "after"),
        ("start starts starting started begin", "stop stops stopping stopped quit"),
        ("positive", "negative"), ("high higher", "low lower"), ("more", "less fewer"), ("much many", "little few"),
        ("under below younger", "over above older"), ("increase raise raises gain", "decrease reduce lower lose"),
        ("hot warm", "cold cool"), ("early", "late"), ("fast quick", "slow"), ("new", "old"),
    )
)  # fmt: skip
_TURNS: Final = frozenset(
    """
    not no never without cannot can't don't isn't won't shouldn't doesn't stop stops stopping stopped quit avoid
    """.split()  # noqa: SIM905
)
"""Words that make of a question its opposite where the other hasn't one of them."""
_WORD: Final = re.compile(r"[^\W_](?:[^\W_]|[\u0900-\u0903\u093a-\u094f\u0962\u0963\u200c\u200d'])*")
_OTHER_SCRIPT: Final = re.compile(r"[^\x00-\u024f\s]")
"""A letter that the model wasn't made for. In Devanagari it takes fever and cough for one thing (0.9 and more)."""
_SAYS_LITTLE: Final = frozenset(
    """
    a about after am an and are as at be been because before but by can could did do does doing done each for from
    get gets got had has have he her here his how i i'm i've if in into is it its may me might must my no not now
    of off ok okay on or our out please she should so some take taking tell than that the their them then there
    these they this those to took up us use used using was we were what when whenever where which while who why
    will with without would you your
    """.split()  # noqa: SIM905 - words are read more easily than a list of them
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, looked at once."""

    words: str
    """Without case and marks."""
    content: frozenset[str]
    """The words that say what it is about."""
    amounts: frozenset[str]
    """Its numbers, in figures."""
    all_words: frozenset[str]
    foreign: bool
    """It holds letters that the model wasn't made for."""

    @classmethod
    def of(cls, text: str) -> Asked:
        """Look at a question."""
        plain = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        found = _WORD.findall(plain)
        content = frozenset(word for word in found if word not in _SAYS_LITTLE)
        figures = {re.sub(r",(?=\d{3}(?!\d))", "", amount) for amount in _AMOUNT.findall(plain)}
        amounts = frozenset(figures | {_AMOUNTS[word] for word in found if word in _AMOUNTS})
        foreign = any(letter.isalpha() for letter in _OTHER_SCRIPT.findall(text))
        return cls(" ".join(found), content, amounts, frozenset(found), foreign)


def floor_for(one: Asked, other: Asked, *, floor: float = FLOOR) -> float:
    """Return how alike two questions must be by their embeddings to be the same."""
    if one.foreign or other.foreign:
        return NEVER
    ours, theirs = _named(one), _named(other)
    here, there = _without_kin(ours, theirs), _without_kin(theirs, ours)
    shared = min(len(ours) - len(here), len(theirs) - len(there))
    if max(len(here), len(there)) > _MOST_DIFFERENT:
        return floor
    if shared < _SHARED * min(len(ours), len(theirs)):
        return max(floor, SURE) if _begin_alike(here, there) else floor
    # The same words but for one or two on each side.
    turned = _turned(one, other) and not (here | there) - _TURNS
    if turned or _other_amount(one, other) or _opposite(one, other):
        return NEVER
    return max(floor, SURE) if here and there else floor


def _named(asked: Asked) -> frozenset[str]:
    return frozenset(word for word in asked.content if word not in _AMOUNTS and not word[0].isdigit())


def _without_kin(words: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if not any(_kin(word, other) for other in others))


def _kin(one: str, other: str) -> bool:
    """Tell whether two words have one stem: pregnant and pregnancy, but not hydrocodone and hydrocortisone."""
    if one == other:
        return True
    common = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    endings = one[common:], other[common:]
    return common >= STEM and all(len(ending) <= _ENDING or ending in _LONG_ENDINGS for ending in endings)


def _begin_alike(here: frozenset[str], there: frozenset[str]) -> bool:
    """Tell whether two words that aren't of one stem begin as one would, as names of medicines and illnesses do."""
    return any(one[:STEM] == other[:STEM] and len(one) > STEM for one in here for other in there)


def _other_amount(one: Asked, other: Asked) -> bool:
    """Tell whether each names a number that the other hasn't, or a place in an order ("third")."""
    here, there = one.amounts - other.amounts, other.amounts - one.amounts
    return bool({each[-1].isdigit() for each in here} & {each[-1].isdigit() for each in there})


def _opposite(one: Asked, other: Asked) -> bool:
    return any(
        _says_only(one, this, that) and _says_only(other, that, this)
        for pair in _OPPOSITES
        for this, that in (pair, pair[::-1])
    )


def _says_only(asked: Asked, these: frozenset[str], not_those: frozenset[str]) -> bool:
    return not these.isdisjoint(asked.all_words) and not_those.isdisjoint(asked.all_words)


def _turned(one: Asked, other: Asked) -> bool:
    return _TURNS.isdisjoint(one.all_words) != _TURNS.isdisjoint(other.all_words)
