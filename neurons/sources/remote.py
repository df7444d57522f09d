"""What all web services have in common as sources: what may be asked, what is kept, how long it may take."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException
from pydantic import BaseModel, ValidationError

from bettertherapy_api.faults import first_fault
from neurons.sources.asking import Service
from neurons.sources.claims import Finder, check_leaves, check_limit
from neurons.sources.errors import FormatChanged
from neurons.sources.kept import Kept
from neurons.sources.passage import Citation, Passage

Model = TypeVar("Model", bound=BaseModel)


class RemoteSource(ABC):
    """A source that asks a web service. Subclasses say how it is asked and how its answers are read."""

    NAME: ClassVar[str]
    LICENCE: ClassVar[str]

    def __init__(self, service: Service, *, finder: Finder, kept: Kept | None = None) -> None:
        """`finder` looks through all that is sent: there is no source that asks others without one."""
        self._service = service
        self._finder = finder
        self._kept = kept or Kept()

    @property
    def name(self) -> str:
        """Return its name."""
        return self.NAME

    async def search(self, claim: str, *, limit: int = 5, seconds: float = 10) -> Sequence[Passage]:
        """Return what the service finds, in its order."""
        until = time.monotonic() + seconds
        check_limit(limit)
        await self._check(claim, until=until)
        known = self._kept.get(self.NAME, claim, limit)
        # a folder may be written by others: in this source's name stands only what it says itself
        if known is not None and all(each.source == self.NAME for each in known):
            return known
        found = (await self._find(claim, limit=limit, until=until))[:limit]
        self._kept.put(self.NAME, claim, limit, found)
        return found

    async def fetch(self, citation: Citation, *, seconds: float = 10) -> Passage | None:
        """Return a cited passage as the service has it now; nothing kept is used."""
        if citation.source != self.NAME:
            return None
        return await self._again(citation, until=time.monotonic() + seconds)

    async def close(self) -> None:
        """Close its connections."""
        await self._service.close()

    async def _check(self, text: str, *, until: float) -> None:
        """Raise ClaimRefused for a text of someone else's that must not be sent."""
        await check_leaves(text, finder=self._finder, until=until)

    @abstractmethod
    async def _find(self, claim: str, *, limit: int, until: float) -> Sequence[Passage]: ...

    @abstractmethod
    async def _again(self, citation: Citation, *, until: float) -> Passage | None: ...

    def _passage(self, *, title: str, place: str, text: str, score: float, date: str | None = None) -> Passage:
        try:
            return Passage(source=self.NAME, licence=self.LICENCE, title=title, place=place, url=place,
                           text=text, score=score, date=date)  # fmt: skip
        except ValueError as error:
            raise FormatChanged(f"{self.NAME} answers {error}") from None

    def _json(self, raw: bytes, model: type[Model]) -> Model:
        """Read a JSON answer. Raises FormatChanged, which names the field and nothing of what stands in it."""
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise FormatChanged(f"{self.NAME}'s answer isn't in its documented format: {_why(error, 'JSON')}") from None
        return self._valid(found, model)

    def _valid(self, found: object, model: type[Model]) -> Model:
        try:
            return model.model_validate(found)
        except ValidationError as error:
            raise FormatChanged(f"{self.NAME}'s answer isn't in its documented format: {_why(error, 'JSON')}") from None

    def _xml(self, raw: bytes, *, root: str) -> Element:
        try:
            # PubMed's answers name their document type; no entity of one is ever read
            found: Element = defusedxml.ElementTree.fromstring(raw, forbid_dtd=False, forbid_entities=True)
        except (DefusedXmlException, ParseError, ValueError, LookupError) as error:
            raise FormatChanged(f"{self.NAME}'s answer isn't in its documented format: {_why(error, 'XML')}") from None
        if found.tag != root:
            raise FormatChanged(f"{self.NAME}'s answer isn't in its documented format: its root is no <{root}>")
        return found


def _why(error: Exception, kind: str) -> str:
    if isinstance(error, ValidationError):
        return first_fault(error)
    return f"no {kind}"
