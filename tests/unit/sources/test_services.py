"""The clients against a stand-in server: right answers, none, and every way in which a service can fail."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from neurons.privacy import Deidentifier, TextRefused
from neurons.sources import ClaimRefused, FormatChanged, NoAnswer, RateLimited, Retracted, SourceError
from neurons.sources import asking as asking_module
from neurons.sources.contract import ContractBroken, check_source
from neurons.sources.kept import Kept
from neurons.sources.medlineplus import MedlinePlus
from neurons.sources.openfda import OpenFda
from neurons.sources.passage import Citation, Passage
from neurons.sources.pubmed import PubMed
from neurons.sources.remote import RemoteSource
from neurons.sources.rxnav import RxNav
from tests.unit.sources import answers

Answer = Callable[[web.Request], web.StreamResponse | None]
CLAIM = "ibuprofen against fever in pregnancy"


class Finder:
    """Finds the words it is told, or can't look; what it read is known."""

    def __init__(self, *words: str, fails: bool = False) -> None:
        self.words, self.fails = words, fails

    def find(self, text: str) -> list[str]:
        if self.fails:
            raise TextRefused("a script that no recogniser reads")
        return [each for each in self.words if each in text]


NOBODY = Finder()


class StandIn:
    """One server for all four services; `first` answers before they do."""

    def __init__(self) -> None:
        self.first: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.hanging = False
        self.base = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if self.hanging:
            await asyncio.sleep(30)
        if self.first and (answer := self.first.pop(0)(request)) is not None:
            return answer
        said = " ".join(request.query.values()).lower()
        known = any(each in said for each in ("fever", "ibuprofen", "123456", answers.SET_ID))
        match request.path.rsplit("/", 1)[-1]:
            case "query":
                return web.Response(
                    text=answers.MEDLINEPLUS if known else answers.MEDLINEPLUS_NONE, content_type="text/xml"
                )
            case "label.json":
                return (
                    web.Response(text=answers.OPENFDA)
                    if known
                    else web.json_response({"error": {"code": "NOT_FOUND", "message": "No matches found!"}}, status=404)
                )
            case "esearch.fcgi":
                return (
                    web.Response(text=answers.ESEARCH)
                    if known
                    else web.json_response({"esearchresult": {"idlist": []}})
                )
            case "efetch.fcgi":
                return web.Response(text=answers.EFETCH, content_type="text/xml")
            case _:
                said_of_it = "ibuprofen" in said or "5640" in request.query.values()
                return web.Response(text=answers.RXNAV) if said_of_it else web.json_response({})


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    monkeypatch.setattr(asking_module, "_FIRST_PAUSE", 0.01)
    standin = StandIn()
    app = web.Application()
    app.router.add_get("/{path:.*}", standin.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    standin.base = site.name
    yield standin
    await runner.cleanup()


@pytest.fixture(params=["MedlinePlus", "openFDA", "PubMed", "RxNav"])
async def source(request: pytest.FixtureRequest, service: StandIn) -> AsyncIterator[RemoteSource]:
    made: dict[str, Callable[[], RemoteSource]] = {
        "MedlinePlus": lambda: MedlinePlus(finder=NOBODY, base=service.base),
        "openFDA": lambda: OpenFda(finder=NOBODY, base=service.base, key="sekret"),
        "PubMed": lambda: PubMed(finder=NOBODY, base=service.base, email="a@example.org", key="sekret"),
        "RxNav": lambda: RxNav(finder=NOBODY, base=service.base),
    }
    found = made[request.param]()
    found._service._gap = 0.0  # the pace is tested by itself
    yield found
    await found.close()


async def test_every_client_keeps_the_contract(source: RemoteSource) -> None:
    await check_source(source, found=CLAIM, absent="zebras gallop", seconds=20)


async def test_passages_are_the_services_texts(service: StandIn) -> None:
    found = {}
    for each in (
        MedlinePlus(finder=NOBODY, base=service.base),
        OpenFda(finder=NOBODY, base=service.base),
        PubMed(finder=NOBODY, base=service.base, email="a@example.org"),
        RxNav(finder=NOBODY, base=service.base),
    ):
        found[each.name] = (await each.search(CLAIM, limit=1, seconds=20))[0]
        await each.close()

    assert (
        found["MedlinePlus"].text == "A fever is a body temperature that is higher than normal.\nBabies under 3 months"
    )
    assert (found["MedlinePlus"].title, found["MedlinePlus"].place) == ("Fever", "https://medlineplus.gov/fever.html")
    assert (found["openFDA"].title, found["openFDA"].date) == ("IBUPROFEN: pregnancy", "2024-05-01")
    assert found["PubMed"].text == "METHODS: We followed 100 babies with fever.\nMost had a virus."
    assert (found["PubMed"].title, found["PubMed"].date) == ("Fever in babies.", "2021-03")
    assert found["RxNav"].text in (
        "ibuprofen may treat: Fever",
        "ibuprofen is contraindicated with: Asthma; Peptic Ulcer",
    )


async def test_a_service_that_is_busy_is_asked_again_when_it_says(service: StandIn, source: RemoteSource) -> None:
    service.first = [lambda _: web.Response(status=429, headers={"Retry-After": "1"})]
    begun = time.monotonic()

    assert await source.search(CLAIM, seconds=30)
    assert time.monotonic() - begun >= 1


async def test_a_service_that_is_busy_for_longer_than_there_is_time_is_left_alone(
    service: StandIn, source: RemoteSource
) -> None:
    service.first = [lambda _: web.Response(status=429, headers={"Retry-After": "3600"})]
    for _ in range(2):
        with pytest.raises(RateLimited) as limited:
            await source.search(CLAIM, seconds=20)
        assert limited.value.seconds > 3500
    assert len(service.asked) == 1, "it was asked again although it asked to wait"


async def test_a_service_that_fails_once_is_asked_again_and_one_that_is_down_is_not_waited_for(
    service: StandIn, source: RemoteSource
) -> None:
    service.first = [lambda _: web.Response(status=502)]
    assert await source.search(CLAIM, seconds=20)

    service.first = [lambda _: web.Response(status=500)] * 3
    with pytest.raises(NoAnswer, match="status 500"):
        await source.search(CLAIM + " again", seconds=20)


async def test_a_slow_service_is_left_when_the_time_is_over(service: StandIn, source: RemoteSource) -> None:
    service.hanging = True
    begun = time.monotonic()
    with pytest.raises(NoAnswer):
        await source.search(CLAIM, seconds=0.3)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>moved</html>",
        "{}x",
        "[]",
        '{"results": [{}]}',
        '{"rxclassDrugInfoList": []}',
        '<!DOCTYPE a [<!ENTITY b "c">]><nlmSearchResult>&b;</nlmSearchResult>',
    ],
)
async def test_a_changed_format_is_said_and_not_guessed(service: StandIn, source: RemoteSource, body: str) -> None:
    service.first = [lambda _: web.Response(text=body)]
    with pytest.raises(FormatChanged, match="documented format"):
        await source.search(CLAIM, seconds=20)


