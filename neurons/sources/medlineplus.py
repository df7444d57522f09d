"""MedlinePlus' web service: health topics written for patients, by the US National Library of Medicine.

https://medlineplus.gov/about/developers/webservices/ says: at most 85 requests a minute from an address, answers
kept for 12 to 24 hours, MedlinePlus.gov named as the source.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import ClassVar, Final
from xml.etree.ElementTree import Element

from neurons.sources.asking import Service
from neurons.sources.errors import FormatChanged
from neurons.sources.kept import Kept
from neurons.sources.passage import Citation, Passage
from neurons.sources.remote import RemoteSource
from neurons.sources.tokens import content_words

BASE: Final = "https://wsearch.nlm.nih.gov/ws"
PER_SECOND: Final = 85 / 60
_TAG: Final = re.compile(r"<[^<>]*>")
_BLOCK: Final = re.compile(r"</?(?:p|li|ul|ol|br|div|h[1-6])\b[^<>]*>", re.IGNORECASE)
_WORDS: Final = 12


class MedlinePlus(RemoteSource):
    """Health topics' summaries."""

    NAME: ClassVar[str] = "MedlinePlus"
    LICENCE: ClassVar[str] = "Public domain (US government); name MedlinePlus.gov as the source"

    def __init__(self, *, base: str = BASE, kept: Kept | None = None) -> None:
        super().__init__(Service(name=self.NAME, base=base, per_second=PER_SECOND), kept=kept)

    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]:
        return await self._asked(" OR ".join(content_words(claim)[:_WORDS]), limit=limit, until=until)

    async def _again(self, citation: Citation, *, until: float) -> Passage | None:
        title = citation.title.replace('"', " ")
        found = await self._asked(f'title:"{title}"', limit=10, until=until)
        return next((each for each in found if each.place == citation.place), None)

    async def _asked(self, term: str, *, limit: int, until: float) -> Sequence[Passage]:
        if not term:
            return ()
        raw = await self._service.get("query", {"db": "healthTopics", "term": term, "retmax": str(limit)}, until=until)
        root = self._xml(raw, root="nlmSearchResult")
        listed = root.find("list")
        if listed is None:
            if root.findtext("count", "").strip() == "0":
                return ()
            raise FormatChanged("MedlinePlus' answer isn't in its documented format: it has no <list>")
        return [self._topic(each, place) for place, each in enumerate(listed.iterfind("document"))]

    def _topic(self, document: Element, place: int) -> Passage:
        fields = {each.get("name"): "".join(each.itertext()) for each in document.iterfind("content")}
        return self._passage(title=_plain(fields.get("title", "")), place=document.get("url", ""),
                             text=_plain(fields.get("FullSummary", "")), score=1 / (place + 1))  # fmt: skip


def _plain(marked: str) -> str:
    """Return a text without the marks that the service puts around words that were asked for, and without HTML."""
    text = html.unescape(_TAG.sub("", _BLOCK.sub("\n", marked)))
    return "\n".join(line for each in text.splitlines() if (line := " ".join(each.split())))
