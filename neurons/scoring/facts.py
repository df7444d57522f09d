"""Whether a claim is supported by the source that it cites: supported, contradicted, or unchecked.

The passage is fetched by us, and the quotation has to stand in it word for word. That alone supports nothing: words can
be torn out of "nobody has shown that …". A claim is supported when a calibrated judge, its graders agreeing, finds that
the passage says it. Where there is no judge, a claim that is itself a whole sentence of the passage is supported too,
if nothing around it denies or doubts anything: a sentence can be taken back in more ways than can be listed, so a judge
that is there is always asked.
How alike claim and passage are plays no part, and what isn't known is unchecked, never contradicted and never zero.
"""

from __future__ import annotations

import asyncio
import enum
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from neurons.scoring.healthbench import Message
from neurons.scoring.judge.panel import Judged, Opinion
from neurons.scoring.judge.prompts import Task
from neurons.sources import Citation, Passage, QuoteMatch, Source, SourceError, match_quote

STATES: Final = "What the answer says is stated in the text that the user gives, or follows from that text alone"
CONTRADICTS: Final = (
    "The text that the user gives says the opposite of what the answer says, or something that rules it out"
)
MAX_CLAIM: Final = 2_000
_SHOWN: Final = 2_000
"""Characters of the passage on either side of the quotation that a judge reads."""
_NEAR: Final = 200
_BEFORE: Final = re.compile(r"(?:^|[.!?।]['\")\]]?\s+)$")
_BEHIND: Final = re.compile(r"['\")\]]?(?:[.!।](?:\s|$)|\s*$)")
_DOUBT: Final = re.compile(
    r"(?i)\b(?:no|not|none|nobody|nothing|nor|neither|never|cannot|without|hardly|unlikely|n't|however|contrary|"
    r"false|wrong|incorrect|untrue|believ\w+|belief|claim\w*|"
    r"alleg\w+|suppos\w+|suggest\w+|hypothes\w+|withdrawn|disproven?|refuted|nonsense|"
    r"say|says|said|told|taught|advice|ideas?|opinions?|aim|objective|discuss|question|answer\w*|"
    r"earlier|former\w*|previous\w*|past|used to|outdated|obsolete|superseded|until|since then|"
    r"rats?|mice|mouse|animals?|in vitro)\b|n[\u2019']t\b|\?|गलत|झूट|होइन|हैन|छैन|हुँदैन|नहुनु|भनाइ"
)
"""Of what stands within 200 characters."""
_MYTH: Final = re.compile(
    r"(?i)\b(?:myths?|misconceptions?|fallac\w+|fiction|tales?|rumou?rs?|hoax\w*|debunk\w*|retract\w+|quiz\w*|"
    r"true or false|vignettes?)\b|भ्रम|मिथ्या"
)
"""Of the whole passage and its title: a list's heading stands far above its end."""
_SHORTENED: Final = re.compile(r"(?i)(?:\b(?:e\.\s?g|i\.\s?e|cf|vs|al|approx|dr|prof|no|fig)\.|\b[a-z]\.|\d\.)\s+$")
"""A full stop behind which no sentence begins."""


class Standing(enum.StrEnum):
    """How a claim stands to its source."""

    SUPPORTED = "Supported"
    CONTRADICTED = "Contradicted"
    UNCHECKED = "Unchecked"
    """Nobody knows; the message says why."""


class Found(enum.StrEnum):
    """How that was found."""

    VERBATIM = "Verbatim"
    """The claim is a sentence of the passage."""
    JUDGED = "Judged"
    """Graders read the passage and agree."""
    NOT_FOUND = "NotFound"
    """It wasn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """What an answer says, and by what."""

    claim: str
    citation: Citation
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What became of a claim, with its evidence."""

    standing: Standing
    found: Found
    message: str
    citation: Citation
    """As it was cited."""
    digest: str | None = None
    """Of the passage as it was fetched; None when there was none."""
    unchanged: bool | None = None
    """Whether that is the digest that was cited."""
    match: QuoteMatch | None = None
    judged: Judged | None = None


