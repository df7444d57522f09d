"""Names that a sentence announces, and ages over 89."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_CAPITALISED: Final = r"[A-ZÀ-ÖØ-Þ][\w'-]{1,30}"
_NOT_DOCTOR: Final = r"(?!(?i:dr|doctor|prof|professor|nurse)\b)"
_RELATIVE: Final = (
    r"(?:husband|wife|son|daughter|mother|father|mum|mom|dad|sister|brother|partner|child|baby|friend|girlfriend"
    r"|boyfriend|aunt|uncle|grandmother|grandfather|grandma|grandpa|niece|nephew|cousin|neighbour|neighbor|carer)"
)
# Words that follow "my name is" or "I am" without being a name.
_NO_NAME: Final = frozenset(
    ["a", "an", "the", "not", "on", "in", "at", "for", "from", "still", "wrong", "misspelled", "spelled",
     "spelt", "private", "confidential", "so", "very", "really", "just", "and", "ok", "okay", "fine", "taking",
     "having", "feeling", "afraid", "allergic", "pregnant", "diabetic", "it", "this", "that", "no", "yes"]
)  # fmt: skip

_NAMED: Final = (
    # "my name is jane": people also write their names in lower case
    re.compile(rf"\b(?i:(?:my|his|her|their|patient'?s?|full|first|last)\s+name(?:\s+is|\s*:|'s))\s+{_NOT_DOCTOR}"
               r"(?P<name>[^\W\d_][\w'-]{1,30}(?:\s+[A-Z][\w'-]{1,30}){0,2})"),
    re.compile(rf"(?im:^\s*(?:patient|name)\s*:)\s*{_NOT_DOCTOR}(?P<name>{_CAPITALISED}(?:\s+{_CAPITALISED}){{0,2}})"),
    re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Mister|Madam|MR|MRS|MS)\b\.?\s+(?P<name>{_CAPITALISED})"),
    re.compile(r"\b(?:[mM]r|[mM]rs|[mM]s)\.\s*(?P<name>[a-z][\w'-]{2,30})"),
    # two capitalised words, since one may be anything ("I am Nepali")
    re.compile(rf"\b(?:I am|I'm|This is|this is|Signed,?|signed,?)\s+{_NOT_DOCTOR}"
               rf"(?P<name>{_CAPITALISED}\s+{_CAPITALISED})"),
    re.compile(rf"\b(?i:(?:i am|i'm|is|are)\s+called)\s+{_NOT_DOCTOR}(?P<name>{_CAPITALISED})"
               r"(?=\W*$|[.,;!?]|\s+and\b)"),
    re.compile(rf"\b(?i:my)\s+(?:\w+\s+)?(?i:{_RELATIVE})(?:\s+is\s+(?:called|named)|\s+(?:called|named)|,)?\s+"
               rf"{_NOT_DOCTOR}(?P<name>{_CAPITALISED})"),
    re.compile(rf"\b(?i:patient|woman|man|boy|girl|person|client)\s+(?i:named|called)\s+(?P<name>{_CAPITALISED})"),
    re.compile(rf"(?i:\b(?:regards|sincerely|yours truly|best wishes|cheers))\s*,\s*{_NOT_DOCTOR}"
               rf"(?P<name>{_CAPITALISED})"),
)  # fmt: skip
# Capitalised words that may follow "my son," or "I am" without being anybody's name.
_NO_CAPITALISED_NAME: Final = frozenset(
    ["I", "I'm", "I've", "He", "She", "We", "They", "You", "It", "Is", "Has", "Had", "Was", "Can", "Could",
     "Should", "Does", "Do", "Did", "What", "When", "Where", "Why", "How", "My", "His", "Her", "The", "A", "An",
     "And", "But", "Or", "If", "Please", "Thanks", "Thank", "Covid", "COVID", "HIV", "ADHD", "Type", "Monday",
     "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Doctor", "Dr",
     "Muscle", "Sheen", "Clean", "Potato", "Bean"]
)  # fmt: skip

_OLD: Final = r"(?P<age>9\d|1[0-3]\d)"
_NO_UNIT: Final = (
    r"(?!\s*(?:%|percent|mg|mcg|g\b|kg|ml|cm|mm|lbs?\b|pounds?|bpm|beats|over\b|/|degrees?|°|minutes?|hours?|days?|weeks?"
    r"|months?|times|kilos?|calories|[.]\d))"
)
_AGES: Final = (
    re.compile(rf"\b{_OLD}[\s-]*(?i:years?|yrs?)[\s-]*(?i:old|of\s+age)\b"),
    re.compile(rf"\b{_OLD}\s?(?i:yo|y/o|y\.o\.)(?!\w)"),
    re.compile(rf"\b(?i:aged?|age\s+is|age\s*:)\s*{_OLD}\b{_NO_UNIT}"),
    re.compile(rf"\b(?i:i\s+am|i'm|he\s+is|he's|she\s+is|she's|{_RELATIVE}\s+is|turned|turning)\s+{_OLD}\b{_NO_UNIT}"),
    re.compile(r"\b(?i:ninety(?:[\s-](?:one|two|three|four|five|six|seven|eight|nine))?|(?:a|one)\s+hundred)"
               r"(?:[\s-]years?[\s-]old)\b", re.IGNORECASE),
    re.compile(r"\b(?:nonagenarian|centenarian)s?\b", re.IGNORECASE),
)  # fmt: skip


def names(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the names that a sentence announces; titles of the caring professions announce nobody to protect."""
    for pattern in _NAMED:
        for match in pattern.finditer(text):
            first = re.split(r"\s", match["name"])[0]
            if first.lower() not in _NO_NAME and first not in _NO_CAPITALISED_NAME:
                yield "name", match.start("name"), match.end("name")


def ages(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield ages of 90 and more, where a number is said to be an age."""
    for pattern in _AGES:
        for match in pattern.finditer(text):
            yield "ageOver89", *match.span("age" if "age" in pattern.groupindex else 0)
