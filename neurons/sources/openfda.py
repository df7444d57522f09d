"""openFDA's drug labels: what the makers' approved labels say of warnings, pregnancy, doses.

Pace: 240 requests a minute; 1,000 a day from an address, 120,000 with a key (open.fda.gov, "Authentication", as others
repeat it). A search without any match is answered with 404 and the
error `NOT_FOUND` (FDA/openfda, issue 58, "Don't return 404 on request with no results"); any other 404 is no answer.
Data are CC0 1.0 "unless otherwise noted" (open.fda.gov, "License", of 2014).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, Field

from neurons.sources.asking import Service
from neurons.sources.claims import Finder
from neurons.sources.kept import Kept
from neurons.sources.passage import MAX_TEXT, Citation, Passage
from neurons.sources.remote import RemoteSource
from neurons.sources.tokens import content_words, tokens

BASE: Final = "https://api.fda.gov"
PER_SECOND: Final = 240 / 60
_WORDS: Final = 12
_SET_ID: Final = re.compile(r"[0-9A-Fa-f-]{36}")
SECTIONS: Final = (
    "boxed_warning",
    "contraindications",
    "warnings",
    "warnings_and_cautions",
    "precautions",
    "pregnancy",
    "pediatric_use",
    "geriatric_use",
    "nursing_mothers",
    "drug_interactions",
    "adverse_reactions",
    "overdosage",
    "indications_and_usage",
    "dosage_and_administration",
    "do_not_use",
    "ask_doctor",
    "ask_doctor_or_pharmacist",
    "stop_use",
    "pregnancy_or_breast_feeding",
)
"""Of a label; each is a passage of its own."""
_Texts = Annotated[list[str], Field(max_length=100)]


class _Names(BaseModel):
    generic_name: _Texts = []
    brand_name: _Texts = []


class _Label(BaseModel, extra="allow"):
    set_id: str = Field(pattern=r"^[0-9A-Fa-f-]{36}$")
    effective_time: str = Field(default="", pattern=r"^([12][0-9]{7})?$")
    openfda: _Names = _Names()


class _Answer(BaseModel):
    results: Annotated[list[_Label], Field(max_length=100)]


class _Error(BaseModel):
    code: Literal["NOT_FOUND"]


class _NoMatch(BaseModel):
    error: _Error


class _Section(BaseModel):
    texts: _Texts


class OpenFda(RemoteSource):
    """Sections of drug labels."""

    NAME: ClassVar[str] = "openFDA"
    LICENCE: ClassVar[str] = "CC0 1.0 unless otherwise noted (open.fda.gov/license)"

    def __init__(self, *, finder: Finder, key: str | None = None, base: str = BASE, kept: Kept | None = None) -> None:
        service = Service(name=self.NAME, base=base, per_second=PER_SECOND, none=frozenset({404}),
                          params={"api_key": key} if key else None)  # fmt: skip
        super().__init__(service, finder=finder, kept=kept)

    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]:
        # words are letters, digits and marks, so that nothing of the query's syntax can stand in them
        words = " ".join(f'"{word}"' for word in content_words(claim)[:_WORDS])
        if not words:
            return ()
        query = f"openfda.generic_name:({words}) openfda.brand_name:({words})"
        asked = frozenset(tokens(claim))
        found = [
            passage
            for label in await self._labels(query, limit=5, until=until)
            for passage in self._sections(label, asked)
        ]
        return sorted(found, key=lambda passage: -passage.score)[:limit]

    async def _again(self, citation: Citation, *, until: float) -> Passage | None:
        identity = citation.place.partition("setid=")[2].partition("#")[0]
        if not _SET_ID.fullmatch(identity):
            return None
        labels = await self._labels(f'set_id:"{identity}"', limit=1, until=until)
        sections = (each for label in labels for each in self._sections(label, frozenset()))
        return next((each for each in sections if each.place == citation.place), None)

    async def _labels(self, query: str, *, limit: int, until: float) -> Sequence[_Label]:
        reply = await self._service.get("drug/label.json", {"search": query, "limit": str(limit)}, until=until)
        if reply.none:
            self._json(reply.body, _NoMatch)
            return ()
        return self._json(reply.body, _Answer).results

    def _sections(self, label: _Label, asked: frozenset[str]) -> list[Passage]:
        """Return a label's sections, each scored by how many of the claim's words stand in it or in its heading."""
        name = next(iter(label.openfda.generic_name + label.openfda.brand_name), "a drug")
        time = label.effective_time
        date = f"{time[:4]}-{time[4:6]}-{time[6:]}" if time else None
        found = []
        for heading in SECTIONS:
            told = (label.model_extra or {}).get(heading)
            if told is None:
                continue
            texts = self._valid({"texts": told}, _Section).texts
            spoken = heading.replace("_", " ")
            pieces = [piece for text in texts for piece in _pieces(text)]
            for number, text in enumerate(pieces, start=1):
                mark = heading if number == 1 else f"{heading}-{number}"
                score = len(asked & frozenset(tokens(f"{name} {spoken} {text}"))) / max(1, len(asked))
                place = f"https://dailymed.nlm.nih.gov/dailymed/drugInfo.cfm?setid={label.set_id}#{mark}"
                found.append(self._passage(title=f"{name}: {spoken}", place=place, text=text, score=score, date=date))
        return found


def _pieces(text: str) -> Iterator[str]:
    """Return a section, or the parts of one that is too long for a passage, cut between words where that can be."""
    while len(text) > MAX_TEXT:
        cut = text.rfind(" ", MAX_TEXT // 2, MAX_TEXT) + 1 or MAX_TEXT
        yield text[:cut]
        text = text[cut:]
    if text.strip():
        yield text
