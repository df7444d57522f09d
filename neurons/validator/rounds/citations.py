"""What an answer quotes, and whence: a quotation in marks or as a block, with a link to a page behind it.

"Adults may take up to 4 g in 24 hours" ([Paracetamol](https://medlineplus.gov/…))
> Adults may take up to 4 g in 24 hours
[Paracetamol](corpus:sha256:…#paracetamol)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from yarl import URL

from neurons.scoring.facts import Cited
from neurons.sources import Citation
from neurons.sources.quoting import MIN_WORDS

MOST: Final = 8
"""Of one answer; more aren't looked at."""
_CITED: Final = re.compile(
    r"(?:[\"“](?P<quote>[^\"”\n]{12,1000})[\"”]|^>[ \t]*(?P<block>[^\n]{12,1000})$)"
    r"[^\[\]\n]{0,80}\n?[^\[\]\n]{0,20}\[(?P<title>[^\]\n]{1,200})\]\((?P<place>[^)\s]{8,2048})\)",
    re.MULTILINE,
)
HOSTS: Final[Mapping[str, str]] = {
    "medlineplus.gov": "medlineplus", "pubmed.ncbi.nlm.nih.gov": "pubmed", "www.ncbi.nlm.nih.gov": "pubmed",
    "api.fda.gov": "openfda", "rxnav.nlm.nih.gov": "rxnav",
}  # fmt: skip
"""By whose pages a source is known."""


def citations_in(answer: str, *, corpus: str | None = None) -> tuple[Cited, ...]:
    """Return what an answer quotes; `corpus` is the name of the source whose places begin with `corpus:`."""
    found: dict[tuple[str, str], Cited] = {}
    for match in _CITED.finditer(answer):
        quote = (match["quote"] or match["block"]).strip()
        if len(quote.split()) <= MIN_WORDS:
            continue  # fewer words stand in too many texts for anything to be concluded
        place = match["place"]
        source = (corpus or "") if place.startswith("corpus:") else HOSTS.get(_host(place), "")
        citation = Citation(source=source, title=match["title"], place=place, digest="")
        found.setdefault((quote, place), Cited(claim=quote, citation=citation, quote=quote))
    return tuple(found.values())[:MOST]


def _host(place: str) -> str:
    try:
        return URL(place).host or ""
    except ValueError:
        return ""