async def test_a_huge_answer_is_not_read(service: StandIn, source: RemoteSource) -> None:
    service.first = [lambda _: web.Response(body=b" " * ((4 << 20) + 1))]
    with pytest.raises(NoAnswer, match="4 MiB"):
        await source.search(CLAIM, seconds=60)


async def test_no_message_holds_the_claim_or_a_key(service: StandIn, source: RemoteSource) -> None:
    for status in (400, 500, 302):
        service.first = [lambda _, status=status: web.Response(status=status, headers={"Location": "/"})] * 3  # type: ignore[misc]
        with pytest.raises(SourceError) as error:
            await source.search("ibuprofen confidential", seconds=20)
        shown = f"{error.value!r} {error.value.__cause__!r}"
        assert "confidential" not in shown
        assert "sekret" not in shown


async def test_what_identifies_a_person_is_not_sent(service: StandIn, source: RemoteSource) -> None:
    with pytest.raises(ClaimRefused, match="identify"):
        await source.search("call me at +977 9841234567 about ibuprofen")
    assert not service.asked


async def test_a_missing_page_of_openfda_is_not_taken_for_nothing_found(service: StandIn) -> None:
    source = OpenFda(finder=NOBODY, base=service.base)
    service.first = [lambda _: web.Response(status=404, text="<html>moved</html>")]
    with pytest.raises(FormatChanged, match="documented format"):
        await source.search(CLAIM, seconds=20)
    await source.close()


async def test_nobody_is_named_to_a_service_whatever_finds_the_name(service: StandIn, source: RemoteSource) -> None:
    for finder, why in ((Finder("Jorvanna"), "may identify"), (Finder(fails=True), "can't be looked for")):
        source._finder = finder
        with pytest.raises(ClaimRefused, match=why) as error:
            await source.search("Jorvanna takes ibuprofen against fever")  # a name that no rule of ours knows
        assert "Jorvanna" not in str(error.value)
    assert not service.asked


