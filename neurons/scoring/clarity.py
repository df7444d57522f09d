"""How clear an answer is, beside whether it is right: each part by itself, with its evidence, and never one sum.

Readability is the Flesch-Kincaid grade (Kincaid, Fishburne, Rogers and Chissom 1975, Research Branch Report 8-75), the
years of US schooling that a text takes. It holds for English and for nothing else; and it counts letters, not sense:
short sentences that are wrong read very easily. So clarity stands beside correctness and makes up for none of it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from neurons.invisible import visible

GRADE_FOR_PATIENTS: Final = 8.0
"""What health information for the public should stay below: NIH says 7 to 8, AMA 6."""
HARDEST: Final = 16.0
"""A university degree: nothing above it is any harder for patients."""
MIN_WORDS: Final = 30
"""Fewer give a grade that one long word moves by years."""
SHORTEST, LONGEST = 0.4, 2.5
"""Of the length that is needed, what is neither too short nor too long."""
COMMUNICATION: Final = "axis:communication_quality"
"""HealthBench's tag for it."""


class Measure(enum.StrEnum):
    """What was measured."""

    READABILITY = "Readability"
    LENGTH = "Length"
    COMMUNICATION = "Communication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of clarity; `value` is None where it isn't measured, and then `message` says why."""

    measure: Measure
    value: float | None
    """0 to 1."""
    message: str
    evidence: Mapping[str, float]
    """The numbers that it was computed from, by name."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a text holds; numbers and signs are no words."""

    sentences: int
    words: int
    syllables: int

    @property
    def grade(self) -> float:
        """Return the Flesch-Kincaid grade. Raises ValueError for a text without words."""
        if not self.words or not self.sentences:
            raise ValueError("a text without words has no grade")
        return 0.39 * self.words / self.sentences + 11.8 * self.syllables / self.words - 15.59

    @property
    def ease(self) -> float:
        """Return the Flesch reading ease (Flesch 1948): 100 is very easy, 0 very hard. Raises ValueError."""
        if not self.words or not self.sentences:
            raise ValueError("a text without words has no reading ease")
        return 206.835 - 1.015 * self.words / self.sentences - 84.6 * self.syllables / self.words


def measure_clarity(answer: str, *, language: str, needed: str | None = None,
                    scores: Mapping[str, float] | None = None) -> Sequence[Part]:  # fmt: skip
    """Measure an answer.

    Args:
        answer: what the patient reads, Markdown or plain.
        language: its language, as whoever asked for it knows it ("en", "ne"); it isn't guessed.
        needed: an answer of the length that is needed, such as a gold answer or a doctor's.
        scores: HealthBench's scores of the answer (`score_judged`).
    """
    return (_readability(answer, language), _length(answer, needed), _communication(scores))


def count(text: str) -> Counts:
    """Count a text's sentences, words and syllables, as far as rules can: within some percent for English."""
    plain = _plain(text)
    sentences = [words for part in _SENTENCE.split(plain) if (words := _WORD.findall(part))]
    words = [word for each in sentences for word in each]
    return Counts(len(sentences), len(words), sum(syllables(word) for word in words))


def syllables(word: str) -> int:
    """Return how many syllables an English word has: groups of vowels, mended by rules; ECG is spelled out.

    After Fast's Lingua::EN::Syllable (CPAN), with rules of ours for endings.
    """
    low = _OTHER.sub("", word.casefold())
    if (known := _KNOWN.get(low) or _KNOWN.get(low.removesuffix("s"))) is not None:
        return known
    if word.isupper() and 1 < len(word) <= _SPELLED:
        return sum(3 if each == "W" else 1 for each in word if each.isalpha())
    stem = _SILENT.sub("", low)
    vowels = len(re.findall(r"[aeiouy]+", stem))
    more = sum(each.search(stem) is not None for each in _MORE)
    return max(1, vowels + more - sum(each.search(low) is not None for each in _LESS))


