"""Presidio's recognizers: the rules, and the two models snapped to whole words with what medicine calls by a name left out."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from neurons.privacy.announced import is_common
from neurons.privacy.gazetteer import Gazetteer
from neurons.privacy.identifiers import Identifier, spans
from neurons.privacy.models import Rampart
from neurons.privacy.vocabulary import (
    NAME_WORDS,
    ORDINARY,
    REHYDRATION,
    SURNAME_WORDS,
    is_medicine,
    is_nepali_sentence,
    is_ordinary_nepali,
)
from neurons.privacy.words import AMBIGUOUS, DEVANAGARI_WORDS, EPONYMS, NOT_NAMES, REGIONS, ROMANISED_WORDS

logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # it may name what it found

_TITLE: Final = re.compile(r"\b(?:dr|doctor|prof|professor|nurse|dra)\.?\s+(?:[A-Z][\w'-]*\.?\s+){0,2}$", re.IGNORECASE)
_DISEASE: Final = re.compile(
    r"^(?:['’]s)?\s*(?:disease|syndrome|sign|test|score|scale|palsy|tumou?r|lymphoma|contracture|fracture|manoeuvre|maneuver|thyroiditis"
    r"|virus|criteria|index|phenomenon|reflex|procedure|position|catheter|diet|cyst|esophagus|oesophagus|crisis|hernia|node|duct|gland"
    r"|tablets?|cream|syrup|capsules?|inhaler|mg\b|method|exercise|rub|brand)", re.IGNORECASE)  # fmt: skip
_MEDICINE: Final = re.compile(
    r"^\s*(?:gel|ointment|lotion|spray|respules?|nebuli\w+|sachets?|suspension|powder|vaccine|injections?|inj\b|jal\b|mixture|(?:eye|ear|nasal)\s+drops)",
    re.IGNORECASE,
)
"""Behind a word it says that this is a medicine."""
_RESULT: Final = re.compile(r"^\s*(?:[:=<>]?\s*\d|positive|negative|titre|titer|normal|raised|elevated)", re.IGNORECASE)
_BEGINS: Final = re.compile(r"(?:^|[.!?:\n]\s?)$")
_OBJECT: Final = re.compile(r"^\s(?:the|a|an|your|it|this|that|these|those|all|any|each)\b", re.IGNORECASE)
_PRESCRIBED: Final = re.compile(r"(?<!\w)(?:tabs?|caps?|inj|syp|syr|syrup|susp|oint)\.?\s+$", re.IGNORECASE)
"""Before a word it says that this is a drug."""
_EDGES: Final = " \t\n\r.,;:!?()[]{}\"'’“”*•-–—/\\|"
_ROMANISED: Final = ROMANISED_WORDS - AMBIGUOUS
_NAME_SHARE: Final = 0.5
_LOWER_SHARE: Final = 0.55
_SURE_SHARE: Final = 0.95
_PLACE_SHARE: Final = 0.7
_NUMBER_SHARE: Final = 0.75
_NUMBERS: Final = ("phone", "recordNumber", "licenceNumber")


class SpacyEngine(NlpEngine):
    """spaCy's pipeline as Presidio asks for it; nothing of it is written anywhere."""

    def __init__(self, pipeline: Any, *, beside: Callable[[str], None]) -> None:
        """`beside` begins what another core may do with a text while spaCy reads it."""
        self._pipeline, self._beside = pipeline, beside

    def load(self) -> None:
        """It is loaded."""

    def is_loaded(self) -> bool:
        """It is."""
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """Return the entities of a text."""
        self._beside(text)
        document = self._pipeline(text)
        return NlpArtifacts(
            entities=list(document.ents),
            tokens=document,
            tokens_indices=[],
            lemmas=[],
            nlp_engine=self,
            language=language,
        )

    def process_batch(
        self, texts: Iterable[str], language: str, batch_size: int = 1, n_process: int = 1, **_: Any
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        """Yield the entities of each text."""
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word: str, language: str) -> bool:
        """Nothing asks for it."""
        return False

    def is_punct(self, word: str, language: str) -> bool:
        """Nothing asks for it."""
        return False

    def get_supported_entities(self) -> list[str]:
        """Return what the recognizers below return."""
        return [kind.value for kind in Identifier]

    def get_supported_languages(self) -> list[str]:
        """Return the one language that Presidio is told: all notes go the same way."""
        return ["en"]


