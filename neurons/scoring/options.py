"""Which option an answer chooses: a letter that it states, or the one option whose words it says; else none.

Exact on purpose: an answer that chooses two options, or of which a reader could not say which it chooses, chooses none.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from neurons.invisible import visible
from neurons.scoring.phrases import normalise, says


class How(enum.StrEnum):
    """How a choice was read."""

    STATED = "Stated"
    """The answer says that a letter is its answer."""
    LETTER = "Letter"
    """The answer begins with a letter, or is one."""
    WORDS = "Words"
    """The answer is an option's words, or says those of one option and of no other."""
    SEVERAL = "Several"
    """It chooses more than one, so none."""
    NOTHING = "Nothing"
    """It chooses none that can be read."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """An option's letter, and how it was read; None for SEVERAL and NOTHING."""

    letter: str | None
    how: How


_MARKS: Final = re.compile(r"[*_`$]|\\boxed|\\text|[{}]")
"""Of Markdown and TeX around a letter."""
_END: Final = r"(?=[^\w\n]*(?:$|\n)|[).:,;\]]|\s+(?i:because|since|as|and|or)\b|\s*[-\u2013\u2014/&])"
_STATEMENTS: Final = (
    r"(?i:\b(?:answer|choice|(?:correct|right|best)\s+option)(?:\s+(?:is|would\s+be))?"
    r"(?:\s+(?:definitely|clearly|certainly|obviously|probably|most\s+likely|therefore|thus|indeed|still|simply))?)"
    r"[^\w\n]{{0,4}}(?i:option\s+)?[(\[]?([{letters}]){end}",
    r"(?<![\w'])([{letters}])[)\].]?\s+(?i:is\s+(?:the\s+)?(?:correct|right|best))\b",
)
_DENIED: Final = re.compile(
    r"(?i)\b(?:wrong|incorrect|mistaken|false|not[^\S\n]+(?:true|correct|right|the[^\S\n]+case))[^\S\n]+"
    r"(?:to[^\S\n]+(?:say|think|claim|believe|conclude|assume|answer|state)[^\S\n]+)?(?:that[^\S\n]+)?(?:(?:the|my|your|its)[^\S\n]+)?"
    r"(?:(?:correct|right|best|final)[^\S\n]+)?$"
)
"""Right before a statement: whoever says so denies it."""
_DENIED_WITHIN: Final = 80
_ALONE: Final = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:]?\s*")
"""One letter and nothing else is an answer also where it is small or wide; within a text "a" is a word."""
_LINE: Final = r"(?m)^[^\w\n]*(?i:option\s+)?([{letters}]){end}"
_NEXT: Final = r"\W{{0,2}}\s*(?:,|/|&|\band\b|\bor\b)\s*(?i:option\s+)?[(\[]?([{letters}]){end}"
_PLAIN: Final = frozenset({"yes", "no", "maybe", "true", "false", "none"})
"""Options that stand in any text: only an answer that begins with one, or says that it is the answer, chooses it."""


def read_option(answer: str, options: Mapping[str, str]) -> Chosen:
    """Return the option that an answer chooses; `options` are letters A to Z and what they stand for."""
    text = _MARKS.sub("", visible(answer))
    letters = "".join(sorted(options))
    if not letters:
        return Chosen(None, How.NOTHING)
    alone = _ALONE.fullmatch(unicodedata.normalize("NFKC", text))
    if alone is not None and (letter := alone[1].upper()) in options:
        return Chosen(letter, How.LETTER)
    said = frozenset(letter for pattern in _STATEMENTS for letter in _letters(pattern, text, letters))
    if said:
        return _one(said, How.STATED)
    begins = frozenset(_letters(_LINE, text, letters))
    if begins and re.match(_filled(_LINE, letters), text.lstrip()):
        return _one(begins, How.LETTER)
    words = normalise(text)
    if same := frozenset(letter for letter in letters if words and words == normalise(options[letter])):
        # "<50 degrees" and ">50 degrees" have the same words
        signs = _signs(text)
        return _one(frozenset(letter for letter in same if _signs(options[letter]) == signs) or same, How.WORDS)
    return _one(frozenset(letter for letter in letters if _says(text, words, options[letter])), How.WORDS)


def _signs(text: str) -> str:
    return " ".join(visible(text).casefold().split()).rstrip(".")


def _one(letters: frozenset[str], how: How) -> Chosen:
    if len(letters) == 1:
        return Chosen(next(iter(letters)), how)
    return Chosen(None, How.SEVERAL if letters else How.NOTHING)


def _filled(pattern: str, letters: str) -> str:
    return pattern.format(letters=letters, end=_END)


def _letters(pattern: str, text: str, letters: str) -> Iterator[str]:
    """Yield the letters that a pattern finds, and those that are joined to them ("A or B")."""
    following = re.compile(_filled(_NEXT, letters))
    for match in re.finditer(_filled(pattern, letters), text):
        if _DENIED.search(text[max(0, match.start() - _DENIED_WITHIN) : match.start()]):
            continue
        yield match[1]
        at = match.end()
        while (joined := following.match(text, at)) is not None:
            yield joined[1]
            at = joined.end()


def _says(text: str, words: list[str], option: str) -> bool:
    wanted = normalise(option)
    if not wanted:
        return False
    if _PLAIN.issuperset(wanted):
        told = (["answer", *wanted], ["answer", "is", *wanted])
        return words[: len(wanted)] == wanted or any(
            words[at : at + len(each)] == each for each in told for at in range(len(words))
        )
    return says(text, option)
