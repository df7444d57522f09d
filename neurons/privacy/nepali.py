"""What Nepali notes hold, romanised and in Devanagari: dates of Bikram Sambat, plates, numbers, names, places.

No packaged model reads Devanagari: names are found there by lists, by what announces them and by the surname beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from neurons.privacy.gazetteer import Gazetteer
from neurons.privacy.vocabulary import (
    NAME_WORDS,
    ORDINARY,
    REHYDRATION,
    ROMANISED_ORDINARY,
    is_medicine,
    is_ordinary_nepali,
)
from neurons.privacy.words import AMBIGUOUS, DEVANAGARI_WORDS, ROMANISED_WORDS

_MONTHS: Final = (
    "Bais(?:h)?akh|Vaishakh?|Jestha?|Jyes(?:h)?tha|Jeth|As(?:h)?adh|Asar|S(?:h)?rawan|Saun|Sawan|Bhadra|Bhadau|As(?:h)?win|Aswin|As(?:h)?oj"
    "|Ka[ar]?rtik|Kattik|Mangsir|Marga|Pous?h|Paush|Push|Magh|(?:Ph?|F)algun|(?:Ph?|F)agun|Chaitra|Chait"
)
_MONTHS_DEVANAGARI: Final = (
    "बैशाख|वैशाख|जेठ|जेष्ठ|ज्येष्ठ|असार|अषाढ|आषाढ|साउन|श्रावण|भदौ|भाद्र|असोज|आश्विन|अश्विन|कार्तिक|कात्तिक|मंसिर|मङ्सिर|मार्ग|पुस|पुष|पौष|माघ"
    "|फागुन|फाल्गुण|फाल्गुन|चैत|चैत्र|जनवरी|फेब्रुअरी|मार्च|अप्रिल|मे|जुन|जुलाई|अगस्ट|अगस्त|सेप्टेम्बर|अक्टोबर|नोभेम्बर|डिसेम्बर"
)
_YEAR: Final = r"(?:19|20)\d\d"
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[0-2])(?:st|nd|rd|th)?"
_DATES: Final = (
    re.compile(rf"(?<!\w)(?:{_YEAR}(?:\s*(?:BS|B\.S\.|साल))?[\s,]+)?{_DAY}\s*(?:gate\s+|of\s+)?(?:{_MONTHS})(?!\w)(?:[\s,]+{_YEAR})?(?!\s*\d)", re.IGNORECASE),
    re.compile(rf"(?<!\w)(?:{_YEAR}[\s,]+)?(?:{_MONTHS})[\s,]+{_DAY}(?!\w)(?!\s*(?:mg|ml|times|%|tab))(?:\s*gate)?(?:[\s,]+{_YEAR})?", re.IGNORECASE),
    re.compile(rf"(?<!\w)(?:{_MONTHS})[\s,]+{_YEAR}(?!\w)|(?<!\w){_YEAR}[\s,]+(?:{_MONTHS})(?!\w)", re.IGNORECASE),
    re.compile(rf"(?<!\w){_DAY}\s*gate(?!\w)", re.IGNORECASE),
    re.compile(rf"\b(?:in|since|of|last|on|from|until)\s+(?P<at>(?:{_MONTHS}))(?!\w)"),
    re.compile(rf"(?<!\w)(?P<at>(?:{_MONTHS}))\s+(?:ma|mahina|dekhi|ko)(?!\w)", re.IGNORECASE),
    re.compile(rf"(?:{_YEAR}\s*(?:साल)?\s*)?(?<!\w)(?:{_MONTHS_DEVANAGARI})\s*(?:को\s*)?\d{{1,2}}(?:\s*गते)?|(?<!\w)(?:{_YEAR}\s*(?:साल)?\s*)?\d{{1,2}}\s*(?:गते\s*)?(?:{_MONTHS_DEVANAGARI})(?=मा|को|देखि|बाट|सम्म|तिर|[^\u0900-\u097f]|$)(?:\s*{_YEAR})?"),
    re.compile(rf"(?<!\w){_YEAR}\s*(?:साल\s*)?(?:को\s*)?(?:{_MONTHS_DEVANAGARI})"),
    re.compile(rf"(?<!\w)(?:{_MONTHS_DEVANAGARI.replace('|मे|', '|').replace('|मार्ग|', '|')})(?=देखि|मा|को|\s+महिना)"),
    re.compile(r"(?<!\w)\d{1,2}\s*गते"),
    re.compile(r"(?<!\w)20[4-9]\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[0-2])(?!\w)"),
)  # fmt: skip

_ZONES: Final = "Mechi|Koshi|Sagarmatha|Janakpur|Bagmati|Narayani|Gandaki|Lumbini|Dhaulagiri|Rapti|Karnali|Bheri|Seti|Mahakali|Province\\s*\\d|Pradesh\\s*\\d"
_LOTS: Final = "Ka|Kha|Ga|Gha|Cha|Chha|Ja|Jha|Na|Ta|Tha|Da|Dha|Pa|Pha|Ba|Bha|Ma|Ya|Ra|La|Wa|Sa|Ha"
_PLATES: Final = (
    re.compile(rf"(?<!\w)(?:Me|Ko|Sa|Ja|Ba|Na|Ga|Lu|Dha|Ra|Ka|Bhe|Se|Ma)[\s.-]*\d{{1,3}}[\s.-]*(?:{_LOTS})[\s.-]*\d{{1,4}}(?!\w)", re.IGNORECASE),
    re.compile(rf"(?<!\w)(?:{_ZONES})(?:\s+Pradesh)?[\s-]+\d{{1,3}}[\s-]+(?:\d{{1,3}}[\s-]+)?(?:{_LOTS})[\s-]+\d{{1,4}}(?!\w)", re.IGNORECASE),
    re.compile(r"(?<!\w)(?:मे|को|स|ज|बा|ना|ग|लु|ध|रा|क|भे|से|म)[\s.-]*\d{1,3}[\s.-]*(?:क|ख|ग|घ|च|छ|ज|झ|त|थ|द|ध|न|प|फ|ब|भ|म|य|र|ल|व|स|ह|चा|पा|बा|जा)[\s.-]*\d{3,4}(?!\w)"),
)  # fmt: skip

_VALUE: Final = r"(?P<value>(?=[\w/-]{0,30}\d)[\w/-]*\d[\w/-]*(?:[-/ ]\d+){0,4})"
_FILLER: Final = r"\W{0,3}(?:नं|नम्बर|नम्वर|number|nambar|no|num|code)?\.?\W{0,4}(?:हो|is|chai|चाहिँ|ho)?[\s:=…।.\-–]{0,6}"
_NUMBERS: Final = (
    ("recordNumber", "(?:बेड|शैया|शय्या|दर्ता|बिरामी|विरामी|फाइल|फाईल|ओपीडी|अस्पताल|कार्ड|बिमा|बीमा|खाता|नागरिकता|राहदानी|पासपोर्ट|परिचयपत्र|सदस्यता|नमुना)"),
    ("recordNumber", r"(?<!\w)(?:darta|birami|bima|khata|nagarikta|rahadani|citizenship|opd|ipd|hospital\s+darta)(?:\s+(?:patra|ko))?"),
    ("licenceNumber", "(?:लाइसेन्स|सवारी\\s+चालक\\s+अनुमतिपत्र|अनुमतिपत्र)"),
    ("deviceSerial", "(?:सिरियल|पेसमेकर|मेसिन|मेशिन|यन्त्र)"),
)  # fmt: skip
_NUMBER_PATTERNS: Final = tuple((kind, re.compile(label + _FILLER + _VALUE, re.IGNORECASE)) for kind, label in _NUMBERS)

_MARK: Final = "\u0900-\u097f"
_WORD: Final = r"[\u0904-\u0939\u0958-\u0961\u0971-\u097f][\u0900-\u0963\u0971-\u097f]{0,39}"
"""Longer ones don't exist; without a bound a text of one word would be read anew from each of its letters."""
_WORDS: Final = re.compile(rf"(?<![{_MARK}]){_WORD}")
_SUFFIX: Final = re.compile(r"(?:हरूले|हरू|ज्यूले|ज्यू|जीले|जीको|जी|ले|लाई|को|की|का|मा|बाट|सँग|संग|देखि|सम्म|कै|कहाँ|तिर)$")
_HONORIFIC: Final = "श्री|श्रीमती|सुश्री|मिस्टर|मिस"
_KIN: Final = (
    "छोरा|छोरी|श्रीमान्|श्रीमान|श्रीमती|आमा|बुबा|बुवा|बाबु|दाइ|दाजु|दिदी|भाइ|बहिनी|काका|काकी|हजुरबुबा|हजुरआमा|साथी|नाति|नातिनी"
)
_DOCTOR: Final = re.compile(r"(?:डा|डाक्टर|डाक्टर साहेब|प्रा|प्रोफेसर|डक्टर|नर्स)[.\s]*$")
_NAME: Final = rf"(?P<name>{_WORD}(?:\s+{_WORD}){{0,2}}?)"
_ANNOUNCED: Final = (
    re.compile(rf"नाम\s*(?:चाहिँ|:|=|-|\s)\s*{_NAME}\s*(?:हो|हुन्|छ|भन|।|,|\.|$|\n)"),
    re.compile(rf"(?<![{_MARK}])म\s+{_NAME}\s+(?:हुँ|हुं|बोल्दै|बोलेको|लेख्दै)"),
    re.compile(rf"(?<![{_MARK}])(?:{_HONORIFIC})\s+(?P<name>{_WORD}(?:\s+{_WORD})?)"),
    # "काफ्ले ले": where the marker stands alone, the surname before it may end as the marker does
    re.compile(rf"(?:^|[\n।.?!]\s*)(?P<name>{_WORD}\s+{_WORD}?)(?:\s+(?:ले|लाई)|(?:ले|लाई)(?!\s+(?:ले|लाई)\s))(?=\s)"),
    re.compile(rf"(?:मेरो|मेरी|मेरा|उनको|हाम्रो)\s+(?:{_KIN})\s+(?P<name>{_WORD})"),
    # "पूर्णबहादुर घर्ती ५८/पुरुष", as notes begin
    re.compile(rf"(?:^|[\n।:]\s*){_NAME}\s*[,(]?\s*\d{{1,3}}\s*(?:वर्ष|बर्ष)?\s*[/,]?\s*(?:पुरुष|महिला)", re.MULTILINE),
    re.compile(rf"(?:बिरामी|विरामी)(?:को\s+नाम)?\s*[:：]\s*{_NAME}(?=\s*(?:,|।|\.|$|\n))"),
    re.compile(rf"(?:धन्यवाद|सधन्यवाद|भवदीय|हस्ताक्षर)[\s,।:.\-—]+{_NAME}\s*[।.]?\s*$", re.MULTILINE),
    re.compile(rf"(?<![{_MARK}]){_NAME}\s*(?:जी|ज्यू)(?![{_MARK}])"),
    re.compile(rf"(?:^|[\n।.?!]\s*){_NAME},\s*(?:[\u0904-\u0939]\S*|\d+)\s*(?:वर्ष|बर्ष|बाट)"),
    re.compile(rf"(?<![{_MARK}]){_NAME}\s+(?:भन्ने|नामको|नाम गरेको|नामकी)"),
)  # fmt: skip
_THING: Final = re.compile(
    r"\s(?:चूर्ण|चुर्ण|औषधि|औषधी|चक्की|गोली|झोल|मल्हम|मलम|थोपा|क्रिम|खोप|सुई|सिरप|ट्याब्लेट|क्याप्सुल|तेल|रस|पात|बोक्रा|जरा|काँडा|रोग|ज्वरो|संक्रमण|जाँच|परीक्षण|विष|टोकाइ|घाउ|सर्प|कुकुर|बच्चा|आमा|महिला|बिरामी)$"
)
"""What does something without being anybody: "त्रिफला चूर्णले"."""
_HOSPITAL: Final = re.compile(rf"(?P<place>{_WORD}(?:\s+{_WORD})?)\s+(?:अस्पताल|हस्पिटल|क्लिनिक|मेडिकल\s+कलेज)")
_PLACED: Final = (
    re.compile(rf"(?P<place>{_WORD})\s+(?:जिल्ला|नगरपालिका|उपमहानगरपालिका|महानगरपालिका|गाउँपालिका|टोल|चोक|मार्ग|बस्ती)(?:\s*-?\s*\d+)?"),
    re.compile(rf"(?P<place>{_WORD})(?:मा|मै)\s+(?:बस्छु|बस्ने|बस्छौं|बस्दै|बस्थें|बस्नुहुन्छ|घर|डेरा|जन्म)"),
    re.compile(rf"(?P<place>{_WORD})(?:बाट)\s+(?:आएको|आएकी|आएका|बोल्दै|लेख्दै|हुँ)"),
    re.compile(rf"(?:घर|ठेगाना|डेरा|गाउँ)\s*[:：]?\s*(?P<place>{_WORD})(?:\s*-?\s*\d+)?\s*(?:हो|,|।|मा|$)"),
    re.compile(rf"(?P<place>{_WORD})\s*[-–]\s*\d{{1,2}}(?!\d)"),
    _HOSPITAL,
)  # fmt: skip
_KNOWING: Final = "थाहा"
"""To know, in every other sentence ("I don't know"); a municipality too, which is said with that word behind it."""
_NO_NAME_OF_A_HOSPITAL: Final = re.compile(
    rf"(?<![{_MARK}])(?:आजै|आज|अहिले|अहिल्यै|भोलि|भोलिपल्ट|तुरुन्त|तुरुन्तै|तत्काल|अनि|पनि|सिधै|छिटो|राति|बिहानै|एक्लै|कै|नजिकै|नजिकको|नजिकैको|ठूलो|सानो"
    r"|अर्को|कुनै|सरकारी|निजी|जिल्ला|मानसिक|प्रसूति|आँखा|मुटु|बाल|यी\s+अङ्क|\S*(?:एर|ेर|पछि|नुहोस्|हुने|उन|नखाई))$"
)
"""When to go there, how, to which kind, and verbs: what stands before a hospital and doesn't name it."""

