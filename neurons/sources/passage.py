"""A passage of a medical source, word for word, and what it takes to find the same one again.

There is no field that says that a passage supports a claim, and there must never be one: a passage that resembles a
claim may say its opposite. Support is judged elsewhere, by somebody who reads; here words are found and compared.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

MAX_TEXT: Final = 100_000
"""Characters of one passage."""
_HALF: Final = re.compile("[\ud800-\udfff]")
_URL: Final = re.compile(r"https?://[!-~]+")
_DATE: Final = re.compile(r"[12][0-9]{3}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What an answer keeps of a passage: enough to fetch it again and to see whether it still says the same."""

    source: str
    """Name of the source that `fetch` is asked of."""
    title: str
    place: str
    """Its URL, or `corpus:<digest of the corpus>#<id>`."""
    digest: str
    """`sha256:` and 64 hex digits, of the passage's text in UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage as its source has it. Raises ValueError for one that nobody could cite."""

    source: str
    title: str
    place: str
    licence: str
    text: str
    """Exactly as the source has it: no markup, no shortening."""
    score: float
    """How alike the source holds claim and passage. It orders one search of one source, and says nothing else."""
    date: str | None = None
    """When it was published or last reviewed, as far as known: YYYY, YYYY-MM or YYYY-MM-DD."""
    url: str | None = None
    """Where a reader finds it, if that isn't its place: a corpus' texts are fetched from the corpus."""

    def __post_init__(self) -> None:
        for name in ("source", "title", "place", "licence", "text"):
            if not (value := getattr(self, name)).strip():
                raise ValueError(f"a passage without {name} can't be cited")
            if _HALF.search(value):
                raise ValueError(f"a passage's {name} holds half a character, which can't be written down")
        if self.url is not None and not _URL.fullmatch(self.url):
            raise ValueError("a passage's url is no address of a page")
        if len(self.text) > MAX_TEXT:
            raise ValueError(f"a passage of {len(self.text)} characters; at most {MAX_TEXT}, so cut it at its headings")
        if not math.isfinite(self.score):
            raise ValueError("a passage's score isn't a finite number")
        if self.date is not None and not _DATE.fullmatch(self.date):
            raise ValueError("a passage's date is none of YYYY, YYYY-MM, YYYY-MM-DD")

    def cite(self) -> Citation:
        """Return what has to be kept to fetch it again."""
        return Citation(source=self.source, title=self.title, place=self.place, digest=digest_of(self.text))


@runtime_checkable
class Source(Protocol):
    """Something that is asked for passages. Each method raises SourceError, and nothing else, for what goes wrong."""

    @property
    def name(self) -> str:
        """Return its name, the same in every passage and citation."""
        ...

    async def search(self, claim: str, *, limit: int = 5, seconds: float = 10) -> Sequence[Passage]:
        """Return at most `limit` passages, the likest first, within `seconds`; none found is no error."""
        ...

    async def fetch(self, citation: Citation, *, seconds: float = 10) -> Passage | None:
        """Return the passage of a citation as the source has it now; None when it has it no more.

        Whether it is unchanged is for the caller to see: compare its `cite().digest` with the citation's.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files. May be called twice."""
        ...


def digest_of(text: str) -> str:
    """Return the digest of a passage's text."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
