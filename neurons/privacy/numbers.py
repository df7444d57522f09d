"""Dates more exact than the year, telephone numbers, and the numbers that offices and makers give out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_MONTH: Final = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR: Final = r"(?:19|20)\d\d"
_DATES: Final = (
    re.compile(rf"\b{_YEAR}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b"),
    re.compile(rf"\b(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:{_YEAR}|\d\d)\b"),
    re.compile(rf"\b{_DAY}\s*(?:of\s+)?{_MONTH}\b(?:\.?,?\s+{_YEAR}\b)?(?!\s+\d+\s*(?:mg|ml|times|%))", re.IGNORECASE),
    re.compile(rf"\b{_DAY}[-/.]{_MONTH}(?:[-/.'](?:{_YEAR}|\d\d))?\b", re.IGNORECASE),
    re.compile(rf"\b{_MONTH}\.?\s+{_DAY}\b(?:,?\s+{_YEAR}\b)?(?!\s*(?:mg|ml|times|%|hours|minutes|days|weeks|tablets|to\b))"),
    re.compile(rf"\b{_MONTH}\.?,?\s+{_YEAR}\b", re.IGNORECASE),
    re.compile(rf"\b(?i:in|since|until|till|last|next|this|of|from|during|before|after)\s+{_MONTH}\b(?!\s+(?i:be|have|help))"),
    re.compile(r"\b(?:on|dated?)\s+(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])\b", re.IGNORECASE),
    re.compile(rf"\b(?:born|birthday|date\s+of\s+birth|dob)\b[^.!?\n]{{0,20}}?\b(?P<at>{_DAY})\b(?!\s*(?:weeks|months|years))",
               re.IGNORECASE),
)  # fmt: skip

_PHONE: Final = re.compile(r"(?<![\w.])(?:\+|\(\+?)?\d(?:[\s().-]{0,3}\d){6,14}(?!\w|[.]\d)")
# A Nepali mobile's ten digits, however they are grouped: "98 41 23 45 67"
_MOBILE: Final = re.compile(
    r"(?<![\w.])(?=9(?:[ .-]?8[ .-]?[0124568]|[ .-]?7[ .-]?[0-6]|[ .-]?6[ .-]?[12]))9(?:[ .-]?\d){9}(?![\w]|[.]\d)"
)
_DECIMAL: Final = re.compile(r"\d+[.,]\d+")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:[ ,]\d{3})+")
# Nine digits by spaces are a telephone number, unless they are round.
_THREE_BY_THREE: Final = re.compile(r"[1-9]\d\d \d{3} (?!000)\d{3}")
# Help lines are nobody's own number.
_TOLL_FREE: Final = re.compile(
    r"(?:\+?1)?8(?:00|33|44|55|66|77|88)\d{7}|0?80[08]\d{4,7}|(?:00|\+)?800\d{7,8}|1660\d{5,7}"
)

_SSN: Final = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}[- ](?!00)\d{2}[- ](?!0000)\d{4}(?![\w-])")
_LABELLED_SSN: Final = re.compile(
    r"\b(?:ssn|social\s+security)\b[^.!?\n\d]{0,20}(?P<value>\d[\d -]{3,12})", re.IGNORECASE
)

_VALUE: Final = r"(?P<value>(?=[\w/-]{0,30}\d)[A-Z0-9][A-Z0-9/-]{3,30})\b"
_LINK: Final = r"\b\s*(?:no\.?|number|num\.?|nr\.?|id|code|#)?\s*(?:is|was|:|=|#)?\s*"
# After a word that medicine uses for other things too, only what is said to be a number counts: "in case 1000 mg".
_NUMBER_LINK: Final = r"\b\s*(?:serial\s+)?(?:(?:no\.?|number|num\.?|nr\.?|id|code)\s*(?:is|was|:|=|#)?|[:#])\s*"
_LABELLED: Final = (
    ("recordNumber", re.compile(
        r"\b(?:mrn|medical\s+record|health\s+record|insurance|policy|nhs|medicare|medicaid|health\s+plan|passport"
        rf"|national\s+id|accession|iban)s?{_LINK}{_VALUE}", re.IGNORECASE)),
    ("recordNumber", re.compile(
        r"\b(?:hospital|patient|chart|case|record|member|membership|account|claim|beneficiary|identity|specimen|card)"
        rf"{_NUMBER_LINK}{_VALUE}", re.IGNORECASE)),
    ("licenceNumber", re.compile(
        rf"\b(?:driv\w+\s+licen[cs]e|dea|npi){_LINK}{_VALUE}", re.IGNORECASE)),
    ("licenceNumber", re.compile(
        rf"\b(?:licen[cs]e|certificate|certification){_NUMBER_LINK}{_VALUE}", re.IGNORECASE)),
    ("vehiclePlate", re.compile(
        r"\b(?:(?:licen[cs]e|number|car|vehicle)\s+plate|registration|my\s+car)" + _LINK +
        r"(?P<value>(?=[A-Z0-9 -]{0,10}\d)[A-Z0-9]{2,4}[- ]?[A-Z0-9]{2,4}(?:[- ]?[A-Z0-9]{1,4})?)\b", re.IGNORECASE)),
    ("deviceSerial", re.compile(rf"\b(?:serial|s/n|udi|imei){_LINK}{_VALUE}", re.IGNORECASE)),
    ("deviceSerial", re.compile(
        rf"\b(?:device|implant|pacemaker|pump|monitor|sensor|model){_NUMBER_LINK}{_VALUE}", re.IGNORECASE)),
)  # fmt: skip
_FILES: Final = (
    # what money is sent by; people write the wallet's name alone
    ("recordNumber", re.compile(
        r"\b(?:e-?sewa|khalti|fonepay|ime\s*pay|connect\s*ips|paypal|upi|paytm|bank|a/c|iban)\s*(?:account|wallet|id|no\.?|number|num\.?|#)?\s*(?:is|ho|:|=)?\s*"
        r"(?P<value>\d[\d-]{4,20}\d)\b", re.IGNORECASE)),
    ("recordNumber", re.compile(
        r"\b(?:file|chart|case|record|record'?s|patient|hospital|mrn|member|membership|account|acct|policy|claim|invoice|bill|opd|ipd|visit"
        r"|encounter|registration|reg|booking|appointment|reference|ref|ticket|specimen|sample|lab|card|bed\s*card|citizenship|voter|pan"
        r"|student|employee|study|subscriber|group|beneficiary|medicare|medicaid|health\s*card|token)"
        r"\s*(?:id|no\.?|number|num\.?|nr\.?|#)(?!\w)[\s:=…#.,\-–]{0,8}(?:(?:is|was|it'?s|that'?s|uh|um|er|hmm|let\s+me\s+see|i\s+think)\b[\s:=…,.\-–]{0,8}){0,3}"
        r"(?P<value>(?=[\w/-]{0,30}\d)[A-Z0-9][A-Z0-9/-]{2,30}(?:[ -]\d{2,6}){0,4})", re.IGNORECASE)),
    # as clinics write them: "IP no 78-2231", "Reg 2024/11873", "MRN0048812", "bed no 14B", "room 302"
    ("recordNumber", re.compile(
        r"\b(?:ip|op|uhid|hn|regd?|hosp(?:ital)?|cr|er|lab|slip)\b\.?\s*(?:no|num|number|id|#)?\.?\s*[:#.=-]{0,2}\s*"
        r"(?P<value>(?=[\d/-]{0,30}\d{3})\d{1,6}(?:[/-]\d{1,8}){1,3}|(?<=[:#])\s?\d{4,}|(?<=no )\d{4,}|(?<=no\. )\d{4,})\b", re.IGNORECASE)),
    ("recordNumber", re.compile(r"\b(?:ticket|slip|token|coupon)\s+(?P<value>[A-Z]?-?\d{3,10})\b", re.IGNORECASE)),
    ("recordNumber", re.compile(r"\b(?P<value>(?:MRN|UHID|HN|IPN|OPN|REG)[-#]?\d{4,12})\b", re.IGNORECASE)),
    ("recordNumber", re.compile(
        r"\b(?:bed|cabin|room)\s*(?:(?:no\.?|number|num\.?|#)\s*[:=-]?\s*(?P<value>[A-Z]?-?\d{1,4}[A-Z]?)\b)", re.IGNORECASE)),
    # Without "no" it may be a length: "raise the bed 15 cm".
    ("recordNumber", re.compile(r"\b(?:bed|cabin|room)\s+(?P<value>\d{1,4}[A-Z]?)(?=\s*(?:[,;)\n]|\.(?!\d)|$))", re.IGNORECASE)),
    ("deviceSerial", re.compile(
        r"\b(?:serial|s/n|sn|imei|udi|lot|device\s+id|implant\s+id|pacemaker|defibrillator|icd|pump|cgm|sensor|hearing\s+aid|stent|prosthesis|valve)"
        r"(?:\s+(?:serial|id|no\.?|number|num\.?|#|lot)){1,3}[\s:=…#.,\-–]{0,6}(?:(?:is|was|reads|says)\b[\s:=…,.-]{0,6})?"
        r"(?P<value>(?=[\w/-]{0,30}\d)[A-Z0-9][A-Z0-9/-]{3,30})", re.IGNORECASE)),
    ("vehiclePlate", re.compile(
        r"\b(?:plate|plates|licen[cs]e\s+tag|number\s*plate|registration)\b\s*(?:(?:(?:no|number|was|is|reads?|said|says)\b\.?|[#:])\s*){0,3}[:#]?\s*"
        r"(?P<value>(?=[A-Z0-9 •·-]{0,12}\d)(?-i:[A-Z0-9]){1,8}(?:[ •·-](?-i:[A-Z0-9]){1,8}){0,3})\b", re.IGNORECASE)),
    ("biometricOrPhoto", re.compile(
        r"(?<![\w/])(?P<value>[\w-]{1,60}\.(?:jpe?g|png|heic|heif|gif|bmp|tiff?|webp|dcm|mov|mp4|wav|m4a))(?!\w)", re.IGNORECASE)),
    ("biometricOrPhoto", re.compile(
        r"\b(?:finger\s*print|iris|retina|retinal|palm|voice\s*print|face|facial|biometric|genome|dna)\s*(?:scan|template|print|profile|sample)?"
        r"\s*(?:id|no\.?|number|code|hash|#)\s*(?:is|was|:|=)?\s*(?P<value>(?=[\w/-]{0,40}\d)[A-Z0-9][\w/-]{3,40})", re.IGNORECASE)),
    ("url", re.compile(r"(?<![\w.@/])(?P<value>@[A-Za-z][\w.]{2,30}\d?)(?![\w@])")),
    ("phone", re.compile(
        r"\b(?:fax|desk|phone|tel|telephone|mobile|cell|whatsapp|viber|call(?:\s+me)?(?:\s+(?:at|on))?|ring|text)\s*(?:no\.?|number|#)?\s*(?:is|:|=|at|on)?\s*"
        r"(?P<value>(?!8(?:00|33|44|55|66|77|88)\b)\+?\d[\d\s().-]{4,18}\d)(?:\s*(?:ext\.?|x)\s*\d{1,6})?", re.IGNORECASE)),
    ("phone", re.compile(r"(?<![\w.])(?P<value>\(?\d{3}\)?[-. ]?\d{3}[-. ]\d{4}\s?(?:x|ext\.?\s?)\d{1,6})\b", re.IGNORECASE)),
)  # fmt: skip
_BARE: Final = (
    ("vehiclePlate", re.compile(r"\b[A-Z]{2}\d{2}\s[A-Z]{3}\b")),
    ("vehiclePlate", re.compile(r"\b(?=[A-Z0-9]{0,16}\d)(?=[A-Z0-9]{0,16}[A-Z])[A-HJ-NPR-Z0-9]{17}\b")),
    ("licenceNumber", re.compile(r"\b[A-HJ-NPR-U][A-Z9]\d{7}\b")),
    ("deviceSerial", re.compile(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b")),
    ("recordNumber", re.compile(r"(?<![\w.+-])\d{8,}(?![\w-])")),
    ("recordNumber", re.compile(r"(?<![\w.-])\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-])")),
)  # fmt: skip


def dates(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield dates that say more than the year. Weekdays and times of day name no date."""
    for pattern in _DATES:
        for match in pattern.finditer(text):
            yield "date", *match.span("at" if "at" in pattern.groupindex else 0)


