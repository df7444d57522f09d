"""MedlinePlus' web service: health topics written for patients, by the US National Library of Medicine.

Pace: at most 85 requests a minute from an address; MedlinePlus.gov is to be named as the source, and its logo not to be
used (medlineplus.gov, "MedlinePlus Web Service"). Summaries of health topics are in the public domain ("Linking to and
Using Content from MedlinePlus"). Fields can be asked for by name ("MedlinePlus XML Files and Web Service Enhancements",
NLM Technical Bulletin 387, 2012).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import ClassVar, Final
from xml.etree.ElementTree import Element

from neurons.invisible import has_word, is_blank
from neurons.sources.asking import Service
from neurons.sources.claims import Finder
from neurons.sources.errors import FormatChanged
from neurons.sources.kept import Kept
from neurons.sources.passage import Citation, Passage
from neurons.sources.raised import raised
from neurons.sources.remote import RemoteSource
from neurons.sources.tokens import content_words

BASE: Final = "https://wsearch.nlm.nih.gov/ws"
PER_SECOND: Final = 85 / 60
_TAG: Final = re.compile(r"<[^<>]*>")
_RAISED: Final = re.compile(r"<sup\b[^<>]*>(.{0,100}?)</sup>", re.IGNORECASE | re.DOTALL)
_BLOCK: Final = re.compile(r"</?(?:p|li|ul|ol|br|div|h[1-6])\b[^<>]*>", re.IGNORECASE)
_WORDS: Final = 12
_PLACE: Final = re.compile(r"https?://(?:www\.)?(?:medlineplus\.gov|nlm\.nih\.gov/medlineplus)/[\w./-]+", re.ASCII)
_TITLE: Final = 300
"""Characters of a cited title that are asked for."""


class MedlinePlus(RemoteSource):
    """Health topics' summaries."""

    NAME: ClassVar[str] = "MedlinePlus"
    LICENCE: ClassVar[str] = "Public domain (US government); name MedlinePlus.gov as the source"

    def __init__(self, *, finder: Finder, base: str = BASE, kept: Kept | None = None) -> None:
        super().__init__(Service(name=self.NAME, base=base, per_second=PER_SECOND), finder=finder, kept=kept)

    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]:
        return await self._asked(" OR ".join(content_words(claim)[:_WORDS]), limit=limit, until=until)

    async def _again(self, citation: Citation, *, until: float) -> Passage | None:
        if not _PLACE.fullmatch(citation.place) or not has_word(citation.title):
            return None
        title = "".join(each if each.isprintable() and each != '"' else " " for each in citation.title[:_TITLE])
        await self._check(title, until=until)  # whoever cites may have written anything there
        found = await self._asked(f'title:"{title}"', limit=10, until=until)
        return next((each for each in found if each.place == citation.place), None)

    async def _asked(self, term: str, *, limit: int, until: float) -> Sequence[Passage]:
        if not term:
            return ()
        asked = {"db": "healthTopics", "term": term, "retmax": str(limit)}
        reply = await self._service.get("query", asked, until=until)
        root = self._xml(reply.body, root="nlmSearchResult")
        listed = root.find("list")
        if listed is None:
            if root.findtext("count", "").strip() == "0":
                return ()
            raise FormatChanged("MedlinePlus' answer isn't in its documented format: it has no <list>")
        documents = listed.findall("document")
        found = [topic for rank, each in enumerate(documents, start=1) if (topic := self._topic(each, rank))]
        if documents and not found:
            raise FormatChanged("MedlinePlus' answer isn't in its documented format: no topic has a summary")
        return found

    def _topic(self, document: Element, rank: int) -> Passage | None:
        """Return a topic's summary; None for one that has none yet."""
        fields = {each.get("name"): "".join(each.itertext()) for each in document.iterfind("content")}
        if is_blank(text := _plain(fields.get("FullSummary", ""))):
            return None
        if not _PLACE.fullmatch(place := document.get("url", "")):
            raise FormatChanged(
                "MedlinePlus' answer isn't in its documented format: a topic's address is none of its own"
            )
        return self._passage(title=_plain(fields.get("title", "")), place=place, text=text, score=1 / rank)


def _plain(marked: str) -> str:
    """Return a text without the marks that the service puts around words that were asked for, and without HTML."""
    lifted = _RAISED.sub(lambda found: raised(_TAG.sub("", found[1])), marked)
    text = html.unescape(_TAG.sub("", _BLOCK.sub("\n", lifted)))
    return "\n".join(line for each in text.splitlines() if (line := " ".join(each.split())))