_ROMAN_WORD: Final = re.compile(r"(?<![\w@./-])[A-Za-z][a-z]+(?![\w@])")
_ROMAN_NAME: Final = r"(?P<name>[A-Za-z]{2,20}(?:\s+[A-Za-z]{2,20}){0,2}?)"
_ROMAN_ANNOUNCED: Final = (
    re.compile(rf"\b(?:mero|merо|usko|unko|birami\s*ko|biramiko)\s+na+m\s+(?:chai\s+)?{_ROMAN_NAME}\s*(?:ho|hun|[,.]|$)", re.IGNORECASE),
    re.compile(rf"(?:^|[.!?,\n]\s*)(?:namaste|namaskar)?[,\s]*\bma\s+{_ROMAN_NAME}\s+(?:hun?|hu|ho|bolda?i)\b", re.IGNORECASE),
    re.compile(r"\b(?:mero|meri|hamro)\s+(?:chhora|chhori|chora|chori|shriman|shrimati|ama|aama|buwa|baba|dai|didi|bhai|bahini|kaka|kaki|sathi|hajurama|hajurbuwa)\s+(?P<name>[A-Za-z]{2,20}(?:\s+[A-Z][a-z]{2,20})?)\b(?!\s+lai\b.{0,3}$)", re.IGNORECASE),
    re.compile(rf"\b(?:shri|shree|shrimati|sushri)\s+{_ROMAN_NAME}(?=\s+(?:lai|le|ko|sanga)\b|[,.]|$)", re.IGNORECASE),
    re.compile(rf"\b(?:dhanyabad|dhanyabaad|dhanyawad)[\s,.!-]+{_ROMAN_NAME}\s*[.!]?\s*$", re.IGNORECASE | re.MULTILINE),
    re.compile(r"(?<!\w)(?P<name>[A-Za-z]{3,20}(?:\s+[A-Za-z]{3,20})?)\s+ji\b", re.IGNORECASE),
)  # fmt: skip
_ROMAN_MARKED: Final = re.compile(
    r"(?<![\w@./-])(?<!dr )(?<!dr\. )(?P<name>[A-Za-z]{3,20})\s+"
    r"(?:(?:(?:dai|didi|bhai|bahini|kaka|kaki)\s+)?(?:lai|le)\b|\d{1,3}\s+bar(?:sa|sha)\b)", re.IGNORECASE
)  # fmt: skip
"""Who does or gets something, or has an age, is somebody, where the word is no ordinary one: "ramesh dai lai"."""
_ROMAN_PLACED: Final = (
    re.compile(r"\b(?P<place>[A-Za-z]{3,20})\s+(?:ma\s+(?:baschhu|bas(?:ne|chu|dai)|ghar)|bata\s+(?:aayeko|aako|ayeko|boldai|lekhdai|hun?))\b", re.IGNORECASE),
    re.compile(r"\b(?:ghar|thegana|dera)\s*:?\s+(?P<place>[A-Za-z]{3,20})(?:\s*-?\s*\d{1,2})?\s*(?:ho\b|ma\b|[,.]|$)", re.IGNORECASE),
    re.compile(r"\b(?P<place>[A-Z][a-z]{2,20})\s*-\s*\d{1,2}(?=\s*,|\s+(?:Kathmandu|Nepal)|\s+ma\b|\.)"),
    re.compile(r"\b(?P<place>[A-Za-z]{3,20})\s+(?:jilla|nagarpalika|gaunpalika|gaupalika|tole?|chowk)\b", re.IGNORECASE),
    re.compile(r"\b(?P<place>[A-Z][a-z]{2,20})\s+(?:District|Municipality|Rural\s+Municipality|VDC|Tole|Chowk)\b"),
)  # fmt: skip
_ROMAN_HOSPITAL: Final = re.compile(
    r"(?<!\w)(?P<place>[A-Za-z]{3,20})\s+(?:aspatal|hospital)\s+(?:ma|bata|ko)\b", re.IGNORECASE
)
_COMMON: Final = DEVANAGARI_WORDS - AMBIGUOUS
_COMMON_ROMANISED: Final = (ROMANISED_WORDS | ROMANISED_ORDINARY) - AMBIGUOUS - NAME_WORDS
_MARKER: Final = re.compile(r"(?<=[\u0900-\u097f]{2})(?:हरूले|हरूलाई|हरू|लाई|सँग|संग|बाट|देखि|सम्म|को)$")
_TITLE: Final = re.compile(r"\b(?:dr|doctor|doc|prof|professor|nurse)\.?\s*(?:[A-Z][a-z]+\s+){0,2}$", re.IGNORECASE)