def labelled(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the numbers that stand right behind what they are."""
    for kind, pattern in _LABELLED:
        for match in pattern.finditer(text):
            yield kind, *match.span("value")


def numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield telephone and social security numbers, and what a number's form alone tells."""
    for match in _PHONE.finditer(text):
        if _is_phone(match[0]):
            yield "phone", *match.span()
    for match in _MOBILE.finditer(text):
        yield "phone", *match.span()
    for match in _SSN.finditer(text):
        yield "socialSecurityNumber", *match.span()
    for match in _LABELLED_SSN.finditer(text):
        yield "socialSecurityNumber", *match.span("value")
    for kind, pattern in _BARE:
        for match in pattern.finditer(text):
            yield kind, *match.span()


def files(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield what a spoken label announces, with words between them, and pictures, handles and prints of a body."""
    for kind, pattern in _FILES:
        for match in pattern.finditer(text):
            value = match["value"]
            digits = re.sub(r"\D", "", value)
            if kind == "phone" and (len(digits) < 6 or _TOLL_FREE.fullmatch(digits) or _DECIMAL.fullmatch(value)):
                continue
            yield kind, *match.span("value")


def _is_phone(value: str) -> bool:
    digits = re.sub(r"\D", "", value)
    groups = re.findall(r"\d+", value)
    if (
        _TOLL_FREE.fullmatch(digits)
        or (_THOUSANDS.fullmatch(value) and not _THREE_BY_THREE.fullmatch(value))
        or _DECIMAL.fullmatch(value)
    ):
        return False
    # "2 3 4 5 6 7 8" is a list; a telephone number has at least one longer group and not many groups.
    return max(map(len, groups)) >= 3 and len(groups) <= 6 and not re.fullmatch(r"(?:19|20)\d\d\D+(?:19|20)\d\d", value)
