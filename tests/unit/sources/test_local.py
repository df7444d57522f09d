"""A corpus is its bytes: read, indexed alike every time, searched in both languages, and refused when it is another."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from neurons.sources import CorpusRefused, Quotation, Source, match_quote
from neurons.sources.corpus import digest_of_corpus, load_corpus
from neurons.sources.errors import ClaimRefused
from neurons.sources.index import Index, index_of
from neurons.sources.local import LocalCorpus

XML = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000010" source="GARD" url="https://rarediseases.example.org/5706">
<Focus>Fever in children</Focus>
<QAPairs>
  <QAPair pid="1"><Question qid="0000010-1" qtype="information">What is (are) Fever ?</Question>
    <Answer>A fever of 38 °C or more in a baby under 3 months needs a doctor &amp; no delay.</Answer></QAPair>
  <QAPair pid="2"><Question qid="0000010-2" qtype="treatment">What are the treatments for Fever ?</Question><Answer/></QAPair>
</QAPairs>
</Document>
"""
LINES = (
    {"question_id": "1", "focus": "Ibuprofen", "answer": "Ibuprofen can hurt the kidneys of an unborn baby after week 20.", "url": "https://a.example.org/1", "date": "2024-05"},
    {"id": "2", "title": "मधुमेह", "text": "मधुमेहका बिरामीले खुट्टाको घाउ दिनदिनै हेर्नुपर्छ।", "licence": "CC BY 4.0"},
    {"id": "3", "title": "Sprain", "text": "Rest, ice and raise an ankle that is sprained."},
    {"id": "4", "title": "Sprain", "text": "Rest, ice and raise an ankle that is sprained."},
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "2_GARD").mkdir(parents=True)
    (folder / "2_GARD" / "0000010.xml").write_text(XML)
    (folder / "own.jsonl.gz").write_bytes(gzip.compress("\n".join(json.dumps(each) for each in LINES).encode()))
    return folder


async def opened(path: Path, cache: Path | None = None) -> LocalCorpus:
    return await LocalCorpus.open(path, digest=digest_of_corpus(path), name="Own", licence="CC0", cache=cache)


async def test_the_right_passage_comes_first_in_both_languages(corpus: Path) -> None:
    source = await opened(corpus)

    for claim, title in (
        ("ibuprofen harms a baby's kidney", "Ibuprofen"),
        ("खुट्टामा घाउ", "मधुमेह"),
        ("babies with fevers", "Fever in children"),
    ):
        found = await source.search(claim)
        assert found[0].title == title
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert isinstance(source, Source)
    assert await source.search("zebra") == []


async def test_a_passage_says_where_it_is_from_and_is_fetched_again(corpus: Path) -> None:
    source = await opened(corpus)
    ibuprofen = (await source.search("ibuprofen"))[0]
    fever = (await source.search("fever"))[0]

    assert (ibuprofen.url, ibuprofen.date, ibuprofen.licence) == ("https://a.example.org/1", "2024-05", "CC0")
    assert fever.text == "A fever of 38 °C or more in a baby under 3 months needs a doctor & no delay."
    assert fever.place == f"corpus:{digest_of_corpus(corpus)}#2_GARD/0000010-1"
    again = await source.fetch(fever.cite())
    assert again is not None
    assert again.cite() == fever.cite()
    assert match_quote("a baby under 3 months needs a doctor & no delay", again).quotation is Quotation.MATCHED


async def test_equal_texts_come_in_the_corpus_order(corpus: Path) -> None:
    source = await opened(corpus)

    assert [each.place[-1] for each in await source.search("sprained ankle", limit=1)] == ["3"]
    assert [each.place[-1] for each in await source.search("sprained ankle")] == ["3", "4"]


async def test_other_bytes_are_refused(corpus: Path) -> None:
    digest = digest_of_corpus(corpus)
    citation = (await (await opened(corpus)).search("fever"))[0].cite()
    (corpus / "2_GARD" / "0000010.xml").write_text(XML.replace("needs a doctor", "needs no doctor"))

    with pytest.raises(CorpusRefused, match=r"isn't used: fetch the named one") as refused:
        load_corpus(corpus, digest=digest)
    assert "doctor" not in str(refused.value).replace(str(corpus), "")
    assert await (await opened(corpus)).fetch(citation) is None


def test_a_files_digest_is_what_sha256sum_says(corpus: Path) -> None:
    file = corpus / "own.jsonl.gz"

    assert digest_of_corpus(file) == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    with pytest.raises(CorpusRefused, match="64 hex digits"):
        load_corpus(file, digest="latest")


def test_what_is_left_out_is_told(corpus: Path) -> None:
    (corpus / "bad.jsonl").write_text(
        '{"id": "9", "text": "patient secret", "date": "May"}\n[]\n{"id": "8"}\n<p>\n{"id": "7", "text": " "}\n{"id": "6", "text": "a"}\n{"id": "6", "text": "b"}\n'
    )
    read = load_corpus(corpus, digest=digest_of_corpus(corpus))

    told = {each.where: each.why for each in read.omitted}
    assert told["2_GARD/0000010.xml, pair 2"].startswith("no text")
    assert {each for each in told if each.startswith("bad")} == {f"bad.jsonl, line {n}" for n in (1, 2, 3, 4, 5, 7)}
    assert read.omissions == len(told) == 7
    assert "secret" not in str(read.omitted)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.xml", b"<html/>", "isn't MedQuAD's"),
        ("a.xml", b"<Document>", "no XML"),
        ("a.xml", b'<!DOCTYPE d [<!ENTITY a "b">]><Document><QAPairs/></Document>', "document type"),
        ("a.xml", b"<Document><QAPairs/></Document>", "holds no text"),
        ("a.jsonl.gz", b"\x1f\x8bnothing", "no whole gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}' * 100, mtime=0)[:-9], "no whole gzip"),
        ("a.jsonl", b"PK\x03\x04", "compressed"),
        ("a.csv", b"a,b", "neither"),
    ],
)
def test_what_is_no_corpus_is_refused_in_words(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CorpusRefused, match=why):
        load_corpus(tmp_path / name, digest=digest_of_corpus(tmp_path / name))


def test_the_index_is_the_same_every_time_and_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load_corpus(corpus, digest=digest_of_corpus(corpus))
    for cache in ("one", "two"):
        index_of(read, cache=tmp_path / cache)
    first, second = (
        {
            each.relative_to(tmp_path / cache): each.read_bytes()
            for each in (tmp_path / cache).rglob("*")
            if each.is_file()
        }
        for cache in ("one", "two")
    )
    assert first == second

    built = []
    build = Index.build
    monkeypatch.setattr(Index, "build", lambda corpus: built.append(1) or build(corpus))
    kept = index_of(read, cache=tmp_path / "one")
    assert not built
    assert kept.search("fever", limit=3) == build(read).search("fever", limit=3)

    [file] = (tmp_path / "one").rglob("indices.*")
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    assert index_of(read, cache=tmp_path / "one").search("fever", limit=3) == kept.search("fever", limit=3)
    assert built, "an altered index was used"


@pytest.mark.parametrize("claim", ["", " …!", "a" * 2001])
async def test_what_is_no_claim_is_refused(corpus: Path, claim: str) -> None:
    with pytest.raises(ClaimRefused):
        await (await opened(corpus)).search(claim)
