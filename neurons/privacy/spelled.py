"""Numbers in words, English and Nepali: telephone numbers that somebody dictates, and ages over 89."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_ENGLISH: Final = "zero|oh|nought|naught|one|two|three|four|five|six|seven|eight|nine|double|triple"
_ROMANISED: Final = "sunya|shunya|ek|dui|teen|tin|char|chaar|paanch|panch|pach|chha|chhah|saat|sat|aath|ath|nau"
_DEVANAGARI: Final = "शून्य|सुन्य|एक|दुई|तीन|तिन|चार|पाँच|पांच|पाच|छ|छः|सात|आठ|नौ"
_GAP: Final = r"(?:[\s,.\-–…]|and\b){1,4}"


def _run(words: str, least: int) -> re.Pattern[str]:
    word = rf"(?:{words}|\d{{1,4}})"
    return re.compile(
        rf"(?<![\w])(?=(?:{words})(?!\w)|\d){word}(?:{_GAP}{word}){{{least - 1},24}}(?!\w)", re.IGNORECASE
    )


_RUNS: Final = tuple((_run(words, 6), re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE))
                     for words in (_ENGLISH, _ROMANISED, _DEVANAGARI))  # fmt: skip
_LEAST_WORDS: Final = 5
_COUNTING: Final = re.compile(r"one\W+two\W+three\W+four\W+five\W+six", re.IGNORECASE)

_UNITS: Final = (
    "one|two|three|four|five|six|seven|eight|nine|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth"
)
_NINETY: Final = (
    rf"(?:ninety(?:[\s-](?:{_UNITS}))?|ninetieth|(?:(?:a|one)\s+)?hundred(?:th)?(?:\s+and\s+(?:{_UNITS}|ten|eleven|twelve))?"
    r"|nintey(?:[\s-]\w+)?)"
)
_NO_UNIT: Final = (
    r"(?![\w-])(?!\s*(?:%|percent|per\s+cent|mg|milligrams?|mcg|micrograms?|grams?|kilos?|kg|ml|millilit\w+|cm|beats|over\b|degrees?"
    r"|minutes?|mins?|seconds?|hours?|days?|weeks?|months?|times|tablets?|calories|steps|pounds?|units?|dollars|rupees))"
)
_KIN: Final = (
    r"husband|wife|son|daughter|mother|father|mum|mom|dad|sister|brother|partner|friend|aunt|uncle|grandmother|grandfather"
    r"|grandma|grandpa|granny|neighbour|neighbor|patient|he|she|i|who"
)
_ENGLISH_AGES: Final = (
    re.compile(rf"\b(?:{_KIN})(?:\s+is|\s+was|'s|\s+am|'m|\s+has\s+just|\s+just|'ll\s+be|'d\s+be|\s+(?:will|would|must|may)\s+be)?(?:\s+(?:now|already|nearly|almost|about|over))?"
               rf"\s+(?:turned\s+|turning\s+)?(?P<age>{_NINETY}){_NO_UNIT}", re.IGNORECASE),
    re.compile(rf"\b(?:{_KIN})\s+(?:[A-ZÀ-Þ][\w'-]+\s+){{0,2}}(?:is|was)\s+(?:now\s+|already\s+|nearly\s+)?(?P<age>{_NINETY}|9\d|1[0-2]\d)"
               rf"{_NO_UNIT}(?!\s*[/.]?\d)"),
    re.compile(rf"\b(?:aged?|age\s+(?:is|of)|age:|turned|turning|turns)\s+(?P<age>{_NINETY}){_NO_UNIT}", re.IGNORECASE),
    re.compile(rf"\b(?P<age>{_NINETY})[\s-]+(?:years?|yrs?)(?:[\s-]+(?:old|of\s+age|young))?\b(?!\s+ago)", re.IGNORECASE),
    re.compile(rf"\b(?P<age>{_NINETY})\s+birthday\b", re.IGNORECASE),
    re.compile(r"\b(?P<age>(?:9\d|1[0-2]\d)(?:th|st|nd|rd)?)\s+birthday\b", re.IGNORECASE),
    re.compile(r"\bin\s+(?:my|his|her)\s+(?:late\s+|early\s+|mid\s+)?(?P<age>nineties|90s)\b", re.IGNORECASE),
)  # fmt: skip
_NEPALI_NINETIES: Final = (
    "नब्बे|एकानब्बे|एकानब्बै|बयानब्बे|त्रियानब्बे|चौरानब्बे|पन्चानब्बे|पञ्चानब्बे|छयानब्बे|सन्तानब्बे|अन्ठानब्बे|उनान्सय|सय"
    "|nabbe|ekanabbe|bayanabbe|triyanabbe|chauranabbe|panchanabbe|chhayanabbe|santanabbe|anthanabbe|unansaya"
)
_NEPALI_AGES: Final = (
    re.compile(rf"(?<!\w)(?P<age>{_NEPALI_NINETIES}|9\d|1[0-2]\d)\s*(?:वर्ष|बर्ष|barsa|barsha|varsha|barsh)", re.IGNORECASE),
    re.compile(rf"(?:उमेर|umer|umera)\s*[:=]?\s*(?P<age>{_NEPALI_NINETIES}|9\d|1[0-2]\d)(?!\w)", re.IGNORECASE),
)  # fmt: skip


def phones(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield dictated telephone numbers: at least six digits in a row of which most are words."""
    for run, word in _RUNS:
        for match in run.finditer(text):
            words = word.findall(match[0])
            if len(words) >= _LEAST_WORDS and not _COUNTING.match(match[0]):
                yield "phone", *match.span()


def ages(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield ages of 90 and more in words, and in Nepali."""
    for pattern in (*_ENGLISH_AGES, *_NEPALI_AGES):
        for match in pattern.finditer(text):
            yield "ageOver89", *match.span("age")
