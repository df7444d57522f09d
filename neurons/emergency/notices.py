"""What is shown at an emergency (notices.yaml): whom to call and what to do, in the language of the message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

from neurons.emergency.kinds import Kind, Language
from neurons.emergency.words import clean, skeletons

MOST_STEPS: Final = 2
"""Of so many kinds the advice is shown: who is in an emergency reads little."""
_CRISIS: Final = frozenset({Kind.SUICIDE, Kind.SELF_HARM})
_VIOLENCE: Final = frozenset({Kind.ABUSE})
_WORD: Final = re.compile(r"[a-z0-9@$!|+]+")
_ROMANISED: Final = 0.2
"""Share of a message's words that are known to be Nepali, from which it is taken for romanised Nepali."""

Words = Annotated[Mapping[Language, Annotated[str, Field(min_length=1)]], Field(min_length=3, max_length=3)]


class _Country(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    emergency: Words
    crisis: Words | None = None
    violence: Words | None = None


class _Notices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    call: Words
    talk: Words
    safe: Words
    steps: Mapping[Kind, Words]
    countries: Annotated[Mapping[str, _Country], Field(min_length=1)]
    romanised_words: tuple[str, ...]


@cache
def _notices() -> _Notices:
    raw = resources.files("neurons.emergency").joinpath("notices.yaml").read_bytes()
    return _Notices.model_validate(yaml.safe_load(raw))


@cache
def _romanised() -> frozenset[str]:
    return frozenset(key for word in _notices().romanised_words for key in skeletons(word))


def countries() -> tuple[str, ...]:
    """Return the countries whose numbers are known, as ISO 3166 codes in two letters."""
    return tuple(sorted(set(_notices().countries) - {"*"}))


def language_of(texts: Iterable[str]) -> Language:
    """Return the language of a message: by its script, and in Latin letters by words that only Nepali has."""
    text = clean(" ".join(texts))
    devanagari = 0 if text.isascii() else sum("\u0900" <= each <= "\u097f" for each in text)
    if devanagari and devanagari * 3 > sum(each.isalpha() for each in text):
        return Language.NEPALI
    words, nepali = _WORD.findall(text), _romanised()
    known = sum(not nepali.isdisjoint(skeletons(word)) for word in words)
    return Language.ROMANISED if known and known >= _ROMANISED * len(words) else Language.ENGLISH


def numbers(language: Language, *, country: str | None) -> tuple[str, str | None]:
    """Return whom to call in an emergency, and the line for those who think of suicide, where one is known."""
    texts = _notices().countries
    found = texts.get((country or "*").upper(), texts["*"])
    return found.emergency[language], None if found.crisis is None else found.crisis[language]


def notice(kinds: Sequence[Kind], *, language: Language, country: str | None) -> str:
    """Return the notice for these kinds, the most dangerous first."""
    texts = _notices()
    numbers = texts.countries.get((country or "*").upper(), texts.countries["*"])
    lines = [texts.call[language].format(numbers=numbers.emergency[language])]
    if _CRISIS.intersection(kinds) and numbers.crisis is not None:
        lines.append(texts.talk[language].format(numbers=numbers.crisis[language]))
    if _VIOLENCE.intersection(kinds) and numbers.violence is not None:
        lines.append(texts.safe[language].format(numbers=numbers.violence[language]))
    lines += [texts.steps[kind][language] for kind in kinds[:MOST_STEPS]]
    return "\n".join(lines)