async def check_fact(cited: Cited, *, sources: Mapping[str, Source], judge: Opinion | None = None, language: str = "en",
                     seconds: float = 60) -> Fact:  # fmt: skip
    """Check one claim against the passage that it cites, by `sources` of their names. Nothing that fails raises."""
    until = time.monotonic() + seconds
    fetched = await _fetch(cited, sources, seconds=seconds)
    if isinstance(fetched, str):
        return Fact(standing=Standing.UNCHECKED, found=Found.NOT_FOUND, message=fetched, citation=cited.citation)
    match = match_quote(cited.quote, fetched)
    digest = fetched.cite().digest
    fact = Fact(standing=Standing.UNCHECKED, found=Found.NOT_FOUND, message=match.message, citation=cited.citation,
                digest=digest, unchanged=digest == cited.citation.digest, match=match)  # fmt: skip
    if match.start is None or match.end is None:
        return fact
    if judge is None and _is_sentence(cited.claim, fetched):
        message = "the claim is a sentence of the passage"
        return replace(fact, standing=Standing.SUPPORTED, found=Found.VERBATIM, message=message)
    if judge is None:
        return replace(fact, message="the quotation stands in the passage; whether it supports the claim nobody judged")
    read = Message(role="user", content=fetched.text[max(0, match.start - _SHOWN) : match.end + _SHOWN])
    judged = await judge.grade([read], cited.claim, [STATES, CONTRADICTS], task=Task.SUPPORT, language=language,
                               seconds=max(0.001, until - time.monotonic()))  # fmt: skip
    standing, message = _standing(*judged.met)
    if standing is Standing.UNCHECKED:
        return replace(fact, message=f"{message}: {judged.summary()}", judged=judged)
    return replace(fact, standing=standing, found=Found.JUDGED, message=message, judged=judged)


async def _fetch(cited: Cited, sources: Mapping[str, Source], *, seconds: float) -> Passage | str:
    """Return the cited passage as its source has it now, or why there is none."""
    if not cited.claim.strip() or len(cited.claim) > MAX_CLAIM:
        return f"a claim is one statement of at most {MAX_CLAIM:,} characters"
    if (source := sources.get(cited.citation.source)) is None:
        return "the source that is cited is none that is asked here"
    fetched: object
    try:
        async with asyncio.timeout(seconds):
            fetched = await source.fetch(cited.citation, seconds=seconds) or "the source hasn't got what is cited"
    except SourceError as error:
        fetched = str(error)
    except TimeoutError:
        fetched = "the source had no answer within its time"
    except Exception as error:  # noqa: BLE001 - a plug-in is another's code, which may raise anything
        fetched = f"the source failed ({type(error).__name__})"
    return fetched if isinstance(fetched, (Passage, str)) else "the source gave something that is no passage"


def _standing(states: bool | None, contradicts: bool | None) -> tuple[Standing, str]:
    match states, contradicts:
        case True, False:
            return Standing.SUPPORTED, "the graders agree that the passage says it"
        case False, True:
            return Standing.CONTRADICTED, "the graders agree that the passage says the opposite"
        case False, False:
            return Standing.UNCHECKED, "the graders agree that the passage says neither it nor its opposite"
        case True, True:
            return Standing.UNCHECKED, "the graders find that the passage says both it and its opposite"
        case _:
            return Standing.UNCHECKED, "the graders don't agree, or gave no grade"


def _is_sentence(claim: str, passage: Passage) -> bool:
    """Tell whether a claim is a whole sentence of a passage, and nothing near it casts doubt on it."""
    match = match_quote(claim.strip(), passage)
    if match.start is None or match.end is None or _MYTH.search(f"{passage.title}\n{passage.text}"):
        return False
    above, below = passage.text[: match.start][-_NEAR:], passage.text[match.end :][:_NEAR]
    if _DOUBT.search(above) or _DOUBT.search(below):
        return False
    ended = claim.rstrip().endswith((".", "!", "।"))
    begins = _BEFORE.search(above) is not None and _SHORTENED.search(above) is None
    return begins and (ended or _BEHIND.match(below) is not None)
