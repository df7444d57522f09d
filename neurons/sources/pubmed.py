"""PubMed by NCBI's E-utilities: abstracts of papers.

Pace: 3 requests a second, 10 with a key (NLM Support Center, article KA-05317); `tool` and `email` name the software
and its developer, whom NCBI writes to before it shuts an address out ("A General Introduction to the E-utilities").
Abstracts may be under their publishers' copyright.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final
from xml.etree.ElementTree import Element

from pydantic import BaseModel, Field

from neurons.sources.asking import Service
from neurons.sources.claims import MAX_PASSAGES, Finder
from neurons.sources.errors import FormatChanged, Retracted
from neurons.sources.kept import Kept
from neurons.sources.passage import Citation, Passage
from neurons.sources.raised import raised
from neurons.sources.remote import RemoteSource
from neurons.sources.tokens import content_words

BASE: Final = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
PER_SECOND: Final = 3.0
PER_SECOND_WITH_KEY: Final = 10.0
_WORDS: Final = 8
_ID: Final = re.compile(r"[0-9]{1,9}")
_PLACE: Final = re.compile(r"https://pubmed\.ncbi\.nlm\.nih\.gov/([0-9]{1,9})/")
_ARTICLE: Final = "PubmedArticle/MedlineCitation"
_RETRACTED: Final = "D016441"
"""MeSH's number of the publication type "Retracted Publication"."""
_TAKEN_BACK: Final = ("RetractionIn", "ExpressionOfConcernIn", "RetractedandRepublishedIn")
_MONTHS: Final = {name: f"{number:02}" for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
)}  # fmt: skip


class _Ids(BaseModel):
    idlist: Annotated[list[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]], Field(max_length=MAX_PASSAGES)]


class _Search(BaseModel):
    esearchresult: _Ids


class PubMed(RemoteSource):
    """Abstracts, by PubMed's own order of relevance."""

    NAME: ClassVar[str] = "PubMed"
    LICENCE: ClassVar[str] = "Abstract from PubMed; its publisher may hold the copyright"

    def __init__(self, *, finder: Finder, email: str, key: str | None = None, base: str = BASE,
                 kept: Kept | None = None) -> None:  # fmt: skip
        params = {"tool": "bettertherapy", "email": email} | ({"api_key": key} if key else {})
        rate = PER_SECOND_WITH_KEY if key else PER_SECOND
        service = Service(name=self.NAME, base=base, per_second=rate, params=params)
        super().__init__(service, finder=finder, kept=kept)

    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]:
        words = content_words(claim)[:_WORDS]
        # all the words first; most claims have one that no paper has, so then any of them
        for term in dict.fromkeys((" AND ".join(words), " OR ".join(words))):
            if term and (ids := await self._ids(term, limit=limit, until=until)):
                return await self._abstracts(ids, until=until)
        return ()

    async def _again(self, citation: Citation, *, until: float) -> Passage | None:
        if (place := _PLACE.fullmatch(citation.place)) is None:
            return None
        root = await self._fetched([place[1]], until=until)
        if any(_is_taken_back(each) for each in root.iterfind(_ARTICLE) if each.findtext("PMID", "") == place[1]):
            raise Retracted(f"{self.NAME} says that the paper was retracted, or is in doubt: it supports nothing")
        return next((each for each in self._passages(root, [place[1]]) if each.place == citation.place), None)

    async def _ids(self, term: str, *, limit: int, until: float) -> list[str]:
        params = {"db": "pubmed", "term": term, "retmode": "json", "retmax": str(limit), "sort": "relevance"}
        reply = await self._service.get("esearch.fcgi", params, until=until)
        return self._json(reply.body, _Search).esearchresult.idlist

    async def _abstracts(self, ids: Sequence[str], *, until: float) -> list[Passage]:
        return self._passages(await self._fetched(ids, until=until), ids)

    async def _fetched(self, ids: Sequence[str], *, until: float) -> Element:
        params = {"db": "pubmed", "id": ",".join(ids), "retmode": "xml", "rettype": "abstract"}
        reply = await self._service.get("efetch.fcgi", params, until=until)
        return self._xml(reply.body, root="PubmedArticleSet")

    def _passages(self, root: Element, ids: Sequence[str]) -> list[Passage]:
        """Return the abstracts in the order of their ids, without those of papers that were taken back."""
        found: dict[str, Passage] = {}
        for article in root.iterfind(_ARTICLE):
            identity = article.findtext("PMID", "")
            if not _ID.fullmatch(identity):
                raise FormatChanged("PubMed's answer isn't in its documented format: an article has no <PMID>")
            text = "\n".join(_part(each) for each in article.iterfind("Article/Abstract/AbstractText"))
            title = article.find("Article/ArticleTitle")
            if text.strip() and title is not None and identity in ids and not _is_taken_back(article):
                found[identity] = self._passage(
                    title=_text(title), place=f"https://pubmed.ncbi.nlm.nih.gov/{identity}/",
                    text=text,
                    score=1 / (1 + ids.index(identity)),
                    date=_date(article.find("Article/Journal/JournalIssue/PubDate")),
                )  # fmt: skip
        return [found[each] for each in ids if each in found]


def _is_taken_back(article: Element) -> bool:
    """Tell whether a paper was retracted, or its journal has voiced concern (NLM, "Errata, Retractions, and Other
    Linked Citations in PubMed")."""
    notes = {each.get("RefType") for each in article.iterfind("CommentsCorrectionsList/CommentsCorrections")}
    types = {each.get("UI") for each in article.iterfind("Article/PublicationTypeList/PublicationType")}
    return not notes.isdisjoint(_TAKEN_BACK) or _RETRACTED in types


def _part(part: Element) -> str:
    """Return a part of an abstract, with its heading where it has one."""
    text = _text(part)
    return f"{part.get('Label')}: {text}" if part.get("Label") else text


def _text(part: Element) -> str:
    """Return what an element says, without its markup; superscripts stay raised."""
    for each in part.iter("sup"):
        each.text, inner = raised("".join(each.itertext())), list(each)
        for child in inner:
            each.remove(child)
    return " ".join("".join(part.itertext()).split())


def _date(published: Element | None) -> str | None:
    if published is None or not re.fullmatch(r"[12][0-9]{3}", year := published.findtext("Year", "")):
        return None
    month = published.findtext("Month", "")
    month = _MONTHS.get(month[:3].title(), month.zfill(2))
    return f"{year}-{month}" if re.fullmatch(r"0[1-9]|1[0-2]", month) else year
