"""Where somebody lives or can be reached: street addresses, postcodes, e-mail and network addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

_STREET: Final = re.compile(
    r"\b\d{1,5}[A-Za-z]?,?\s+(?:[A-Z][\w'-]{1,30}\s+){1,3}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Boulevard|Blvd|Court|Ct|Terrace|Close|Square|Crescent|Highway|Drive|Dr|Way|Place|Pl"
    r"|Parkway|Pkwy|Circle|Cir|Trail|Row|Marg|Plaza|Alley|Loop|Path|Gardens|Grove|Hill|Mews|Walk)\b\.?"
    r"(?:,?\s*(?:Apt|Apartment|Suite|Unit|Flat|#)\.?\s*#?\w{1,6})?"
)
_LOWER_STREET: Final = re.compile(
    r"\b\d{1,5}[a-z]?,?\s+(?:[a-z][\w'-]{1,30}\s+){1,2}(?:street|avenue|road|lane|boulevard|crescent|marg)\b"
)
_NUMBERED: Final = (
    re.compile(r"\b\d{1,6}[A-Za-z]?,?\s+(?:[A-Z][\w'-]{1,30}\s+){1,4}(?:Suite|Apt|Apartment|Unit|Flat)\.?\s*#?\d\w{0,5}\b"),
    re.compile(r"\b(?i:lives?|living|reside[sd]?|stay(?:s|ing)?|moved|address|home)\s*(?i:at|to|is|:)\s*"
               r"(?P<at>\d{1,6}[A-Za-z]?,?\s+[A-Z][\w'-]{1,30}(?:\s+[A-Z][\w'-]{1,30}){0,3})"),
)  # fmt: skip
_ROOM: Final = re.compile(r"\b(?:apt|apartment|suite|flat)\.?\s*(?:no\.?\s*)?#?\d\w{0,4}\b", re.IGNORECASE)
# "Ward no 4, Lalitpur", "Tokha Municipality Ward 7"; a hospital's ward 7 alone says nothing
_WARD: Final = re.compile(
    r"\bward\s*(?:no\.?|number|num\.?|#)\s*[:-]?\s*\d{1,2}(?:\s*,\s*[A-Z][\w'-]{2,30})?\b"
    r"|(?:(?<=municipality)|(?<=palika)|(?<=nagarpalika)|(?<=metropolis)),?\s+ward\s*-?\s*\d{1,2}\b|\bward\s*-?\s*\d{1,2}\s*,\s*(?-i:[A-Z])[\w'-]{2,30}\b",
    re.IGNORECASE,
)
_DEVANAGARI_WARD: Final = re.compile(r"(?<!\w)(?:वडा|वार्ड)\s*(?:नं|नम्बर|न)?\.?\s*[:-]?\s*\d{1,2}(?!\d)")
_BOX: Final = re.compile(r"\bP\.?\s?O\.?\s?Box\s+\d+", re.IGNORECASE)

_STATES: Final = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA"
    "|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"
)
_POSTCODES: Final = (
    re.compile(r"\b(?:zip|postal|post)\s*-?\s*code\b\W{0,4}(?:is\s+)?(?P<code>[A-Z]{0,2}\d[\dA-Z -]{2,8})", re.I),
    re.compile(r"\bzip\b\W{0,4}(?:is\s+)?(?P<code>\d{5})", re.IGNORECASE),
    re.compile(rf"\b(?:{_STATES}),?\s+(?P<code>\d{{5}}(?:-\d{{4}})?)\b"),
    re.compile(r"(?<![\w-])(?P<code>\d{5}-\d{4})(?![\w-])"),
    re.compile(r"\b(?:live|living|lives|reside|moved|address|home)\b[^.!?\n]{0,40}?\b(?P<code>\d{5})\b(?!\s*(?:mg|iu|steps))",
               re.IGNORECASE),
    re.compile(r"\b(?P<code>[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2})\b"),
)  # fmt: skip

_INSTITUTION: Final = re.compile(
    r"\b(?P<name>[A-Z][\w'.-]{1,30}(?:[ ](?:of[ ]|the[ ])?[A-Z][\w'.-]{1,30}){0,4})"
    r"[ ](?:Hospital|Clinic|Infirmary|Hospice|Nursing[ ]Home|Medical[ ](?:Cent(?:er|re)|College)|Health[ ]?(?:Cent(?:er|re)|post|Post)"
    r"|Elementary|School|College|University|Care[ ]Home|Pharmacy|Polyclinic)\b"
)
_KINDS: Final = frozenset(
    [
        "a",
        "an",
        "the",
        "my",
        "our",
        "this",
        "that",
        "your",
        "his",
        "her",
        "their",
        "at",
        "in",
        "to",
        "from",
        "general",
        "teaching",
        "children's",
        "childrens",
        "eye",
        "public",
        "private",
        "district",
        "regional",
        "community",
        "mental",
        "university",
        "local",
        "city",
        "state",
        "national",
        "women's",
        "dental",
        "sleep",
        "pain",
        "fever",
        "walk-in",
        "medical",
        "eye",
        "cancer",
        "heart",
        "skin",
        "psychiatric",
        "veterans",
        "maternity",
        "emergency",
        "primary",
        "high",
        "middle",
        "law",
        "nursing",
        "online",
        "when",
        "is",
        "was",
        "after",
        "before",
        "on",
        "go",
        "see",
        "visit",
        "i",
        "if",
    ]
)

_EMAIL: Final = re.compile(r"[\w.+%-]{1,64}\s?(?:@|\(at\)|\[at\])\s?[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
# "gita dot thapa at gmail dot com", "bishnu_kc(at)yahoo(dot)com"
_SPELLED_AT: Final = r"(?:@|\s*[(\[{<]\s*at\s*[)\]}>]\s*|\s+at\s+)"
_SPELLED_DOT: Final = r"(?:\.|\s*[(\[{<]\s*dot\s*[)\]}>]\s*|\s+dot\s+)"
_SPELLED_EMAIL: Final = re.compile(
    rf"(?<![\w.])[\w+%-]{{1,64}}(?:{_SPELLED_DOT}[\w+%-]{{1,64}}){{0,3}}{_SPELLED_AT}[a-z0-9-]{{2,63}}"
    rf"(?:{_SPELLED_DOT}[a-z0-9-]{{2,63}}){{0,2}}{_SPELLED_DOT}(?:com|org|net|edu|gov|info|io|me|uk|de|in|np)\b",
    re.IGNORECASE,
)
# "s u n i t a @ gmail . com"
_SPACED_EMAIL: Final = re.compile(
    r"(?<!\w)(?:\w ){0,31}\w{1,64} ?@ ?(?:\w ){0,31}[\w-]{1,63} ?(?:\.|\bdot\b) ?(?:com|org|net|edu|gov|info|io|me|uk|de|in|np)\b",
    re.IGNORECASE,
)
_URL: Final = (
    re.compile(r"\b(?:https?|ftp)://\S+", re.IGNORECASE),
    re.compile(r"\bwww\.[\w-]+\.\S+", re.IGNORECASE),
    re.compile(r"(?<![@\w.-])[a-z0-9-]{2,63}\.(?:com|org|net|edu|gov|info|io|me|uk|de|in|np|ng)(?:/\S*)?(?![\w-])"),
)
_IPV4: Final = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)")
_IPV6: Final = re.compile(r"(?<![\w:])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}(?![\w:])")


def addresses(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield street addresses and post boxes."""
    for pattern in (_STREET, _LOWER_STREET, *_NUMBERED, _ROOM, _BOX, _WARD, _DEVANAGARI_WARD):
        for match in pattern.finditer(text):
            yield "address", *match.span("at" if "at" in pattern.groupindex else 0)


def institutions(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield named hospitals, clinics, schools and employers; a kind of hospital ("the General Hospital") is none."""
    for match in _INSTITUTION.finditer(text):
        words = match["name"].split()
        while words and words[0].lower() in _KINDS:
            words = words[1:]
        if any(word.lower() not in _KINDS for word in words):
            yield "place", match.end("name") - len(" ".join(words)), match.end()


def postcodes(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield American ZIP codes and British postcodes; five digits alone are a dose as often as a place."""
    for pattern in _POSTCODES:
        for match in pattern.finditer(text):
            yield "postcode", *match.span("code")


def online(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield e-mail addresses, web addresses and IP addresses."""
    for pattern in (_EMAIL, _SPELLED_EMAIL, _SPACED_EMAIL):
        for match in pattern.finditer(text):
            yield "email", *match.span()
    for pattern in _URL:
        for match in pattern.finditer(text):
            yield "url", *match.span()
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if _is_address(match[0]):
                yield "ipAddress", *match.span()


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return len(value) > 3
