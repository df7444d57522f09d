"""De-identification of one text: everything is found and replaced, or an error says why nothing may be written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Self

from neurons.privacy.advice import without_advice
from neurons.privacy.errors import DeidentifierUnavailable, TextRefused
from neurons.privacy.gazetteer import Gazetteer, gazetteer
from neurons.privacy.identifiers import Finding, Identifier, readings, spans

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine
    from presidio_anonymizer import AnonymizerEngine

MAX_CHARACTERS: Final = 20_000
"""Of one text. A message has a few hundred; what is longer is split by whoever has it, or not written."""

_FEW_PEOPLE: Final = frozenset(
    ["036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890", "893"]
)  # fmt: skip
"""First three digits of ZIP codes under which at most 20,000 people live (45 CFR 164.514(b)(2)(i)(B), census of 2000)."""

_LABELS: Final[Mapping[Identifier, str]] = {
    Identifier.NAME: "NAME", Identifier.PLACE: "PLACE", Identifier.ADDRESS: "ADDRESS", Identifier.POSTCODE: "POSTCODE",
    Identifier.DATE: "DATE", Identifier.AGE: "AGE OVER 89", Identifier.PHONE: "PHONE", Identifier.EMAIL: "EMAIL",
    Identifier.SSN: "SSN", Identifier.RECORD: "RECORD", Identifier.LICENCE: "LICENCE", Identifier.PLATE: "PLATE",
    Identifier.DEVICE: "DEVICE", Identifier.BIOMETRIC: "BIOMETRIC", Identifier.URL: "URL", Identifier.IP: "IP",
}  # fmt: skip
_PLACEHOLDER: Final = re.compile(rf"\[(?:{'|'.join(_LABELS.values())}|ZIP \d{{3}})\]")
_ORDER: Final = (
    Identifier.EMAIL, Identifier.URL, Identifier.IP, Identifier.BIOMETRIC, Identifier.SSN, Identifier.ADDRESS, Identifier.PLATE, Identifier.DEVICE,
    Identifier.LICENCE, Identifier.AGE, Identifier.DATE, Identifier.PHONE, Identifier.RECORD, Identifier.POSTCODE, Identifier.NAME, Identifier.PLACE,
)  # fmt: skip
"""What a piece of text is called that is found as several things: the more certain first."""
_SCRIPTS: Final = ("LATIN", "DEVANAGARI", "GREEK", "FEMININE", "MASCULINE", "MICRO", "MODIFIER", "OHM", "KELVIN", "ANGSTROM", "SCRIPT SMALL", "FULLWIDTH LATIN", "MATHEMATICAL", "SUPERSCRIPT", "SUBSCRIPT", "COMBINING", "DOUBLE-STRUCK", "INFORMATION SOURCE", "VULGAR")  # fmt: skip
_PROOF: Final = "My sister Margaret Holloway from Boston saw Peter Lindqvist."
_PROVEN: Final = ("Margaret", "Holloway", "Peter", "Lindqvist")


@dataclass(frozen=True, slots=True)
class Removed:
    """One piece that was removed: `original[start:end]` of the text that was given. Its text shows in no repr."""

    kind: Identifier
    start: int
    end: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text that may be written, and what was removed from it.

    `found` is for the person who wrote the text, to look at: never log or store it. A repr shows counts alone.
    """

    text: str = field(repr=False)
    found: tuple[Removed, ...] = field(repr=False)
    counts: Mapping[str, int]
    """By class."""


