"""Whatever a service or a file holds: passages come out, or one of the declared errors, and nothing of what was read or asked."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.sources import CorpusRefused, FormatChanged, Passage, SourceError, match_quote
from neurons.sources import asking as asking_module
from neurons.sources.asking import Reply
from neurons.sources.corpus import digest_of_corpus, load_corpus
from neurons.sources.documents import Document, Omitted, read_documents
from neurons.sources.index import Index
from neurons.sources.kept import Kept
from neurons.sources.local import LocalCorpus
from neurons.sources.medlineplus import MedlinePlus
from neurons.sources.openfda import OpenFda
from neurons.sources.passage import MAX_TEXT, Citation
from neurons.sources.pubmed import PubMed
from neurons.sources.remote import RemoteSource
from neurons.sources.rxnav import RxNav
from neurons.sources.tokens import content_words, tokens
from tests.unit.sources import answers

SECRET = "zzconfidentialzz"
"""Stands in the claim, and in what is answered: services repeat what they were asked."""
CLAIM = f"ibuprofen against fever {SECRET}"


class Nobody:
    def find(self, text: str) -> tuple[()]:
        return ()


class Canned:
    """A service that answers with the given bytes, one after the other, the last one again and again."""

    def __init__(self, *bodies: bytes, none: bool = False) -> None:
        self._bodies = list(bodies)
        self._none = none

    async def get(self, path: str, params: object, *, until: float) -> Reply:
        return Reply(self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0], none=self._none)

    async def close(self) -> None:
        pass


SOURCES: dict[str, tuple[Callable[[], RemoteSource], tuple[str, ...], str]] = {
    "MedlinePlus": (lambda: MedlinePlus(finder=Nobody()), (answers.MEDLINEPLUS,), "https://medlineplus.gov/fever.html"),
    "openFDA": (lambda: OpenFda(finder=Nobody()), (answers.OPENFDA,),
                f"https://dailymed.nlm.nih.gov/dailymed/drugInfo.cfm?setid={answers.SET_ID}#pregnancy"),
    "PubMed": (lambda: PubMed(finder=Nobody(), email="a@example.org"), (answers.ESEARCH, answers.EFETCH),
               "https://pubmed.ncbi.nlm.nih.gov/123456/"),
    "RxNav": (lambda: RxNav(finder=Nobody()), (answers.RXNAV,),
              "https://mor.nlm.nih.gov/RxNav/search?searchBy=RXCUI&searchTerm=5640#CI_with"),
}  # fmt: skip


async def unchecked(text: str, *, until: float) -> None:
    """Let everything out: it goes nowhere."""


def asked(name: str, *bodies: bytes, none: bool = False, kept: Path | None = None) -> tuple[Passage, ...]:
    """Search and fetch; return what was found, or nothing when it is a declared error without a secret in it."""
    make, _, place = SOURCES[name]
    found: list[Passage] = []
    for fetching in (False, True):
        source = make()
        source._service = Canned(*bodies[-1:] if fetching else bodies, none=none)  # type: ignore[assignment]
        source._kept = Kept(folder=kept)
        source._check = unchecked  # type: ignore[method-assign]  # a thread for each example takes minutes
        try:
            if fetching:
                again = asyncio.run(source.fetch(Citation(source=name, title="Fever", place=place, digest="")))
                found += [again] if again else []
            else:
                found += asyncio.run(source.search(CLAIM))
        except SourceError as error:
            shown = f"{error!s} {error!r}"
            assert SECRET not in shown
            assert len(shown) < 600
            assert error.__cause__ is None  # noqa: PT017 - other examples raise nothing
    for each in found:
        assert each.cite().digest.startswith("sha256:")
        assert each.url is None or each.url.startswith("http")
    return tuple(found)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**400), st.just(SECRET), st.text(max_size=20),
    st.sampled_from(["", " ", "\u200b", "\ud800", "x" * (MAX_TEXT + 1), "javascript:alert(1)", "99999999", "1" * 5000]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with some of its parts replaced, left out or told twice."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)) > 0:
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: each for name, each in value.items() if name != key}
        match draw(st.integers(0, 4)):
            case 0:
                return rest
            case 1:
                return {**rest, draw(st.text(max_size=8)): value[key]}
            case _:
                return {**rest, key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 9)) > 0:
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + draw(st.integers(0, 1)) :]]
    return draw(VALUES)


@st.composite
def garbled(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes with some replaced, left out or repeated, or others in their place."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 12)))
        new = draw(st.one_of(
            st.binary(max_size=4), st.just(content[start:end] * 2),
            st.sampled_from([b"", b"<", b">", b"&amp;", b"&x;", b"]]>", b"<!--", b"\x00", b"\xff", b"null", b'"', b"{", b"<a>"]),
        ))  # fmt: skip
        content = content[:start] + new + content[end:]
    return content


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(st.data())
@pytest.mark.parametrize("name", ["openFDA", "RxNav", "PubMed"])
def test_any_json_of_a_service_gives_passages_or_a_declared_error(name: str, data: st.DataObject) -> None:
    first, *others = SOURCES[name][1]
    asked(name, dumped(data.draw(changed(json.loads(first)))), *(each.encode() for each in others))


@given(st.data())
@pytest.mark.parametrize("name", list(SOURCES))
def test_any_bytes_of_a_service_give_passages_or_a_declared_error(name: str, data: st.DataObject) -> None:
    *others, last = (each.replace("METHODS", SECRET).encode() for each in SOURCES[name][1])
    asked(name, *others, data.draw(garbled(last)), none=data.draw(st.booleans()))


@settings(max_examples=30)
@given(changed(json.loads(answers.OPENFDA)))
def test_whatever_is_a_passage_can_be_kept_on_disk_and_read_again(tmp_path_factory: Any, value: Any) -> None:
    folder = tmp_path_factory.mktemp("kept")
    found = asked("openFDA", dumped(value), kept=folder)
    kept = Kept(folder=folder).get("openFDA", CLAIM, 5)
    assert kept is None or set(kept) <= set(found)


LAUGHS = "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 10))
BOMBS = {
    "billion laughs": f'<!DOCTYPE R [<!ENTITY a0 "ha">{LAUGHS}]><R>&a9;</R>',
    "quadratic": f'<!DOCTYPE R [<!ENTITY a "{"x" * 50_000}">]><R>{"&a;" * 50_000}</R>',
    "a file of ours": '<!DOCTYPE R [<!ENTITY a SYSTEM "file:///etc/passwd">]><R>&a;</R>',
    "another's file": '<!DOCTYPE R [<!ENTITY % a SYSTEM "http://127.0.0.1:1/a"> %a;]><R/>',
    "an attribute of the kind": '<!DOCTYPE R [<!ENTITY a "b"><!ATTLIST R url CDATA "&a;">]><R/>',
}
ROOTS = {"MedlinePlus": "nlmSearchResult", "PubMed": "PubmedArticleSet"}


@pytest.mark.parametrize("bomb", list(BOMBS))
@pytest.mark.parametrize("name", list(ROOTS))
def test_no_entity_of_a_service_is_ever_read(name: str, bomb: str) -> None:
    source = SOURCES[name][0]()
    body = BOMBS[bomb].replace("R>", f"{ROOTS[name]}>").replace("DOCTYPE R", f"DOCTYPE {ROOTS[name]}").encode()
    source._service = Canned(*(each.encode() for each in SOURCES[name][1][:-1]), body)  # type: ignore[assignment]
    with pytest.raises(FormatChanged, match="documented format"):
        asyncio.run(source.search(CLAIM))


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_no_entity_of_a_corpus_is_ever_read(bomb: str) -> None:
    with pytest.raises(CorpusRefused, match="declares a document type"):
        list(read_documents("a.xml", io.BytesIO(BOMBS[bomb].encode())))


@pytest.mark.parametrize("name", list(SOURCES))
def test_endless_nesting_is_a_changed_format(name: str) -> None:
    opening = b"<a>" if SOURCES[name][1][-1].startswith("<") else b"["
    assert asked(name, *(each.encode() for each in SOURCES[name][1][:-1]), opening * 200_000) == ()
    closed = f"<{ROOTS.get(name, 'a')}>" + "<a>" * 200_000 + "</a>" * 200_000 + f"</{ROOTS.get(name, 'a')}>"
    assert asked(name, *(each.encode() for each in SOURCES[name][1][:-1]), closed.encode()) == ()


async def test_an_answer_that_unpacks_to_very_much_is_left(aiohttp_base: Callable[[bytes], Any]) -> None:
    packed = gzip.compress(b"\x00" * (256 << 20), compresslevel=9)
    base = await aiohttp_base(packed)
    source = OpenFda(finder=Nobody(), base=base)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="4 MiB"):
            await source.search(CLAIM, seconds=60)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
        await source.close()


@pytest.fixture
async def aiohttp_base() -> Any:
    """Return what serves a body that is packed by gzip and says where."""
    from aiohttp import web

    runners: list[web.AppRunner] = []

    async def serve(packed: bytes) -> str:
        app = web.Application()

        async def answer(_: web.Request) -> web.Response:
            return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

        app.router.add_get("/{path:.*}", answer)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        return site.name

    yield serve
    for each in runners:
        await each.cleanup()


@given(st.one_of(
    st.none(), st.text(max_size=40), st.integers().map(str), st.from_regex(r"\d{1,30}", fullmatch=True),
    st.builds("{}, {} {} {} {}:00:00 {}".format, st.text(max_size=3), st.integers(), st.sampled_from(["Jan", "Feb", "x"]),
              st.integers(), st.integers(0, 99), st.sampled_from(["GMT", "+9999", "-2359", "+2359", ""])),
))  # fmt: skip
def test_whatever_a_service_says_of_waiting_is_a_time(told: str | None) -> None:
    seconds = asking_module._seconds(told)
    assert math.isfinite(seconds)
    assert 0 <= seconds <= 86_400


LINE = {
    "text": "A fever is a high body temperature.", "id": "1", "title": "Fever", "url": "https://example.org/", "source": "S",
    "licence": "L", "date": "2024-05", "question": "What is a fever?",
}  # fmt: skip
MEDQUAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Document id="1" source="NIH" url="https://example.org/a"><Focus>Fever</Focus>'
    b"<QAPairs><QAPair><Question>What is a fever?</Question><Answer>A high body temperature.</Answer></QAPair></QAPairs></Document>"
)


def check_corpus(name: str, content: bytes) -> None:
    """Read a file of a corpus, and make a passage of each of its texts as a search does."""
    try:
        read = list(read_documents(name, io.BytesIO(content)))
    except CorpusRefused as error:
        assert SECRET not in str(error)  # noqa: PT017 - other examples raise nothing
        return
    for each in read:
        if isinstance(each, Omitted):
            assert SECRET not in each.why
        else:
            source = LocalCorpus.__new__(LocalCorpus)
            source._name, source._licence = "S", "L"
            source._corpus = type("C", (), {"digest": f"sha256:{'0' * 64}"})()
            assert source._passage(each, 1.0).text == each.text


@given(st.data())
def test_any_line_of_a_corpus_is_a_text_or_left_out(data: st.DataObject) -> None:
    lines = [dumped(data.draw(changed(LINE | {SECRET: SECRET}))) for _ in range(data.draw(st.integers(1, 3)))]
    check_corpus("a.jsonl", b"\n".join(lines))


@given(st.data())
@pytest.mark.parametrize("name", ["a.jsonl", "a.xml", "a.jsonl.gz", "a.xml.gz"])
def test_any_bytes_of_a_corpus_are_read_or_refused(name: str, data: st.DataObject) -> None:
    content = MEDQUAD if ".xml" in name else dumped(LINE)
    if name.endswith(".gz") and data.draw(st.booleans()):
        check_corpus(name, gzip.compress(data.draw(garbled(content))))
    else:
        check_corpus(name, data.draw(garbled(gzip.compress(content) if name.endswith(".gz") else content)))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.xml.gz"])
def test_a_corpus_that_unpacks_to_very_much_is_refused_before_it_is_unpacked(name: str) -> None:
    packed = gzip.compress(b" " * (128 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(CorpusRefused, match="longer than"):
            list(read_documents(name, io.BytesIO(packed)))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a\nb.jsonl", "a\udcff.jsonl"])
def test_a_name_that_a_list_of_digests_cant_hold_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(dumped(LINE))
    with pytest.raises(CorpusRefused, match="odd name"):
        digest_of_corpus(tmp_path)
    with pytest.raises(CorpusRefused, match="odd name"):
        load_corpus(tmp_path, digest=f"sha256:{'0' * 64}")


@given(st.text(max_size=200), st.text(min_size=1, max_size=200))
def test_any_text_is_looked_up_and_compared(quote: str, text: str) -> None:
    tokens(quote)
    assert all(each == each.lower() and each.strip() for each in content_words(quote))
    try:
        passage = Passage(source="S", title="T", place="p", licence="L", text=text, score=0)
    except ValueError:
        return
    for each in (quote, text):
        match = match_quote(each, passage)
        if match.start is not None and match.end is not None:
            assert 0 <= match.start < match.end <= len(text)
            assert text[match.start : match.end] in match.around


@settings(max_examples=40)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.text(max_size=60), st.integers(1, 100))
def test_any_corpus_is_searched_for_anything(texts: list[str], claim: str, limit: int) -> None:
    from neurons.sources.corpus import Corpus

    documents = tuple(Document(id=str(place), title="", text=each) for place, each in enumerate(texts))
    hits = Index.build(Corpus(f"sha256:{'0' * 64}", documents, (), 0)).search(claim, limit=limit)
    assert len(hits) <= min(limit, len(texts))
    assert len({each.place for each in hits}) == len(hits)