class _Recognizer(EntityRecognizer):
    def __init__(self) -> None:
        super().__init__(supported_entities=[kind.value for kind in Identifier], name=type(self).__name__)

    def load(self) -> None:
        """It is loaded."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """Return what is found in a text."""
        return [
            RecognizerResult(entity_type=kind, start=start, end=end, score=1.0)
            for kind, start, end in self.found(text, nlp_artifacts)
            if start < end
        ]

    def found(self, text: str, artifacts: NlpArtifacts) -> Iterator[tuple[str, int, int]]:
        """Yield kind, start and end."""
        raise NotImplementedError


class RuleRecognizer(_Recognizer):
    """Patterns and lists (`neurons.privacy.identifiers`)."""

    def __init__(self, known: Gazetteer) -> None:
        super().__init__()
        self._known = known

    def found(self, text: str, artifacts: NlpArtifacts) -> Iterator[tuple[str, int, int]]:
        """Yield what the rules find."""
        yield from spans(text, self._known)


class SpacyRecognizer(_Recognizer):
    """Persons and places that spaCy's model names."""

    def found(self, text: str, artifacts: NlpArtifacts) -> Iterator[tuple[str, int, int]]:
        """Yield names and places."""
        for entity in artifacts.entities:
            if entity.label_ == "PERSON":
                yield from _words(text, entity.start_char, entity.end_char, "name")
            elif entity.label_ in ("GPE", "LOC", "FAC"):
                yield from _words(text, entity.start_char, entity.end_char, "place")


class RampartRecognizer(_Recognizer):
    """What Rampart names, by the mean over the pieces of each word."""

    def __init__(self, model: Rampart) -> None:
        super().__init__()
        self._model = model

    def found(self, text: str, artifacts: NlpArtifacts) -> Iterator[tuple[str, int, int]]:
        """Yield names, places, streets and numbers."""
        street: list[tuple[int, int]] = []
        for word in self._model.words(text):
            if word.shares["address"] >= _PLACE_SHARE and (not street or 0 < word.start - street[-1][1] <= 3):
                street.append((word.start, word.end))
            else:
                yield from _address(text, street)
                street = []
            written = text[word.start : word.end]
            shares = word.shares
            if not written[0].isdigit():
                if shares["name"] >= (_LOWER_SHARE if written.islower() else _NAME_SHARE):
                    yield from _words(text, word.start, word.end, "name", sure=shares["name"] >= _SURE_SHARE)
                elif shares["place"] >= _PLACE_SHARE and not written.islower():
                    yield from _words(text, word.start, word.end, "place")
            elif len(written) >= 5:
                for kind in _NUMBERS:
                    if shares[kind] >= _NUMBER_SHARE and sum(each.isdigit() for each in written) >= 5:
                        yield kind, word.start, word.end
        yield from _address(text, street)