class Deidentifier:
    """Rules, lists and two models behind Presidio. Loading takes seconds and 0.4 GB; one is enough for a process.

    A text takes a processor for some milliseconds: call it from a thread where an event loop must go on.
    """

    def __init__(self, *, analyzer: AnalyzerEngine, anonymizer: AnonymizerEngine, known: Gazetteer) -> None:
        self._analyzer = analyzer
        self._anonymizer = anonymizer
        self._known = known

    @classmethod
    def load(cls, *, known: Gazetteer | None = None) -> Self:
        """Load the models and try them.

        Args:
            known: lists of Nepali names and places; the packaged ones by default.

        Raises:
            DeidentifierUnavailable: a library or a model is missing, altered or doesn't find what it should.
        """
        from neurons.privacy import models  # noqa: PLC0415 - whoever doesn't scrub doesn't load this

        try:
            from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: PLC0415
            from presidio_anonymizer import AnonymizerEngine  # noqa: PLC0415

            from neurons.privacy.recognizers import (  # noqa: PLC0415
                RampartRecognizer,
                RuleRecognizer,
                SpacyEngine,
                SpacyRecognizer,
            )
        except ImportError as error:
            raise DeidentifierUnavailable(
                f"The library {error.name} is not installed. Install requirements/privacy.in."
            ) from error
        lists, rampart = known or gazetteer(), models.load_rampart()
        recognizers = [RuleRecognizer(lists), SpacyRecognizer(rampart), RampartRecognizer(rampart)]
        analyzer = AnalyzerEngine(
            registry=RecognizerRegistry(recognizers=recognizers, supported_languages=["en"]),
            nlp_engine=SpacyEngine(models.load_spacy(), beside=rampart.begin),
            supported_languages=["en"],
        )
        made = cls(analyzer=analyzer, anonymizer=AnonymizerEngine(), known=lists)  # type: ignore[no-untyped-call]
        made._prove()
        return made

    def scrub(self, text: str) -> Scrubbed:
        """Return a text without what identifies somebody.

        Raises:
            TextRefused: it is too long, or holds what no recogniser reads.
            DeidentifierUnavailable: a recogniser failed.
        """
        found = self.find(text)
        pieces = tuple(Removed(each.kind, each.start, each.end, text[each.start : each.end]) for each in found)
        return Scrubbed(
            text=self._replaced(text, pieces),
            found=pieces,
            counts=dict(sorted(Counter(each.kind.value for each in found).items())),
        )

    def find(self, text: str) -> tuple[Finding, ...]:
        """Return what identifies somebody, in order, none overlapping. Raises as `scrub`."""
        _check(text)
        try:
            found = [
                (kind, reading.places[start], reading.places[end - 1] + 1)
                for index, reading in enumerate(readings(text))
                for kind, start, end in (
                    self._analyzed(reading.text) if index == 0 else spans(reading.text, self._known)
                )
            ]
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be written
            # Without the cause: a library's message may quote the text.
            raise DeidentifierUnavailable(
                f"A recogniser failed ({type(error).__name__}). The text must not be written."
            ) from None
        found = [_widened(text, *each) for each in found]
        found.extend(_repeated(text, found))
        kept = [each.span() for each in _PLACEHOLDER.finditer(text)]
        outside = [each for each in found if not any(begin < each[2] and each[1] < end for begin, end in kept)]
        return _merged(text, outside)

    def _analyzed(self, text: str) -> Iterable[tuple[str, int, int]]:
        if not text.strip():
            return []
        found = [(each.entity_type, each.start, each.end) for each in self._analyzer.analyze(text, language="en")]
        return without_advice(text, found, self._known)

    def _replaced(self, text: str, pieces: Iterable[Removed]) -> str:
        from presidio_anonymizer.entities import OperatorConfig, RecognizerResult  # noqa: PLC0415

        labels = [(each, placeholder(each)) for each in pieces]
        if not labels:
            return text
        # A kind of Presidio's is what is put in its place, since a ZIP code leaves a part.
        results = [RecognizerResult(label, each.start, each.end, 1.0) for each, label in labels]
        operators = {label: OperatorConfig("replace", {"new_value": label}) for _, label in labels}
        done = self._anonymizer.anonymize(text, results, operators, merge_entities_with_spaces=False)
        return str(done.text)

    def _prove(self) -> None:
        found = {word for each in self.scrub(_PROOF).found for word in re.findall(r"\w+", each.text)}
        if missed := [word for word in _PROVEN if word not in found]:
            raise DeidentifierUnavailable(
                f"The models find {len(_PROVEN) - len(missed)} of {len(_PROVEN)} names in a sentence of ours. Install them anew."
            )


