"""Reads which series and labels a PromQL expression asks for. Whether it is PromQL at all is promtool's to say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bettertherapy_api.metrics.contract import EXPOSED, TARGET_LABELS

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>\d[\w.]*)|(?P<variable>\$\w+|\$\{[^}]*\})"""
    r"""|(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)|(?P<sign>=~|!~|!=|>=|<=|==|.)""",
    re.DOTALL,
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


@dataclass(frozen=True)
class Asked:
    """What an expression asks for."""

    series: dict[str, frozenset[str]]
    """Labels that each series is selected by."""
    listed: frozenset[str]
    """Labels that it is grouped or joined by."""
    made: frozenset[str]
    """Labels that the expression itself puts on (label_replace)."""


def asked(expression: str) -> Asked:
    """Read an expression."""
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(expression) if not match[0].isspace()]
    series: dict[str, frozenset[str]] = {}
    listed: set[str] = set()
    made: set[str] = set()
    at = 0
    while at < len(tokens):
        group, word = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if group == "name" and word in _LISTS:
            if following == "(":
                inside, at = _until(tokens, at + 2, ")")
                listed |= {text for kind, text in inside if kind == "name"}
        elif group == "name" and following == "(":
            if word == "label_replace":
                made |= set(re.findall(r'label_replace\(.*?,\s*"(\w+)"', expression, re.DOTALL))
        elif group == "name" and following in {"by", "without"}:
            pass  # an operator of aggregation, with its list before its argument
        elif group == "name" and word.lower() not in _WORDS:
            selected: frozenset[str] = frozenset()
            if following == "{":
                inside, at = _until(tokens, at + 2, "}")
                signs = {"=", "!=", "=~", "!~"}
                selected = frozenset(
                    text for (kind, text), (_, sign) in pairwise(inside) if kind == "name" and sign in signs
                )
            series[word] = series.get(word, frozenset()) | selected
        elif word == "[":
            _, at = _until(tokens, at + 1, "]")
        at += 1
    return Asked(series, frozenset(listed), frozenset(made))


def _until(tokens: list[tuple[str, str]], start: int, end: str) -> tuple[list[tuple[str, str]], int]:
    at = start
    while tokens[at][1] != end:
        at += 1
    return tokens[start:at], at


def faults(expression: str) -> Iterator[str]:
    """Yield what of an expression the contract doesn't have."""
    found = asked(expression)
    if not found.series:
        yield f"no series in {expression!r}"
    known = set(TARGET_LABELS) | found.made | {"le"}
    for name, selected in found.series.items():
        labels = EXPOSED.get(name)
        if labels is None:
            yield f"no series {name}"
            continue
        yield from (f"{name} has no label {label}" for label in sorted(selected - labels - set(TARGET_LABELS)))
        known |= labels
    yield from (f"no label {label} on any of {sorted(found.series)}" for label in sorted(found.listed - known))
