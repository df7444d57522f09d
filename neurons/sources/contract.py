"""What every source has to keep to, as a check that a plug-in's own tests run: `await check_source(source, …)`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from neurons.sources.errors import ClaimRefused, SourceError
from neurons.sources.passage import Citation, Passage, Source
from neurons.sources.quoting import MIN_WORDS, Quotation, match_quote


class ContractBroken(AssertionError):  # noqa: N818 - said of the source
    """The source doesn't keep to what is promised; the message says where."""


async def check_source(source: Source, *, found: str, absent: str, seconds: float = 10) -> None:
    """Check a source: `found` is a claim that it has passages for, `absent` one that it has none for.

    Raises ContractBroken. The source is closed at the end, twice.
    """
    passages = await source.search(found, limit=3, seconds=seconds)
    _hold(1 <= len(passages) <= 3, "a search with limit=3 gives one to three passages")
    _hold(all(isinstance(each, Passage) for each in passages), "a search gives passages")
    _hold(all(each.source == source.name for each in passages), "a passage names its source as the source names itself")
    scores = [each.score for each in passages]
    _hold(scores == sorted(scores, reverse=True), "the likest passage comes first")
    _hold(len(await source.search(found, limit=1, seconds=seconds)) == 1, "a search with limit=1 gives one passage")
    _hold(
        not await source.search(absent, seconds=seconds), "a claim that nothing is known of gives nothing, and no error"
    )
    await _fetched_again(source, passages, seconds=seconds)
    for claim in ("", " \u200b "):
        try:
            await source.search(claim, seconds=seconds)
        except ClaimRefused:
            continue
        raise ContractBroken("a claim without a word is refused by ClaimRefused")
    begun = time.monotonic()
    try:
        await source.search(f"{found} {found}", seconds=0.001)
    except SourceError:
        pass
    except Exception as error:
        raise ContractBroken(f"out of time, a source raises SourceError, not {type(error).__name__}") from error
    _hold(time.monotonic() - begun < 2, "a search ends when its time is over")
    await source.close()
    await source.close()


async def _fetched_again(source: Source, passages: Sequence[Passage], *, seconds: float) -> None:
    for each in passages:
        again = await source.fetch(each.cite(), seconds=seconds)
        _hold(again is not None, "a cited passage is fetched again")
        if again is not None:
            _hold(again.cite() == each.cite(), "a passage that is fetched again is the same")
            words = each.text.split()
            if len(words) > MIN_WORDS:
                matched = match_quote(each.text[:2000].rsplit(maxsplit=1)[0], again).quotation
                _hold(matched is Quotation.MATCHED, "a quotation from a passage matches the one fetched again")
    gone = Citation(source=source.name, title="Nothing of this title", place="https://nowhere.invalid/0", digest="")
    _hold(await source.fetch(gone, seconds=seconds) is None, "a citation of nothing gives None")


def _hold(held: bool, promise: str) -> None:
    if not held:
        raise ContractBroken(f"not kept: {promise}")