async def test_a_finder_that_hangs_lets_nothing_out(service: StandIn, source: RemoteSource) -> None:
    class Slow(Finder):
        def find(self, text: str) -> list[str]:
            released.wait(20)
            return []

    released = threading.Event()
    source._finder = Slow()
    try:
        with pytest.raises(NoAnswer, match="nothing was sent"):
            await source.search(CLAIM, seconds=0.1)
    finally:
        released.set()
    assert not service.asked


async def test_the_packaged_models_keep_a_name_inside(service: StandIn) -> None:
    source = RxNav(finder=Deidentifier.load(), base=service.base)
    with pytest.raises(ClaimRefused, match="identify"):
        await source.search("margaret holloway takes ibuprofen")
    assert not service.asked
    assert await source.search("ibuprofen is contraindicated with asthma", seconds=20)
    await source.close()


async def test_a_service_gets_words_of_the_claim_in_small_letters_and_nothing_around_them(
    service: StandIn, source: RemoteSource
) -> None:
    await source.search('Fever "AND" ibuprofen) OR set_id:* [tiab] #1 <b>', seconds=20)

    own = {"healthtopics", "title", "pubmed", "relevance", "bettertherapy", "example", "org", "json", "xml", "abstract"}
    own |= {"openfda", "generic", "name", "brand", "medrt", "or", "and", "a", "sekret"}
    sent = {
        word for asked in service.asked for value in asked.values() for word in re.findall(r"[^\W_]+", value.lower())
    }
    said = {"fever", "ibuprofen", "set", "id", "tiab", "b"}
    assert {word for word in sent - own if not word.isdigit()} <= said
    assert not any(sign in value for asked in service.asked for value in asked.values() for sign in "*[]#<>")


@pytest.mark.parametrize("title", ["Jorvanna Dell", 'Fever" OR "x', "\ud800\u200b", ""])
async def test_a_citation_that_somebody_made_up_carries_nothing_out(service: StandIn, title: str) -> None:
    source = MedlinePlus(finder=Finder("Jorvanna"), base=service.base)
    citation = Citation(source="MedlinePlus", title=title, place="https://medlineplus.gov/x.html", digest="")
    try:
        assert await source.fetch(citation, seconds=20) is None
    except ClaimRefused:
        assert not service.asked
    await source.close()
    assert [each["term"].count('"') for each in service.asked] in ([], [2])
    assert "Jorvanna" not in str(service.asked)


async def test_what_was_found_is_kept_and_the_claim_is_not(service: StandIn, tmp_path: Path) -> None:
    for _ in range(2):  # the second process has the disk only
        source = MedlinePlus(finder=NOBODY, base=service.base, kept=Kept(folder=tmp_path))
        await source.search("fever confidential", seconds=20)
        assert await source.search("fever  confidential", seconds=20)
        await source.close()

    assert len(service.asked) == 1
    assert "confidential" not in "".join(each.name + each.read_text() for each in tmp_path.iterdir())


def test_a_folder_of_what_was_found_is_bounded_and_never_in_the_way(tmp_path: Path) -> None:
    now = [1_000_000.0]
    kept = Kept(entries=3, seconds=10, folder=tmp_path, clock=lambda: now[0])
    passage = Passage(source="S", title="t", place="p", licence="l", text="x", score=1.0)
    (tmp_path / ".partial-left").write_text("by a process that was killed")
    os.utime(tmp_path / ".partial-left", (0, 0))
    (tmp_path / "others.txt").write_text("not ours")
    for number in range(201):
        now[0] += 0.01
        kept.put("S", f"claim {number}", 5, [passage])

    left = {each.name for each in tmp_path.iterdir()}
    assert "others.txt" in left
    assert ".partial-left" not in left
    assert len(left) <= 3 + 1
    file = next(each for each in tmp_path.iterdir() if each.suffix == ".json")
    for content in (b"", b"[{}]", b"[" * 100_000, b'[{"source": "S"}]'):
        file.write_bytes(content)
        assert Kept(folder=tmp_path).get("S", "claim 200", 5) in (None, (passage,))
    unwritable = Kept(folder=tmp_path / "others.txt")
    unwritable.put("S", "a", 5, [passage])
    assert unwritable.get("S", "a", 5) == (passage,)


def test_keeping_is_bounded_and_ends(tmp_path: Path) -> None:
    now = [0.0]
    kept = Kept(entries=2, seconds=10, clock=lambda: now[0])
    passage = Passage(source="S", title="t", place="p", licence="l", text="x", score=1.0)
    for claim in "abc":
        kept.put("S", claim, 5, [passage])

    assert [kept.get("S", claim, 5) for claim in "abc"] == [None, (passage,), (passage,)]
    assert kept.get("S", "c", 4) is None
    now[0] = 10
    assert kept.get("S", "c", 5) is None


