"""RxNav's RxClass: what a drug may treat, must not be given with, and belongs to, by MED-RT.

Who asks more often than its terms allow is answered 403, and no licence is needed (lhncbc.nlm.nih.gov, RxNav's "FAQs").
Pace: 20 requests a second from an address, as NLM's "API Terms of Service" say for its other services and others repeat
for this one. Fields that would be empty are null or left out ("RxClass API: getClassByRxNormDrugId"). Its answers are
records, not sentences: a passage is composed of their fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, Field

from neurons.sources.asking import Service
from neurons.sources.claims import Finder
from neurons.sources.errors import FormatChanged
from neurons.sources.kept import Kept
from neurons.sources.passage import Citation, Passage
from neurons.sources.remote import RemoteSource
from neurons.sources.tokens import content_words, tokens

BASE: Final = "https://rxnav.nlm.nih.gov/REST"
PER_SECOND: Final = 20.0
_WORDS: Final = 5
"""Of a claim that are asked about: each is a request."""
_SHORTEST: Final = 5
_PLACE: Final = re.compile(
    r"https://mor\.nlm\.nih\.gov/RxNav/search\?searchBy=RXCUI&searchTerm=([0-9]{1,9})#\w+", re.ASCII
)
_RELATIONS: Final = {
    "may_treat": "may treat",
    "may_prevent": "may prevent",
    "CI_with": "is contraindicated with",
    "may_diagnose": "may diagnose",
    "has_EPC": "is of the class",
    "has_MoA": "acts as",
    "has_PE": "has the effect",
    "induces": "can induce",
}
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Drug(BaseModel):
    rxcui: str = Field(pattern=r"^[0-9]{1,9}$")
    name: _Text


class _Class(BaseModel):
    className: _Text  # noqa: N815 - the service's name


class _Relation(BaseModel):
    minConcept: _Drug  # noqa: N815
    rxclassMinConceptItem: _Class  # noqa: N815
    rela: str | None = None


class _Relations(BaseModel):
    rxclassDrugInfo: Annotated[list[_Relation], Field(max_length=5000)] | None = None  # noqa: N815


class _Answer(BaseModel, extra="allow"):
    rxclassDrugInfoList: _Relations | None = None  # noqa: N815


class RxNav(RemoteSource):
    """One passage a drug and relation: "ibuprofen is contraindicated with: Asthma; …"."""

    NAME: ClassVar[str] = "RxNav"
    LICENCE: ClassVar[str] = (
        "None needed (RxNav's FAQs); say that the data are the National Library of Medicine's, which endorses nothing"
    )

    def __init__(self, *, finder: Finder, base: str = BASE, kept: Kept | None = None) -> None:
        service = Service(name=self.NAME, base=base, per_second=PER_SECOND, busy=frozenset({403, 429, 503}))
        super().__init__(service, finder=finder, kept=kept)

    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]:
        words = [word for word in content_words(claim) if word.isalpha() and word.isascii() and len(word) >= _SHORTEST]
        asked = frozenset(tokens(claim))
        found = {each.place: each for word in words[:_WORDS] for each in await self._named(word, asked, until=until)}
        return sorted(found.values(), key=lambda passage: (-passage.score, passage.place))[:limit]

    async def _again(self, citation: Citation, *, until: float) -> Passage | None:
        if (place := _PLACE.fullmatch(citation.place)) is None:
            return None
        found = await self._relations("rxclass/class/byRxcui.json", {"rxcui": place[1]}, frozenset(), until=until)
        return next((each for each in found if each.place == citation.place), None)

    async def _named(self, name: str, asked: frozenset[str], *, until: float) -> list[Passage]:
        return await self._relations("rxclass/class/byDrugName.json", {"drugName": name}, asked, until=until)

    async def _relations(self, path: str, drug: Mapping[str, str], asked: frozenset[str], *,
                         until: float) -> list[Passage]:  # fmt: skip
        reply = await self._service.get(path, {**drug, "relaSource": "MEDRT"}, until=until)
        answer = self._json(reply.body, _Answer)
        if answer.rxclassDrugInfoList is None and (answer.model_extra or {}).keys() - {"userInput"}:
            raise FormatChanged("RxNav's answer isn't in its documented format: `rxclassDrugInfoList` is missing")
        listed = (answer.rxclassDrugInfoList and answer.rxclassDrugInfoList.rxclassDrugInfo) or []
        classes: dict[tuple[str, str, str], set[str]] = {}
        for each in listed:
            if each.rela in _RELATIONS:
                key = (each.minConcept.rxcui, each.minConcept.name, each.rela)
                classes.setdefault(key, set()).add(each.rxclassMinConceptItem.className)
        found = []
        for (identity, name, relation), names in sorted(classes.items()):
            text = f"{name} {_RELATIONS[relation]}: {'; '.join(sorted(names))}"
            place = f"https://mor.nlm.nih.gov/RxNav/search?searchBy=RXCUI&searchTerm={identity}#{relation}"
            score = len(asked & frozenset(tokens(text))) / max(1, len(asked))
            found.append(self._passage(title=f"{name}: {_RELATIONS[relation]}", place=place, text=text, score=score))
        return found