def placeholder(removed: Removed) -> str:
    """Return what stands for a piece: its class, and of an American ZIP code what Safe Harbor lets stay."""
    if removed.kind is Identifier.POSTCODE and (
        match := re.fullmatch(r"(\d{3})\d{2}(?:-?\d{4})?", removed.text.strip())
    ):
        return f"[ZIP {'000' if match[1] in _FEW_PEOPLE else match[1]}]"
    return f"[{_LABELS[removed.kind]}]"


def _check(text: str) -> None:
    if not isinstance(text, str):
        raise TextRefused(f"A text is expected, not {type(text).__name__}. Decode it first.")
    if len(text) > MAX_CHARACTERS:
        raise TextRefused(
            f"The text has {len(text)} characters, at most {MAX_CHARACTERS} are read at a time. Split it."
        )
    for character in text:
        if character < "\x7f" and (character >= " " or character in "\n\t\r"):
            continue
        if (reason := _unreadable(character)) is not None:
            raise TextRefused(f"The text holds {reason}: nobody can tell whom it names.")


@cache
def _unreadable(character: str) -> str | None:
    """Return what is wrong with a character, or None."""
    category = unicodedata.category(character)
    if category == "Cs":
        return "half of a character"
    if character == "\ufffd":
        return "the mark of a lost character"
    if category == "Cc" and not character.isspace():
        return "control characters"
    if category in ("Co", "Cn"):
        return "characters that mean nothing"
    if (
        category.startswith("L")
        and not unicodedata.name(character, "").startswith(_SCRIPTS)
        and unicodedata.name(character, "") not in _FILLERS
    ):
        return "a script that no recogniser reads (Latin and Devanagari are)"
    return None


_FILLERS: Final = frozenset(
    ("HANGUL FILLER", "HANGUL CHOSEONG FILLER", "HANGUL JUNGSEONG FILLER", "HALFWIDTH HANGUL FILLER")
)


_INITIALS: Final = re.compile(r"(?<!\w)(?:[A-Z]\.[ \u00a0]?){1,3}$")
_NO_INITIAL: Final = re.compile(
    r"\b(?:vitamin|vit|hepatitis|hep|type|grade|group|factor|class|stage|part|point|dr|prof)\.?\s+(?:[A-Z]\.[ \u00a0]?){1,3}$",
    re.IGNORECASE,
)
_TOWN_BEGINS: Final = re.compile(
    r"(?<!\w)(?:New|North|South|East|West|Port|Lake|Mount|Mt\.?|Fort|Ft\.?|Saint|St\.?|San|Santa|Los|Las|Upper|Lower|Old|Great|Little|Cape) $"
)
_TOWN_ENDS: Final = re.compile(r"[ ][A-ZÀ-Þ][^\W\d_]{2,}(?=[\s.,;?!]|$)")
_TO_A_TOWN: Final = re.compile(r"\b(?:in|from|to|near|at|of|around|outside) [A-Z][a-z]+\.? $")
# "Ryan P Costa", "Eckart van der Dussen"
_MIDDLE: Final = re.compile(
    r"(?:[ \u00a0](?:[A-Z]\.?|van|von|der|den|de|del|della|le|la|las|los|di|da|dos|das|du|bin|bint|binti|ibn|al|el|ul|ter|ten|y)){1,3}[ \u00a0][A-ZÀ-Þ][^\W\d_]+(?:['’-][^\W\d_]+)*"
)
_NEXT_WORD: Final = re.compile(r"[ \u00a0]([^\W\d_]{2,}(?:['’-][^\W\d_]+)*)")
_WARD: Final = re.compile(r"[ ]?-[ ]?\d{1,2}(?![\w/-]|[.]\d)")


