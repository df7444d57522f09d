"""What is said to anybody rather than of somebody: numbers of help lines, and hospitals that somebody is sent to.

Where a patient was treated identifies the patient, and so may a telephone number: in doubt either is taken out. A hospital
passes only in an instruction ("Go to Bir Hospital"), in a sentence in which nobody was, went or has; a bare town passes only
as where a vaccine, an antivenom or the like is to be had. A number passes only right behind the name of a public line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from neurons.privacy.gazetteer import Gazetteer

Found = tuple[str, int, int]

_LINE: Final = (
    r"(?:poison(?:s|ing)?\s+(?:information|control|help)(?:\s+(?:cent(?:re|er)|line|service))?|help\s?-?lines?|hot\s?-?lines?|crisis\s+(?:line|cent(?:re|er))|suicide\s+prevention(?:\s+line)?"
    r"|samaritans|lifeline|childline|ambulance|fire\s+brigade|toll[\s-]free(?:\s+number)?|हेल्पलाइन|हटलाइन|एम्बुलेन्स|विष\s+सूचना\s+केन्द्र|आत्महत्या\s+रोकथाम)"
)
_BETWEEN: Final = r"(?:[\s:=,(–-]|(?:is|are|on|at|number|no\.?|line|cent(?:re|er)|service|phone|tel\.?|telephone|dial|ring|call|free|nepal|the|or|of|ko|ma|number\s+ho)\b|नम्बर|मा|को|हो){0,12}"
_NUMBER: Final = r"\+?\d[\d\s().-]{1,16}\d(?![\w-])"
_LINES: Final = re.compile(
    rf"(?<!\w){_LINE}{_BETWEEN}(?P<at>{_NUMBER}(?:\s*(?:,|/|or|and)\s*{_NUMBER})?)", re.IGNORECASE
)

_NAME: Final = r"(?:the\s+)?[A-Z][\w-]{1,30}(?:(?:['’]s)?\s+(?:of\s+)?[A-Z][\w-]{1,30}){0,5}"
_LIST: Final = rf"(?P<at>{_NAME}(?:(?:\s*,|\s*/)?\s*(?:(?:and|or|in)\s+)?{_NAME}){{0,8}})(?!['’\w-])"
_WHOM: Final = (
    r"(?:\s+(?:him|her|them|it|(?:the|your|this|that)\s+(?:patient|child|baby|mother|father|boy|girl|man|woman)))?"
)
_INSTRUCTED: Final = re.compile(
    r"(?:^\s*|[.!?;:,\n]\s*|\b(?i:please|then|and|or|should|must|can|may|also|now|so)\s+)"
    rf"(?i:go|rush|hurry|get|come|travel|take|bring|send|refer|transfer|shift|visit|report|call|contact|admit){_WHOM}(?i:\s+(?:straight|directly|at\s+once|now|today|immediately|urgently|quickly)){{0,2}}"
    rf"\s+(?i:(?:to|at|in)\s+)?{_LIST}",
    re.MULTILINE,
)
_TO_BE_HAD: Final = re.compile(
    r"\b(?i:vaccines?|vaccination|anti-?ven(?:om|in)s?|ASV|sera|serum|immunoglobulins?|antidotes?|dialysis)\b(?:\s+[a-z-]+){0,4}?\s+(?:is|are|can\s+be)"
    rf"(?:\s+[a-z-]+){{0,5}}?\s+(?:at|in|from)\s+{_LIST}"
)
_INSTITUTION: Final = re.compile(
    r"\b(?:Hospital|Clinic|Infirmary|Centre|Center|College|Institute|Academy|Post|TUTH|BPKIHS|NAMS|Sukraraj)\b"
)
_GOES_ON: Final = re.compile(r"(?:(?:['’]s)?\s+[A-Z][\w-]+){0,3}(?:['’]s)?\s+(?:Hospital|(?i:aspatal)|अस्पताल)")
_NEPALI: Final = (
    re.compile(r"\b(?P<at>[A-Z][a-z]{1,30}(?:\s+[A-Z][a-z]{1,30}){0,2}\s+(?i:aspatal|hospital))(?:\s+ma)?\s+(?:turunta\s+)?(?:janu|januhos|janus|jaanu|lanu|lanuhos|lagnu|laijanu|laijanuhos|pathaunu|dekhaunu)\b"),
    re.compile(r"\b(?i:asv|khop|vaccine|antivenom|sirum)\s+(?P<at>[A-Z][a-z]{1,30}(?:(?:,| ra| wa)?\s+[A-Z][a-z]{1,30}){0,4}(?:\s+(?i:aspatal|hospital))?)\s+ma\s+pa(?:i|yi|ii)n\w+"),
    re.compile(r"(?P<at>(?<![\u0900-\u097f])[\u0900-\u097f]{1,30}(?:\s+[\u0900-\u097f]{1,30})?\s+(?:अस्पताल|हस्पिटल))(?:मा)?\s+(?:तुरुन्त\s+)?(?:जानुहोस्|जानू|जाने|लैजानुहोस्|लैजाने|लानुहोस्|लग्नुहोस्|पठाउनुहोस्|पठाउने)"),
    re.compile(r"(?P<at>(?:खोप|भ्याक्सिन|एन्टिभेनम|सिरम)\s+[\u0900-\u097f]{1,30}(?:(?:,|\s+र)?\s+[\u0900-\u097f]{1,30}){0,4}?)(?:मा|\s+मा)\s+(?:पाइन्छ|उपलब्ध)"),
)  # fmt: skip
_SOMEBODY: Final = re.compile(
    r"\bI\b|\b(?i:i'm|i've|we|my|our|me|us|he|she|they|his|was|were|had|has|have|been|did|went|told|said|admitted|treated|seen|born|works?|lives?|yesterday|ago|last|used)\b"
    r"|(?<![\u0900-\u097f])(?:म|मेरो|मलाई|मैले|हामी|हाम्रो|उनी|उनको|उसको|गएको|गएँ|गयो|थियो|थिएँ|भएको|भयो|आएको|हिजो)(?![\u0900-\u097f])|\b(?i:ma|mero|malai|maile|hami|hamro|usko|unko|gayo|gaeko|gako|thiyo|thiye|bhayo|hijo)\b(?!\s+pa)"
)
"""In a sentence with one of these somebody may have been there."""
_SENTENCE: Final = re.compile(r"[^.!?।\n]*[.!?।\n]?")


def without_advice(text: str, found: Iterable[Found], known: Gazetteer) -> Iterator[Found]:
    """Yield what is found but for what is advice."""
    lines = [match.span("at") for match in _LINES.finditer(text)]
    hospitals = list(_hospitals(text))
    for kind, start, end in found:
        if kind in ("phone", "recordNumber") and any(begin <= start and end <= stop for begin, stop in lines):
            continue
        if any(begin <= start and end <= stop for begin, stop in hospitals) and (
            kind == "place" or (kind == "name" and _is_of_a_hospital(text, start, end, known))
        ):
            continue
        yield kind, start, end


def _hospitals(text: str) -> Iterator[tuple[int, int]]:
    for sentence in _SENTENCE.finditer(text):
        said = sentence[0]
        matches = [
            (match, pattern is _INSTRUCTED)
            for pattern in (_INSTRUCTED, _TO_BE_HAD, *_NEPALI)
            for match in pattern.finditer(said)
        ]
        for match, instructed in matches:
            if instructed and not _INSTITUTION.search(match["at"]):
                continue
            if _SOMEBODY.search(said[: match.start("at")]) or _SOMEBODY.search(said[match.end() :]):
                continue
            yield sentence.start() + match.start("at"), sentence.start() + match.end("at")


def _is_of_a_hospital(text: str, start: int, end: int, known: Gazetteer) -> bool:
    """Tell whether what a model takes for a person is a town or a hospital of the lists, or stands before "Hospital"."""
    words = text[start:end].lower().split()
    return all(word in known.places or _INSTITUTION.fullmatch(word.title()) for word in words) or bool(
        _GOES_ON.match(text[end : end + 80])
    )