def _address(text: str, words: list[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Yield a street where there is a number and a name of it; neither alone is one."""
    found = [text[start:end] for start, end in words]
    if len(found) == 2 and found[0].lower() in ORDINARY:
        return  # "Sugar 240"
    if any(each[0].isdigit() for each in found) and any(each[0].isupper() and len(each) > 2 for each in found):
        yield "address", words[0][0], words[-1][1]


def _words(text: str, start: int, end: int, kind: str, *, sure: bool = False) -> Iterator[tuple[str, int, int]]:
    """Yield a model's finding, snapped to whole words, without what is nobody's name and no town."""
    start, end = _snapped(text, start, end)
    found = text[start:end]
    words = re.findall(r"[^\W\d_][\w'’-]*", found)
    if (
        not words
        or any("\u0900" <= each <= "\u097f" for each in found)
        or _TITLE.search(text[max(0, start - 60) : start])
        or _is_of_medicine(text, words, start, end, kind)
    ):
        return
    nepali = is_nepali_sentence(_sentence(text, start, end))
    kept = [
        index
        for index, word in enumerate(words)
        if not (_is_nobody(word, kind) or (nepali and _is_nepali(word, sure=sure)))
    ]
    if not kept:
        return
    first_word, last_word = kept[0], kept[-1]
    if kind == "name":
        first_word, last_word = _whole(text, start, words, kept)
    places = [match.span() for match in re.finditer(r"[^\W\d_][\w'’-]*", found)]
    first, last = places[first_word][0], places[last_word][1]
    if first_word == last_word and _PRESCRIBED.search(text[max(0, start + first - 8) : start + first]):
        return
    yield kind, start + first, start + last


def _snapped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a finding that begins and ends with whole words, without the genitive's s."""
    while start > 0 and _joined(text, start):
        start -= 1
    while end < len(text) and _joined(text, end):
        end += 1
    while start < end and text[start] in _EDGES:
        start += 1
    while end > start and text[end - 1] in _EDGES:
        end -= 1
    if text[start:end].lower().endswith(("'s", "’s")):
        end -= 2
    return start, end


def _is_of_medicine(text: str, words: list[str], start: int, end: int, kind: str) -> bool:
    """Tell whether a finding is a medicine, an eponym, a blood test, or the verb that a name is too."""
    behind = text[end : end + 24]
    if REHYDRATION.search(text, max(0, start - 14), end):
        return True
    if is_medicine(text[start:end]) or all(is_medicine(word) or len(word) < 3 for word in words):
        return True
    if any(_is_eponym(word) for word in words) and (len(words) == 1 or _DISEASE.match(behind)):
        return True
    if len(words) > 1:
        return False
    return (
        _MEDICINE.match(behind) is not None
        or (kind == "name" and _DISEASE.match(behind) is not None)
        or _is_something(text, words[0], start, end)
    )


def _whole(text: str, start: int, words: list[str], kept: list[int]) -> tuple[int, int]:
    """Return the first and the last word of a name, of whose words those kept are nothing else."""
    first, last = kept[0], kept[-1]
    while last + 1 < len(words) and words[last + 1][0].isupper():
        last += 1  # "Aida Corona": after a given name even such a word is a surname
    while first and words[first - 1][0].isupper() and _plain(words[first - 1]) in NAME_WORDS:
        first -= 1  # "Christian Robertson": before a surname even such a word is a given name
    if (
        first == 0
        and len(kept) > 1
        and _plain(words[0]) in ORDINARY - NAME_WORDS - SURNAME_WORDS
        and _BEGINS.search(text[max(0, start - 3) : start])
    ):
        first = kept[1]  # "Saw Eckart": a verb has a capital where a sentence begins
    return first, last


def _is_nobody(word: str, kind: str) -> bool:
    plain = _plain(word)
    if plain in NOT_NAMES or plain in _ROMANISED or plain in DEVANAGARI_WORDS or len(plain) < 2:
        return True
    if kind == "place":
        return plain in REGIONS or (word.isupper() and len(word) <= 4)
    return word.islower() and (is_common(word) or plain in ORDINARY)


def _is_nepali(word: str, *, sure: bool) -> bool:
    """Tell whether a word of a Nepali sentence in Latin letters is an ordinary one; rules find who is announced there, or listed.

    In lower case a guess counts only of the model that is sure: neither was taught to read Nepali.
    """
    if word.islower() and (not sure or word in NAME_WORDS or word in AMBIGUOUS):
        return True
    return is_ordinary_nepali(word)


def _is_eponym(word: str) -> bool:
    plain = "".join(each for each in unicodedata.normalize("NFD", _plain(word)) if not unicodedata.combining(each))
    return (
        plain in EPONYMS
        or _plain(word) in EPONYMS
        or ("-" in plain and all(part in EPONYMS for part in plain.split("-")))
    )


def _is_something(text: str, word: str, start: int, end: int) -> bool:
    """Tell whether a single word is a blood test ("ANA 1:640"), or the verb that it is too ("Mark the spot")."""
    if word.isupper() and len(word) <= 4 and _RESULT.match(text[end : end + 16]):
        return True
    verb = word.islower() or _BEGINS.search(text[max(0, start - 3) : start]) is not None
    return verb and _plain(word) in NAME_WORDS and _OBJECT.match(text[end : end + 12]) is not None


def _sentence(text: str, start: int, end: int) -> str:
    """Return the sentence around a finding, or what is near of one without an end."""
    begin = max((text.rfind(mark, max(0, start - 160), start) for mark in ".!?\n"), default=-1)
    ends = [place for mark in ".!?\n" if (place := text.find(mark, end, end + 160)) >= 0]
    return text[max(begin + 1, start - 160) : min(ends, default=end + 160)]


def _plain(word: str) -> str:
    return word.lower().removesuffix("'s").removesuffix("’s").strip("'’-")


def _joined(text: str, place: int) -> bool:
    """Tell whether a word goes on across a place."""
    return all(each.isalnum() or each in "'’" for each in text[place - 1 : place + 1])
