"""Medical sources: one way to ask for passages, and whether a quotation stands in one (docs/sources.md)."""

from neurons.sources.errors import (
    ClaimRefused,
    CorpusRefused,
    FormatChanged,
    NoAnswer,
    NotConfigured,
    RateLimited,
    Retracted,
    SourceError,
)
from neurons.sources.passage import Citation, Passage, Source, digest_of
from neurons.sources.quoting import Quotation, QuoteMatch, match_quote

__all__ = [
    "Citation", "ClaimRefused", "CorpusRefused", "FormatChanged", "NoAnswer", "NotConfigured", "Passage", "Quotation",
    "QuoteMatch", "RateLimited", "Retracted", "Source", "SourceError", "digest_of", "match_quote",
]  # fmt: skip