async def test_a_service_is_asked_no_oftener_than_its_terms_say(service: StandIn) -> None:
    source = PubMed(finder=NOBODY, base=service.base, email="a@example.org")
    begun = time.monotonic()
    await asyncio.gather(*(source.search(f"fever {word}", seconds=20) for word in ("one", "two")))
    await source.close()

    assert len(service.asked) == 4
    assert time.monotonic() - begun >= 3 / 3 - 0.05


async def test_the_contract_finds_a_source_that_breaks_it(service: StandIn) -> None:
    class Careless(RxNav):
        async def _again(self, citation: object, *, until: float) -> None:
            return None

    with pytest.raises(ContractBroken, match="fetched again"):
        await check_source(Careless(finder=NOBODY, base=service.base), found=CLAIM, absent="zebras gallop", seconds=20)


def _article(marks: str, *, abstract: str = "Fever was seen.") -> str:
    return answers.EFETCH.replace("Most had a virus.", abstract).replace(
        "</MedlineCitation>", f"{marks}</MedlineCitation>"
    )


@pytest.mark.parametrize("marks", [
    '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"><RefSource>x</RefSource></CommentsCorrections></CommentsCorrectionsList>',
    '<CommentsCorrectionsList><CommentsCorrections RefType="ExpressionOfConcernIn"/></CommentsCorrectionsList>',
])  # fmt: skip
async def test_a_paper_that_was_taken_back_is_not_found_and_says_so_when_it_is_cited(
    service: StandIn, marks: str
) -> None:
    source = PubMed(finder=NOBODY, base=service.base, email="a@example.org")
    kept = (await source.search(CLAIM, seconds=20))[0].cite()
    monkey = web.Response(text=_article(marks), content_type="text/xml")
    service.first = [lambda _: None, lambda _: monkey]

    assert await source.search(f"{CLAIM} again", seconds=20) == []
    service.first = [lambda _: web.Response(text=_article(marks), content_type="text/xml")]
    with pytest.raises(Retracted, match="PubMed") as found:
        await source.fetch(kept, seconds=20)
    assert "123456" not in str(found.value)
    await source.close()


async def test_a_paper_whose_type_is_retracted_publication_is_taken_back(service: StandIn) -> None:
    source = PubMed(finder=NOBODY, base=service.base, email="a@example.org")
    body = answers.EFETCH.replace(
        "</Article>",
        '<PublicationTypeList><PublicationType UI="D016428">Journal Article</PublicationType>'
        '<PublicationType UI="D016441">Retracted Publication</PublicationType></PublicationTypeList></Article>',
    )
    service.first = [lambda _: None, lambda _: web.Response(text=body, content_type="text/xml")]

    assert await source.search(CLAIM, seconds=20) == []
    await source.close()


async def test_a_power_is_no_longer_number(service: StandIn) -> None:
    pubmed = PubMed(finder=NOBODY, base=service.base, email="a@example.org")
    abstract = (
        "Counts of 10<sup>9</sup>/L and 10<sup>-3</sup>, CO<sub>2</sub>, the 2<sup>nd</sup> day, 10<sup>5.5</sup>."
    )
    service.first = [
        lambda _: None,
        lambda _: web.Response(text=_article("", abstract=abstract), content_type="text/xml"),
    ]
    text = (await pubmed.search(CLAIM, seconds=20))[0].text
    await pubmed.close()

    assert "Counts of 10\u2079/L and 10\u207b\u00b3, CO2, the 2nd day, 10^5.5." in text

    medlineplus = MedlinePlus(finder=NOBODY, base=service.base)
    body = answers.MEDLINEPLUS.replace("Babies under 3 months", "10&lt;sup&gt;9&lt;/sup&gt; cells in a litre")
    service.first = [lambda _: web.Response(text=body, content_type="text/xml")]
    text = (await medlineplus.search(CLAIM, seconds=20))[0].text
    await medlineplus.close()

    assert "10\u2079 cells in a litre" in text


async def test_what_was_kept_under_another_sources_name_is_not_taken(service: StandIn, tmp_path: Path) -> None:
    """Whoever can write the folder could say anything in another's name."""
    source = MedlinePlus(finder=NOBODY, base=service.base, kept=Kept(folder=tmp_path))
    forged = Passage(source="UpToDate", title="t", place="p", licence="l", text="Fever is best ignored.", score=1.0)
    Kept(folder=tmp_path).put("MedlinePlus", CLAIM, 5, [forged])

    assert [each.source for each in await source.search(CLAIM, seconds=20)] == ["MedlinePlus"]
    await source.close()