def dates(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield dates of Bikram Sambat, and dates in Devanagari."""
    for pattern in _DATES:
        for match in pattern.finditer(text):
            yield "date", *match.span("at" if "at" in pattern.groupindex else 0)


def numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield plates, and numbers that a Nepali label announces."""
    for pattern in _PLATES:
        for match in pattern.finditer(text):
            yield "vehiclePlate", *match.span()
    for kind, pattern in _NUMBER_PATTERNS:
        for match in pattern.finditer(text):
            yield kind, *match.span("value")


def names(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    """Yield names that are announced, or that the lists know; a caring person's after a title announces nobody."""
    if any("\u0900" <= character <= "\u097f" for character in text):
        yield from _devanagari_names(text, known)
    yield from _roman_names(text, known)


def places(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    """Yield places of Nepal, and what is said to be a place."""
    for match in _WORDS.finditer(text):
        stem = _stem(match[0], known.places)
        if stem in known.places and stem != _KNOWING:
            yield "place", match.start(), match.start() + len(stem)
    yield from _devanagari_placed(text, known)
    for match in _ROMAN_WORD.finditer(text):
        word = match[0].lower()
        if word in known.places and word not in ROMANISED_WORDS and (len(word) >= 6 or match[0][0].isupper()):
            yield "place", *match.span()
    for match in _ROMAN_HOSPITAL.finditer(text):
        word = match["place"].lower()
        if word not in ROMANISED_WORDS | ORDINARY and not is_ordinary_nepali(word):
            yield "place", *match.span("place")
    for pattern in _ROMAN_PLACED:
        for match in pattern.finditer(text):
            if match["place"].lower() not in ROMANISED_WORDS:
                yield "place", *match.span("place")


def _devanagari_placed(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    for pattern in _PLACED:
        for match in pattern.finditer(text):
            if pattern is _HOSPITAL and len(words := match["place"].split()) == 2 and words[0] in DEVANAGARI_WORDS:
                if words[1] not in DEVANAGARI_WORDS and not _NO_NAME_OF_A_HOSPITAL.search(words[1]):
                    yield "place", match.end("place") - len(words[1]), match.end("place")  # "म वीर अस्पताल"
                continue
            if (
                not DEVANAGARI_WORDS.intersection(match["place"].split())
                and not (pattern is _HOSPITAL and _NO_NAME_OF_A_HOSPITAL.search(match["place"]))
                and _stem(match["place"], known.places) not in DEVANAGARI_WORDS
            ):
                yield "place", *match.span("place")


def _devanagari_names(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    words = list(_WORDS.finditer(text))
    stems = [_stem(match[0], known.names) for match in words]
    for index, (match, stem) in enumerate(zip(words, stems, strict=True)):
        if stem not in known.names or _DOCTOR.search(text[max(0, match.start() - 24) : match.start()]):
            continue
        if stem in AMBIGUOUS and not _is_somebody(text, words, stems, index, known):
            continue
        if (
            index
            and _adjacent(text, words[index - 1], match)
            and _DOCTOR.search(text[max(0, words[index - 1].start() - 24) : words[index - 1].start()])
        ):
            continue
        yield "name", match.start(), match.start() + len(stem)
        # The other half of a name: before a surname, after a given name.
        steps = (-1, -2) if stem in known.surnames else (1, 2)
        for step in steps:
            other = index + step
            if not 0 <= other < len(words) or not _adjacent(
                text, *sorted((words[other], words[other - step // abs(step)]), key=lambda m: m.start())
            ):
                break
            half = _stem(words[other][0], known.names)
            if half in _COMMON or words[other][0] in _COMMON or (step > 0 and words[other - 1][0] != stems[other - 1]):
                break
            yield "name", words[other].start(), words[other].start() + len(half)
            if step < 0 and known.given & {half}:
                break
    for pattern in _ANNOUNCED:
        for match in pattern.finditer(text):
            if _THING.search(match["name"]):
                continue
            yield from _without_common(text, match.start("name"), match["name"], _COMMON, _WORDS)


def _roman_names(text: str, known: Gazetteer) -> Iterator[tuple[str, int, int]]:
    words = list(_ROMAN_WORD.finditer(text))
    for index, match in enumerate(words):
        word = match[0].lower()
        if (
            word not in known.names
            or word in ROMANISED_WORDS
            or REHYDRATION.match(text, match.start())
            or _TITLE.search(text[max(0, match.start() - 40) : match.start()])
        ):
            continue
        beside = [words[other] for other in (index - 1, index + 1) if 0 <= other < len(words)
                  and abs(words[other].start() - match.start()) < 24 and _adjacent(text, *sorted((words[other], match), key=lambda m: m.start()))]  # fmt: skip
        paired = any(other[0].lower() in known.names for other in beside)
        if match[0][0].isupper() or paired:
            yield "name", *match.span()
            for other in beside:
                if (
                    other[0][0].isupper()
                    and match[0][0].isupper()
                    and other[0].lower() not in ROMANISED_WORDS
                    and (other.start() < match.start()) == (word in known.surnames)
                    and _TITLE.search(text[max(0, other.start() - 24) : other.start()]) is None
                ):
                    yield "name", *other.span()
    for match in _ROMAN_MARKED.finditer(text):
        word = match["name"].lower()
        ordinary = word in ROMANISED_WORDS | ORDINARY or is_ordinary_nepali(word) or is_medicine(word)
        if word in NAME_WORDS or not ordinary:
            yield "name", *match.span("name")
    for pattern in _ROMAN_ANNOUNCED:
        for match in pattern.finditer(text):
            if _TITLE.search(match["name"] + " ") is None:
                yield from _without_common(text, match.start("name"), match["name"], _COMMON_ROMANISED, _ROMAN_WORD)


def _without_common(
    text: str, start: int, name: str, common: frozenset[str], words: re.Pattern[str]
) -> Iterator[tuple[str, int, int]]:
    for word in words.finditer(name):
        if word[0].lower() in common:
            continue
        # A marker that no surname ends with stays: "सुमनलाई"
        end = word.start() + len(_MARKER.sub("", word[0]))
        yield "name", start + word.start(), start + end


def _is_somebody(text: str, words: list[re.Match[str]], stems: list[str], index: int, known: Gazetteer) -> bool:
    """Tell whether a name that is an ordinary word ("आशा", hope) is somebody here: who does or has, or beside a surname."""
    if words[index][0][len(stems[index]) :] in ("ले", "लाई", "जी", "ज्यू"):
        return True
    return any(
        0 <= other < len(words)
        and stems[other] in known.names - AMBIGUOUS
        and _adjacent(text, *sorted((words[index], words[other]), key=lambda m: m.start()))
        for other in (index - 1, index + 1)
    )


def _stem(word: str, known: frozenset[str]) -> str:
    """Return a Devanagari word without its postposition, but for a name that ends like one."""
    if word in known:
        return word
    stem = _SUFFIX.sub("", word)
    return stem if len(stem) >= 2 else word


def _adjacent(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    """Tell whether nothing but a space stands between two words."""
    return (
        first.end() < second.start()
        and text[first.end() : second.start()].isspace()
        and "\n" not in text[first.end() : second.start()]
    )
