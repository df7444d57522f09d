"""Where somebody lives or can be reached: street addresses, postcodes, e-mail and network addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

_STREET: Final = re.compile(
    r"\b\d{1,5}[A-Za-z]?,?\s+(?:[A-Z][\w'-]{1,30}\s+){1,3}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Boulevard|Blvd|Court|Ct|Terrace|Close|Square|Crescent|Highway|Drive)\b"
)
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

_EMAIL: Final = re.compile(r"[\w.+%-]{1,64}\s?(?:@|\(at\)|\[at\])\s?[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_URL: Final = (
    re.compile(r"\b(?:https?|ftp)://\S+", re.IGNORECASE),
    re.compile(r"\bwww\.[\w-]+\.\S+", re.IGNORECASE),
    re.compile(r"(?<![@\w.-])[a-z0-9-]{2,63}\.(?:com|org|net|edu|gov|info|io|me|uk|de|in|np|ng)(?:/\S*)?(?![\w-])"),
)
_IPV4: Final = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)")
_IPV6: Final = re.compile(r"(?<![\w:])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:]+(?![\w:])")


def addresses(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield street addresses and post boxes."""
    for pattern in (_STREET, _BOX):
        for match in pattern.finditer(text):
            yield "address", *match.span()


def postcodes(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield American ZIP codes and British postcodes; five digits alone are a dose as often as a place."""
    for pattern in _POSTCODES:
        for match in pattern.finditer(text):
            yield "postcode", *match.span("code")


def online(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield e-mail addresses, web addresses and IP addresses."""
    for match in _EMAIL.finditer(text):
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