def _widened(text: str, kind: str, start: int, end: int) -> tuple[str, int, int]:
    """Return a finding with what belongs to it: the initials before a name, and the ward after a town."""
    if kind == Identifier.NAME:
        if _TO_A_TOWN.search(text, max(0, start - 24), start) and (
            town := _TOWN_BEGINS.search(text, max(0, start - 12), start)
        ):
            return Identifier.PLACE, town.start(), end
        end = _whole_name(text, start, end)
        initials = _INITIALS.search(text, max(0, start - 12), start)
        if initials and not _NO_INITIAL.search(text[max(0, start - 30) : start]):
            return kind, initials.start(), end
    if kind == Identifier.PLACE and (town := _TOWN_BEGINS.search(text, max(0, start - 12), start)):
        start = town.start()
    if (
        kind == Identifier.PLACE
        and _TOWN_BEGINS.search(f"{text[start:end]} ")
        and (rest := _TOWN_ENDS.match(text, end))
    ):
        end = rest.end()
    if kind in (Identifier.PLACE, Identifier.ADDRESS) and (ward := _WARD.match(text, end)):
        return kind, start, ward.end()
    return kind, start, end


def _whole_name(text: str, start: int, end: int) -> int:
    """Return where a name ends: a surname that is an ordinary word or an eponym belongs to the given name before it."""
    from neurons.privacy.announced import is_surname_after  # noqa: PLC0415

    while (among := _MIDDLE.match(text, end)) and text[start:end][0].isupper():
        end = among.end()
    while (following := _NEXT_WORD.match(text, end)) and is_surname_after(
        text[start:end], following[1], text[following.end() :]
    ):
        end = following.end()
    return end


def _repeated(text: str, found: Iterable[tuple[str, int, int]]) -> Iterable[tuple[str, int, int]]:
    """Yield the other places where a name stands that was found once."""
    from neurons.privacy.announced import is_common  # noqa: PLC0415

    words = {
        word for kind, start, end in found if kind == Identifier.NAME
        for word in re.findall(r"[^\W\d_]{3,}", text[start:end]) if not is_common(word)
    }  # fmt: skip
    for word in words:
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text):
            yield Identifier.NAME, match.start(), match.end()


_NUMBERS: Final = frozenset((Identifier.DATE, Identifier.PHONE, Identifier.RECORD, Identifier.LICENCE))


def _of_the_longer(first: Finding, second: Finding, otherwise: Identifier) -> Identifier:
    """Return what the longer of two numbers is: a part of a citizenship number looks like a date."""
    if first.end - first.start == second.end - second.start:
        return otherwise
    return max(first, second, key=lambda each: each.end - each.start).kind


def _merged(text: str, found: Iterable[tuple[str, int, int]]) -> tuple[Finding, ...]:
    """Return findings as pieces that don't touch: what overlaps is one, and so are two words of a name."""
    pieces: list[Finding] = []
    for kind, start, end in sorted(
        ((Identifier(kind), start, end) for kind, start, end in found), key=lambda each: each[1:]
    ):
        if pieces:
            last = pieces[-1]
            overlaps = start < last.end
            goes_on = (
                kind is last.kind is Identifier.NAME
                and re.fullmatch(r"[ .\u00a0-]{1,3}", text[last.end : start]) is not None
            )
            if overlaps or goes_on:
                named = min(last.kind, kind, key=_ORDER.index)
                if overlaps and {last.kind, kind} <= _NUMBERS:
                    named = _of_the_longer(last, Finding(kind, start, end), named)
                pieces[-1] = Finding(named, last.start, max(last.end, end))
                continue
        pieces.append(Finding(kind, start, end))
    return tuple(pieces)
