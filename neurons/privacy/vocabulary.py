"""Which words are anybody's rather than somebody's: ordinary words, medicines, and the ordinary words that people are called by.

A list never outweighs a sentence that says whose name it is ("my name is …", "my brother …", "Mr …", "Patient: …"): these
lists say only what a model's guess, or a weak announcement such as "this is …", is worth.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

_DATA: Final = resources.files("neurons.privacy") / "data"


def _words(name: str) -> frozenset[str]:
    return frozenset((_DATA / f"{name}.txt").read_text(encoding="utf-8").split())


NAME_WORDS: Final = _words("name_words")
"""Ordinary words, English and Nepali, that are given names too: a name only where something says so."""
SURNAME_WORDS: Final = _words("surname_words")
"""Ordinary words that are surnames too: part of a name beside a given one."""
ORDINARY: Final = _words("ordinary_words")
"""English words that medical texts write in lower case."""
MEDICINES: Final = _words("medicines") | _words("substances")
"""Brands and generic names: by hand those of India, Nepal and the United States, and a public dictionary of drugs."""
GENERA: Final = _words("genera")
"""Genera of germs, worms, fungi and venomous beasts."""
ROMANISED_ORDINARY: Final = _words("romanised_words")
"""Ordinary Nepali words in Latin letters: food, body, illness, household."""
_GRAMMAR: Final = _words("romanised_grammar")

_STRENGTH: Final = re.compile(
    r"(?:[-\s](?:\d+|[A-Z]{1,3}|forte|plus|duo|max|neo|retard|spas|advance)|\d+)*$", re.IGNORECASE
)
_NEPALI_VERB: Final = re.compile(
    r"(?:dainan?|dinan?|[bdghklmnprst]chh?(?:a|u|au|an|in)|thi?y[oe]|[ae]ko|ek[ia]|nuhos|nuhunchh?a|nuparchh?a|nuparne|[aei]yo|[^aeiou]yo|yeu|[^e]era|aunu|arnu|hosla|yos|[^aeiou]dai)$"
)  # fmt: skip
REHYDRATION: Final = re.compile(r"(?:nava?\s*)?j(?:ee|i)[vw]an\s*jal\b", re.IGNORECASE)
"""Nepal's rehydration salts, "water of life": the first word is a name too."""
_CASE: Final = re.compile(r"(?:ko|le|lai|ma|bata|sanga)$")


def is_medicine(words: str) -> bool:
    """Tell whether a word or a few are a medicine, with strength or form behind it or not ("Telma", "Pan-D", "Montair LC")."""
    lower = words.lower().strip("'’-").replace(" ", "-")
    return lower in MEDICINES or _STRENGTH.sub("", lower, count=1) in MEDICINES


def is_nepali_verb(word: str) -> bool:
    """Tell whether a romanised word in lower case ends as verbs do ("lagdaina", "dukheko"), and names hardly ever."""
    return word.islower() and len(word) > 4 and _NEPALI_VERB.search(word) is not None


def is_ordinary_nepali(word: str) -> bool:
    """Tell whether a romanised word is an ordinary one or a verb, with a case marker behind it or not ("tapaiko")."""
    lower = word.lower()
    stem = _CASE.sub("", lower)
    return is_nepali_verb(lower) or any(each in ROMANISED_ORDINARY or each in _GRAMMAR for each in (lower, stem))


def is_nepali_sentence(text: str) -> bool:
    """Tell whether a text in Latin letters is Nepali, by its small words and verbs: no model was taught to read it."""
    words = re.findall(r"[a-z]+", text.lower())
    small = sum(word in _GRAMMAR or is_nepali_verb(word) for word in words)
    return small >= 2 and small * 5 >= len(words)  # one may be chance, and a fifth is no English text
