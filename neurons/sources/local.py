"""A source that needs no network: a corpus on disk, searched by BM25."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from neurons.sources.claims import check_claim, check_limit
from neurons.sources.corpus import Corpus, load_corpus
from neurons.sources.documents import Document
from neurons.sources.errors import CorpusRefused, NoAnswer
from neurons.sources.index import Index, index_of
from neurons.sources.passage import Citation, Passage


class LocalCorpus:
    """A corpus as a Source. It is safe to search from several tasks at once."""

    def __init__(self, *, name: str, licence: str, corpus: Corpus, index: Index) -> None:
        self._name = name
        self._licence = licence
        self._corpus = corpus
        self._index = index
        self._places = {each.id: place for place, each in enumerate(corpus.documents)}

    @classmethod
    async def open(cls, path: Path, *, digest: str, name: str, licence: str, cache: Path | None = None) -> LocalCorpus:
        """Load a corpus and its index. Raises CorpusRefused. `licence` holds for texts that don't state their own."""
        if not name.strip() or not licence.strip():
            raise CorpusRefused(f"{path} needs a name and a licence: passages of it are cited by both")
        corpus = await asyncio.to_thread(load_corpus, path, digest=digest)
        index = await asyncio.to_thread(index_of, corpus, cache=cache)
        return cls(name=name, licence=licence, corpus=corpus, index=index)

    @property
    def name(self) -> str:
        """Return its name."""
        return self._name

    @property
    def corpus(self) -> Corpus:
        """Return what it searches."""
        return self._corpus

    async def search(self, claim: str, *, limit: int = 5, seconds: float = 10) -> Sequence[Passage]:
        """Return the passages that share the most telling words with a claim."""
        check_limit(limit)
        check_claim(claim)
        try:
            async with asyncio.timeout(seconds):
                hits = await asyncio.to_thread(self._index.search, claim, limit=limit)
        except TimeoutError:
            raise NoAnswer(f"{self._name} had no answer within {seconds:g} s") from None
        return [self._passage(self._corpus.documents[hit.place], hit.score) for hit in hits]

    async def fetch(self, citation: Citation, *, seconds: float = 10) -> Passage | None:
        """Return a cited passage; None when it isn't of this corpus in this version."""
        corpus, _, identity = citation.place.removeprefix("corpus:").partition("#")
        place = self._places.get(identity)
        if corpus != self._corpus.digest or place is None:
            return None
        return self._passage(self._corpus.documents[place], 0.0)

    async def close(self) -> None:
        """Nothing is held open."""

    def _passage(self, document: Document, score: float) -> Passage:
        return Passage(
            source=self._name, title=document.title, place=f"corpus:{self._corpus.digest}#{document.id}",
            url=document.url, licence=document.licence or self._licence, text=document.text, score=score,
            date=document.date,
        )  # fmt: skip
