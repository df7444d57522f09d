"""A quotation is matched word for word, or it is unchecked; nothing here says "supported"."""

from __future__ import annotations

import dataclasses

import pytest

from neurons.sources import Passage, Quotation, QuoteMatch, digest_of, match_quote

TEXT = (
    "Nobody has shown that ibuprofen is safe in the third trimester of pregnancy.\n    Avoid   it after 20 weeks. "
    "Children take 0.5 mg/kg once a day, at most 10⁵ units. It’s unsafe to drive after “strong” painkillers – ask first. "
    "Non-steroidal drugs can hurt the kidneys of a baby. गर्भावस्थामा यो औषधि नखानुहोस् भनिन्छ।"
)


def passage(text: str = TEXT) -> Passage:
    return Passage(source="Test", title="A", place="corpus:x#1", licence="CC0", text=text, score=1.0)


@pytest.mark.parametrize(
    "quote",
    [
        "ibuprofen is safe in the third trimester",  # the words stand there; what they say there is for a reader
        "the third trimester of pregnancy.",
        "pregnancy. Avoid it after 20 weeks",
        "“Avoid it after\u00a020\u200b weeks.”",
        'It\'s unsafe to drive after "strong" painkillers - ask first',
        "Children take 0.5 mg/kg once a day",
        "यो औषधि नखानुहोस् भनिन्छ",
        "गर्भावस्थामा यो औषधि नखानुहोस् भनिन्छ।",
    ],
)
def test_words_that_stand_there_are_matched(quote: str) -> None:
    found = match_quote(quote, passage())

    assert found.quotation is Quotation.MATCHED, found.message
    assert found.start is not None
    again = match_quote(TEXT[found.start : found.end], passage())
    assert (again.start, again.end) == (found.start, found.end)


@pytest.mark.parametrize(
    "quote",
    [
        "ibuprofen is unsafe in the third trimester",
        "ibuprofen isn't safe in the third trimester",
        "ibuprofen is safe … third trimester",
        "ibuprofen is safe ... third trimester of",
        "Ibuprofen is safe in the third trimester",
        "safe to drive after “strong” painkillers",  # "unsafe to drive"
        "5 mg/kg once a day",  # "0.5 mg/kg"
        "Children take 0.5 mg",  # "0.5 mg/kg"
        "Children take 0",
        "at most 105 units. It's",
        "steroidal drugs can hurt the kidneys",  # "Non-steroidal"
        "the kidneys of a bab",
        "औषधि नखानुहोस् भनिन्",  # cut inside a character
        "is safe",
        "",
        "   \u200b ",
        "a b c d " * 1000,
    ],
)
def test_anything_else_is_unchecked(quote: str) -> None:
    found = match_quote(quote, passage())

    assert found.quotation is Quotation.UNCHECKED
    assert (found.start, found.end, found.around) == (None, None, "")
    assert found.message


def test_what_stands_around_a_quotation_is_shown_with_it() -> None:
    assert "Nobody has shown that" in match_quote("ibuprofen is safe in the third trimester", passage()).around


def test_a_later_place_is_found_where_an_earlier_one_is_part_of_a_word() -> None:
    found = match_quote(
        "safe in the third trimester", passage("unsafe in the third trimester; safe in the third trimester")
    )

    assert found.start == len("unsafe in the third trimester; ")


@pytest.mark.parametrize("quote", [". . . .", "is safe - -", "- is safe . -"])
def test_signs_are_no_words(quote: str) -> None:
    found = match_quote(quote, passage("Nobody says that it - is safe . - - in a row: . . . . so ask"))

    assert found.quotation is Quotation.UNCHECKED


def test_an_accent_is_one_however_it_is_coded() -> None:
    found = match_quote("Ménière's disease comes and goes", passage("Me\u0301nie\u0300re’s disease comes and goes."))

    assert (found.quotation, found.start, found.end) == (
        Quotation.MATCHED,
        0,
        len("Me\u0301nie\u0300re’s disease comes and goes"),
    )


def test_nothing_says_supported() -> None:
    assert {each.value for each in Quotation} == {"Matched", "Unchecked"}
    names = {field.name for kind in (Passage, QuoteMatch) for field in dataclasses.fields(kind)}
    assert not any("support" in name or "true" in name or "verdict" in name for name in names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": " "},
        {"licence": ""},
        {"place": ""},
        {"text": "\n"},
        {"score": float("nan")},
        {"date": "May 2020"},
        {"text": "a" * 100_001},
    ],
)
def test_a_passage_that_nobody_could_cite_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="passage"):
        dataclasses.replace(passage(), **wrong)  # type: ignore[arg-type]


def test_a_citation_tells_a_changed_passage() -> None:
    citation = passage().cite()

    assert citation.digest == digest_of(TEXT)
    assert citation.digest != passage(TEXT + " ").cite().digest
