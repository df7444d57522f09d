"""Presidio's recognizers: the rules, and the two models snapped to whole words with what medicine calls by a name left out."""

from __future__ import annotations

import logging
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from neurons.privacy.announced import is_common
from neurons.privacy.gazetteer import Gazetteer
from neurons.privacy.identifiers import Identifier, spans
from neurons.privacy.models import Rampart
from neurons.privacy.vocabulary import (
    GENERA,
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
_SIGN: Final = re.compile(
    r"^(?:['’]s?)?[ -](?:(?:type|class|grade)\s+[IV\d]+\w?\s+)?(?:signs?|syndrome|phenomen(?:on|a)|nomogram|man(?:oeu|eu)vres?|maneuvers?|sulcus|chromosomes?|cells?"
    r"|nodules?|pupils?|rings?|bodies|bars?|criteria|classification|proteins?|proteinuria|striae|splints?|forceps|pouch|antivenom|sphincter|ophthalmopathy)\b"
)
"""Behind one or more words with capitals it says that they are an eponym: no patient's name stands before it."""
_EPONYM: Final = re.compile(
    r"^(?:['’]s)?[ -](?:sutures?|stitch|incision|spots?|lesions?|lines?|casts?|casting|regimen|bundle|fossa|triangle|ligament|tubercle|deformity|flap|stain|agar|dislocation"
    r"|anaesthesia|anesthesia|osteotomy|arthroplasty|hemiarthroplasty|keratoplasty|diverticulum|ulcers?|paralysis|encephalopathy"
    r"|grade|stage|drain|leads?|catheter|pressure|protocol|scheme|system|technique|repair|approach|view|angle|canal|graft|reaction|medium"
    r"|tubes?|cannula|airway|collar|brace|frame|prosthesis|valve|stent|needle|clamp|retractor|bite|stings?|seeds?|poisoning|toxicity|factor|antibod(?:y|ies)"
    r"|polyvalent|trial|study|regime|diet|shunt|balloon|pattern|field|injury|viper|snake|exercises|triad|formula|rule|law|equation|pack|bandage|dressing)\b", re.IGNORECASE
)  # fmt: skip
"""The same behind a single word, where the model is in doubt."""
_SPECIES: Final = re.compile(
    r"^[A-Z][a-z]{3,}(?:a|um|us|is|er|on|as|es|ma|yx|ix|ys) [a-z]{4,}(?:us|um|is|ae|ii|orum|arum|ensis|ans|ides|ticus|ica|osa|alis)$"
)
"""An organism: "Naegleria fowleri". No given name ends as its genus does and has a surname in lower case behind it."""
_FEVER: Final = re.compile(r"^ (?:fever|virus|encephalitis|haemorrhagic|hemorrhagic|spotted)\b")
"""Behind a place: "Ross River fever"."""
_DOSED: Final = re.compile(
    r"^[ -]?\d+(?:[.]\d+)?(?:/\d+)?\s?(?:mg|mcg|µg|g|ml|units?|iu|%|puffs?|drops?)\b", re.IGNORECASE
)
_STRENGTH: Final = re.compile(r"^ (\d{1,3})\b")
_GENERIC: Final = re.compile(r"^ \(([a-z]+(?: [a-z]+)?)\)")
"""A brand with its substance behind it: "Metacid (methyl parathion)"."""
_SUBSTANCE: Final = re.compile(r"\([a-z]{4,} $")
_MADE: Final = re.compile(r"^['’]s ([a-z]{5,})\b")
"""Behind a maker: "Dr Reddy's omeprazole"."""
_JOINED: Final = r"(?:,|/|\+|,? ?\b(?:and|or|with|plus|ra|wa)\b) ?"
_LISTED_BEFORE: Final = re.compile(rf"(?<![\w-])([A-Z][\w-]+)(?: [A-Z]{{1,3}}| \d+(?: ?m?c?g| ?ml)?)? ?{_JOINED}$")
_LISTED_BEHIND: Final = re.compile(rf"^(?: [A-Z]{{1,3}}| \d+(?: ?m?c?g| ?ml)?)? ?{_JOINED}([A-Z][\w-]+)")
"""What stands in a list beside a medicine is one too, where the model is in doubt."""
_SOMEBODY_BEFORE: Final = re.compile(
    r"\b(?:for|told|tell|tells|gave|ask|asked|with|to|of|by|from|called|named|saw|see|met|mr|mrs|ms|miss|so|because|that|patient|pt|name|her|his|my|our|their|thanks"
    r"|regards|hi|hello|dear|inform|informed|advise|advised|remind|reminded)[.,:]?\s+$", re.IGNORECASE
)  # fmt: skip
_SOMEBODY_BEHIND: Final = re.compile(
    r"^(?:['’]s\b|,? (?:who|whose)\b|,? \(?\d{1,2}\b(?! ?(?:mg|ml|mcg|g)\b)| and (?:her|his|family|mother|father|wife|husband)\b| (?:takes|took|needs|needed|has|had|says|said|is|was|came|went|feels"
    r"|felt|told|asked|asks|wants|complains|lives|gave|fell|will|cannot|can|ji|dai|didi|bhai|bahini)\b|[:,]? (?:she|he|her|his)\b|:)", re.IGNORECASE
)  # fmt: skip
_NEPALI_SOMEBODY: Final = re.compile(
    r"^ ?(?:lai|le|ko|ki|ka|sanga|ji|jyu|dai|didi|bhai|bahini|kaka|kaki|aaunu|aayo|bhan\w+|ho|hun)\b", re.IGNORECASE
)
_NEPALI_THING: Final = re.compile(
    r"^ (?:ma\b|bhay?e\b|bhayo\b|lagyo\b|lage\b|dukhy?[oe]\b|dukhda\b|bata (?:pip|ragat|pani)|(?:gel|drops?|syrup|sachet|chakki|goli|tablet|capsule|powder|churna|malham|malam|cream|puff|sui|inhaler"
    r"|khana|kha(?:nu|ne|na|nuhos|yo|ye|era|eko)|na?kha\w+|na?laga\w+|na?hal\w+|(?:na)?li(?:nu|ne|nuhos)|na?di(?:nu|ne|nuhos|ye|yo)|khuwa\w+|patha\w+|janch\w+|badha\w+|ghata\w+|chapa\w+|chhuta\w+"
    r"|suru|band|rokn\w+|rakhn\w+|tann\w+|garn\w+|garaun\w+)\b)", re.IGNORECASE
)  # fmt: skip
"""What is taken, smeared, tested or fallen ill with in Nepali is no person."""
_CASES: Final = re.compile(r" (?:ko lagi|ko|ma|le|lai|ra|bata|sanga) ")
_CLINICAL: Final = re.compile(
    r"\b\d+(?:[.]\d+)?\s?(?:mg|mcg|ml|units?|iu|%)|\b(?:start|stop|give|gave|apply|add|check|send|review|switch|continue|avoid|use|taper|biopsy|mri|ecg|icu"
    r"|positive|negative|tablets?|drops|syrup|cream|vaccines?|dose|poisoning|bite|test|sign|daily|twice|thrice|antidote)\b", re.IGNORECASE
)  # fmt: skip
"""A line of a clinic: there a guess of the model that knows newspapers alone counts for nothing, unless somebody is meant."""
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
_DOUBT: Final = 0.05
_NAME_SHARE: Final = 0.5
_LOWER_SHARE: Final = 0.55
_SURE_SHARE: Final = 0.95
_PLACE_SHARE: Final = 0.7
_NUMBER_SHARE: Final = 0.75
_NUMBERS: Final = ("phone", "recordNumber", "licenceNumber")


_ENDLESS: Final = re.compile(r"\S{100,}")
_MARK: Final = re.compile(r"[^\w\s]|_")


def _readable(text: str) -> str:
    """Return a text of the same length without marks where no space is for long.

    The tokenizer takes marks from a word's end one by one and reads the rest anew after each: 20,000 colons took 31 s.
    """
    return _ENDLESS.sub(lambda run: _MARK.sub(" ", run[0]), text)


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
        document = self._pipeline(_readable(text))
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
    """Persons and places that spaCy's model names, and Rampart doesn't call anything else."""

    def __init__(self, other: Rampart) -> None:
        super().__init__()
        self._other = other

    def found(self, text: str, artifacts: NlpArtifacts) -> Iterator[tuple[str, int, int]]:
        """Yield names and places."""
        shared = [word for word in self._other.words(text) if max(word.shares["name"], word.shares["place"]) > _DOUBT]
        starts = [word.start for word in shared]
        for entity in artifacts.entities:
            kind = "name" if entity.label_ == "PERSON" else "place" if entity.label_ in ("GPE", "LOC", "FAC") else None
            if kind is None:
                continue
            for found, start, end in _words(text, entity.start_char, entity.end_char, kind):
                first = bisect_left(starts, start)
                alone = first == len(starts) or starts[first] >= end
                if not (alone and _is_a_lone_guess(text, start, end)):
                    yield found, start, end


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
                        # A licence is announced: without that the model is right about the number, not about what it is.
                        yield "phone" if kind == "phone" else "recordNumber", word.start, word.end
        yield from _address(text, street)
        self._model.forget()


def _address(text: str, words: list[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Yield a street where there is a number and a name of it; neither alone is one."""
    found = [text[start:end] for start, end in words]
    if len(found) == 2 and found[0].lower() in ORDINARY:
        return  # "Sugar 240"
    if any(each[0].isdigit() for each in found) and any(each[0].isupper() and len(each) > 2 for each in found):
        yield "address", words[0][0], words[-1][1]


def _pieces(found: str) -> Iterator[tuple[int, str]]:
    begin = 0
    for case in _CASES.finditer(found):
        yield begin, found[begin : case.start()]
        begin = case.end()
    yield begin, found[begin:]


def _words(
    text: str, start: int, end: int, kind: str, *, sure: bool = False, trimmed: bool = False
) -> Iterator[tuple[str, int, int]]:
    """Yield a model's finding, snapped to whole words, without what is nobody's name and no town."""
    start, end = _snapped(text, start, end)
    found = text[start:end]
    if not trimmed and _CASES.search(found) and is_nepali_sentence(_sentence(text, start, end)):
        # No name has a case marker inside: "Pathri ko lagi Urispas"
        for place, piece in _pieces(found):
            yield from _words(text, start + place, start + place + len(piece), kind, sure=sure, trimmed=True)
        return
    words = re.findall(r"[^\W\d_][\w'’-]*", found)
    if (
        not words
        or any("\u0900" <= each <= "\u097f" for each in found)
        or (not trimmed and _TITLE.search(text[max(0, start - 60) : start]))
        or _is_of_medicine(text, words, start, end, kind, sure=sure)
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
    if (
        last - first < len(found) and not trimmed
    ):  # "bhane Volini": what is left is looked at as if it had been found alone
        yield from _words(text, start + first, start + last, kind, sure=sure, trimmed=True)
        return
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


def _is_a_lone_guess(text: str, start: int, end: int) -> bool:
    """Tell whether a guess that Rampart doesn't share counts for nothing: a word of a clinic's line, or of a Nepali sentence, that nobody has."""
    if " " in text[start:end]:
        return False
    sentence = _sentence(text, start, end)
    if is_nepali_sentence(sentence):
        return _NEPALI_SOMEBODY.match(text[end : end + 12]) is None
    return (
        _CLINICAL.search(sentence) is not None
        and not _SOMEBODY_BEFORE.search(text, max(0, start - 16), start)
        and not _SOMEBODY_BEHIND.match(text[end : end + 16])
    )


def _is_of_medicine(text: str, words: list[str], start: int, end: int, kind: str, *, sure: bool) -> bool:
    """Tell whether a finding is a medicine, an eponym, an organism, a blood test, or the verb that a name is too."""
    behind = text[end : end + 40]
    found = text[start:end]
    number = _STRENGTH.match(behind)
    if (
        _is_an_eponym(text, words, start, end)
        or (kind == "place" and _FEVER.match(behind) is not None)
        or _is_species(text, start, end)
        or (number is not None and is_medicine(f"{found} {number[1]}"))
        or REHYDRATION.search(text, max(0, start - 14), end) is not None
        or is_medicine(found)
        or all(is_medicine(word) or len(word) < 3 for word in words)
        or (any(_is_eponym(word) for word in words) and (len(words) == 1 or _DISEASE.match(behind) is not None))
        or "-".join(words).lower() in EPONYMS
        or (kind == "place" and all(_is_eponym(word) for word in words))
    ):
        return True
    return len(words) == 1 and (
        _MEDICINE.match(behind) is not None
        or _DOSED.match(behind) is not None
        or _is_substance(text, start, end, behind)
        or (_NEPALI_THING.match(behind) is not None and not sure and is_nepali_sentence(_sentence(text, start, end)))
        or (not sure and _is_beside_medicine(text, start, behind))
        or _DISEASE.match(behind) is not None
        or _is_something(text, words[0], start, end, sure=sure)
    )


_RUN: Final = re.compile(r"[A-Z][\w'’-]+(?: [A-Z][\w'’-]*[a-z][\w'’-]*)?")
_HYPHENATED: Final = re.compile(r"[A-Z][\w'’]+(?:-[A-Z][\w'’]+)+")
_TOKEN: Final = re.compile(r"[^\W\d_]+(?:-\w+)+")
_CLASS: Final = re.compile(r"^ (?:I{1,3}[abc]|IV[abc]?|I{2,3})(?!\w)")
_TYPE: Final = re.compile(r"^ (?:type|class|grade|stage|score|tests?|reaction|agglutination|pattern)\b", re.IGNORECASE)


def _is_an_eponym(text: str, words: list[str], start: int, end: int) -> bool:
    """Tell whether words, or the pair to which they belong, are what a sign, a splint or a cell is called by."""
    behind = text[end : end + 40]
    if len(words) <= 3 and all(word[0].isupper() for word in words) and _SIGN.match(behind):
        return True
    if (len(words) == 1 and _CLASS.match(behind)) or (len(words) == 2 and _CLASS.match(f" {words[1]}")):
        return True  # "Forrest Ib"
    begin = max(text.rfind(mark, max(0, start - 30), start) for mark in " (/") + 1
    if (
        (token := _TOKEN.match(text, begin))
        and token.end() >= end
        and (token[0].lower() in EPONYMS or is_medicine(token[0]))
    ):
        return True  # "azar" of "Kala-azar"
    if (pair := _HYPHENATED.match(text, begin)) and pair.end() >= end and begin <= start:
        rest = text[pair.end() : pair.end() + 40]
        return any(pattern.match(rest) for pattern in (_SIGN, _DISEASE, _EPONYM, _TYPE))
    if len(words) == 1 and (pair := _RUN.match(text, start)) and " " in pair[0]:
        # "Denis" of "Denis Browne bar", but not "John" of "John Murphy sign"
        return not _is_eponym(pair[0].split()[1]) and _SIGN.match(text[pair.end() : pair.end() + 40]) is not None
    return False


def _is_species(text: str, start: int, end: int) -> bool:
    """Tell whether a finding is an organism's name or one of its halves."""
    begin = text.rfind(" ", 0, max(0, start - 1)) + 1
    stop = len(text) if (space := text.find(" ", end + 1)) < 0 else space
    for piece in (text[start:end], text[begin:end], text[start:stop].rstrip(_EDGES)):
        genus, *species = piece.split(" ")
        if len(species) > 1 or len(piece) > 60:
            continue
        if genus.lower() in GENERA and all(word.islower() and word not in ORDINARY for word in species):
            return True
        if species and _SPECIES.match(piece) and genus.lower() not in ORDINARY and genus.lower() not in NAME_WORDS:
            return True
    return False


def _is_substance(text: str, start: int, end: int, behind: str) -> bool:
    """Tell whether a word is a brand before its substance in brackets, a word of that substance, or who makes it."""
    if (made := _MADE.match(behind)) is not None and is_medicine(made[1]):
        return True
    if (named := _GENERIC.match(behind)) is not None:
        return any(is_medicine(word) or word in ORDINARY for word in named[1].split())
    return (
        text[start:end].islower()
        and text[end : end + 1] == ")"
        and bool(_SUBSTANCE.search(text, max(0, start - 30), start))
    )


def _is_beside_medicine(text: str, start: int, behind: str) -> bool:
    """Tell whether a word is an eponym's half, or in a list with a medicine."""
    if _EPONYM.match(behind):
        return True
    before = _LISTED_BEFORE.search(text, max(0, start - 40), start)
    after = _LISTED_BEHIND.match(behind)
    return any(match is not None and is_medicine(match[1]) for match in (before, after)) and not _SOMEBODY_BEHIND.match(
        behind
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


_LATIN: Final = re.compile(r"[^aeiou](?:is|um|us|ae|ii)$")


def _is_abbreviation(text: str, word: str, start: int, end: int) -> bool:
    """Tell whether a word in capitals is one of few in its sentence: in a form, or for who shouts, it may be a name."""
    if not (word.isupper() and 2 <= len(word) <= 6) or _SOMEBODY_BEHIND.match(text[end : end + 16]):
        return False
    if _SOMEBODY_BEFORE.search(text, max(0, start - 16), start):
        return False
    letters = [each for each in _sentence(text, start, end) if each.isalpha()]
    return len(letters) > 12 and sum(each.islower() for each in letters) * 2 > len(letters)


def _is_something(text: str, word: str, start: int, end: int, *, sure: bool) -> bool:
    """Tell whether a single word is a blood test ("ANA 1:640"), or the verb that it is too ("Mark the spot")."""
    if word.isupper() and len(word) <= 4 and _RESULT.match(text[end : end + 16]):
        return True
    if not sure and _is_abbreviation(text, word, start, end):
        return True
    begins = _BEGINS.search(text[max(0, start - 3) : start]) is not None
    if not sure and begins and word[0].isupper() and _plain(word) in ORDINARY - NAME_WORDS - SURNAME_WORDS:
        return True  # "Silvery plaques"
    if not sure and word.islower() and _LATIN.search(word) and _is_a_lone_guess(text, start, end):
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