_SPELLED: Final = 5
_OTHER: Final = re.compile(r"['\u2019].*$|[^a-z]")
_SILENT: Final = re.compile(
    r"(?<=[^aeioudt])ed$|(?<=[^aeioucsxzgh])es$|e$|(?<=[^aeiouyl])e(?=(?:ment|ful|less|ness)s?$)"
)
"""Endings, and an e before one, that are written and not said."""
_MORE: Final = tuple(re.compile(each) for each in (
    r"ia", r"riet", r"dien", r"iu", r"io", r"ii", r"[aeiou]{3}", r"^mc", r"ism$", r"[^aeiouyrlw]l$", r"[^l]lien",
    r"^coa[dglx].", r"[^gq]ua[^auieo]", r"dnt$", r"(?<![aeiou])[aeouy]ing$",
))  # fmt: skip
_LESS: Final = tuple(re.compile(each) for each in (
    r"cial", r"tia", r"cius", r"[ctxg]ious", r"giu", r"ion", r"iou", r"sia$", r".ely$", r"[cl]ian",
))  # fmt: skip
_KNOWN: Final[Mapping[str, int]] = {
    "acne": 2, "ache": 1, "aids": 1, "anxiety": 4, "area": 3, "business": 2, "covid": 2, "create": 2, "diabetes": 4,
    "diarrhea": 4, "diet": 2, "every": 2, "everything": 3, "fluid": 2, "headache": 2, "idea": 3, "nausea": 3,
    "recipe": 3, "safety": 2, "science": 2, "somebody": 3, "someone": 2, "something": 2, "sometimes": 2,
    "stomachache": 3, "suicide": 3, "therefore": 2,
}  # fmt: skip
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE: Final = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)[.!?]+(?=[\s\"')\]]|$)|\n+|[:;](?=\s)"
)
_LINK: Final = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)|https?://\S+")
_MARKS: Final = re.compile(r"^[ \t]*(?:[-*+>]|#{1,6}|\d+[.)])[ \t]+|[*_`|]+", re.MULTILINE)
_LATIN: Final = re.compile(r"[A-Za-z\u00c0-\u024f]")


def _plain(text: str) -> str:
    """Return a text without Markdown's marks and addresses; a line that ends, ends a sentence."""
    return _MARKS.sub("", _LINK.sub(lambda found: found[1] or "", visible(text)))


def _readability(answer: str, language: str) -> Part:
    if language != "en":
        return _unmeasured(Measure.READABILITY, f"not measured: there is no formula that is valid for {language!a}")
    plain = _plain(answer)
    letters = [each for each in plain if each.isalpha()]
    if letters and sum(_LATIN.match(each) is not None for each in letters) < 0.9 * len(letters):
        return _unmeasured(Measure.READABILITY, "not measured: it isn't written in English")
    counts = count(answer)
    evidence = {"sentences": counts.sentences, "words": counts.words, "syllables": counts.syllables}
    if counts.words < MIN_WORDS:
        return _unmeasured(Measure.READABILITY, f"not measured: under {MIN_WORDS} words a grade says little", evidence)
    grade = counts.grade
    value = min(1.0, max(0.0, (HARDEST - grade) / (HARDEST - GRADE_FOR_PATIENTS)))
    return Part(measure=Measure.READABILITY, value=value, message=f"Flesch-Kincaid grade {grade:.1f}",
                evidence=evidence | {"grade": grade})  # fmt: skip


def _length(answer: str, needed: str | None) -> Part:
    said = len(visible(answer).split())
    if needed is None or not (need := len(visible(needed).split())):
        return _unmeasured(Measure.LENGTH, "not measured: nothing says how long an answer is needed", {"words": said})
    ratio = said / need
    evidence = {"words": said, "needed": need, "ratio": ratio}
    if ratio < SHORTEST:
        return Part(measure=Measure.LENGTH, value=ratio / SHORTEST, evidence=evidence,
                    message=f"short: {said} words where {need} were needed")  # fmt: skip
    if ratio > LONGEST:
        return Part(measure=Measure.LENGTH, value=LONGEST / ratio, evidence=evidence,
                    message=f"long: {said} words where {need} were needed")  # fmt: skip
    return Part(measure=Measure.LENGTH, value=1.0, evidence=evidence, message=f"{said} words where {need} were needed")


def _communication(scores: Mapping[str, float] | None) -> Part:
    if scores is None or (score := scores.get(COMMUNICATION)) is None:
        return _unmeasured(Measure.COMMUNICATION, "not measured: no criterion about communication was judged")
    return Part(measure=Measure.COMMUNICATION, value=min(1.0, max(0.0, score)), evidence={"score": score},
                message=f"{score:.2f} of the points for communication")  # fmt: skip


def _unmeasured(measure: Measure, message: str, evidence: Mapping[str, float] | None = None) -> Part:
    return Part(measure=measure, value=None, message=message, evidence=evidence or {})
