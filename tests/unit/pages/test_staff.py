"""Behind the sign-in: a doctor corrects the own twin's answers and brings conversations; an operator looks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neurons.ledger import Ledger, Training, Twin, derived_id
from neurons.privacy import Identifier, Removed, Scrubbed
from neurons.validator.gateway.keys import ApiKey, Role, hash_of, new_key
from neurons.validator.gateway.scrubbing import Clean
from neurons.validator.pages.cleaning import mark
from tests.unit.gateway.running_gateway import write_keys
from tests.unit.pages.browsing import TWINS, Browser, kept, pages, without_maya

DOCTOR, OTHER, OPERATOR, CLIENT = (new_key() for _ in range(4))
KEYS: Mapping[str, Mapping[str, Any]] = {
    "gurung": {"key": DOCTOR, "role": "doctor", "twins": ["indra"]},
    "rai": {"key": OTHER, "role": "doctor", "twins": ["maya"]},
    "ops": {"key": OPERATOR, "role": "operator"},
    "plain": {"key": CLIENT},
}
UID = str(TWINS["twins"][0]["uid"])  # type: ignore[index]


class KnowsMaya:
    """A scrubber that knows one name, and says where it stood."""

    def __call__(self, text: str, /) -> Clean:
        return without_maya(text)

    def preview(self, text: str) -> Scrubbed:
        at = text.find("Maya Rai")
        found = () if at < 0 else (Removed(Identifier.NAME, at, at + 8, "Maya Rai"),)
        return Scrubbed(without_maya(text).text, found, {"name": len(found)})


async def sign_in(browser: Browser, key: str) -> tuple[int, str]:
    await browser.get("/sign-in")
    return await browser.submit("/sign-in", {"key": key})


async def test_each_key_opens_its_own_pages_and_no_others(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",), keys=KEYS) as running, running.browser() as browser:
        for path in ("/desk", "/desk/indra", "/desk/indra/upload", "/desk/indra/learned", "/miners"):
            assert (await browser.get(path))[0] == 403, path
        for wrong in (CLIENT, "bt-nothing", ""):
            assert (await sign_in(browser, wrong))[0] == 403
        status, shown = await sign_in(browser, DOCTOR)
        assert status == 200
        assert "Dr. Indra Gurung" in shown
        assert (await browser.get("/desk/maya"))[0] == 404
        assert (await browser.get("/desk/maya/upload"))[0] == 404
        assert (await browser.get("/miners"))[0] == 403
        # A key that is taken back opens nothing any more, at once.
        write_keys(tmp_path / "keys.json", ops=KEYS["ops"])
        running.gateway.service._keys.refresh()
        assert (await browser.get("/desk"))[0] == 403
        status, shown = await sign_in(browser, OPERATOR)
        assert status == 200
        assert "Rounds are not shown here" in shown
        assert (await browser.get("/desk"))[0] == 403
        await browser.submit("/sign-out", {})
        assert (await browser.get("/miners"))[0] == 403


async def test_the_operator_sees_how_each_miner_stands(tmp_path: Path) -> None:
    async with pages(tmp_path, names=("Alice",), keys=KEYS) as running, running.browser() as browser:
        await browser.get("/doctor/indra")
        await browser.ask("My head hurts")
        _, shown = await sign_in(browser, OPERATOR)
        assert running.gateway.miners[0].keypair.ss58_address[:12] in shown
        assert "As of block 1000" in shown
        assert "Miners: 1." in shown
        assert "<td>1</td></tr>" in shown


async def test_a_doctor_corrects_an_answer_and_sees_first_what_is_removed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with (
        pages(tmp_path, names=("Alice",), keys=KEYS, settings={"ledger_url": url}, scrub=KnowsMaya()) as running,
        running.browser() as patient,
        running.browser() as doctor,
        running.browser() as other,
    ):
        await patient.get("/doctor/indra")
        more = (await patient.ask("I am Maya Rai, my head hurts"))[-2]["bettertherapy"]
        await kept(url, more["questionId"], lambda view: view.answers)
        await sign_in(doctor, DOCTOR)
        _, shown = await doctor.get("/desk/indra")
        assert "I am [NAME], my head hurts" in shown
        assert "not to be learned from" in shown
        assert "Maya" not in shown
        path = f"/desk/indra/question/{more['questionId']}"
        assert "It is fine." in (await doctor.get(path))[1]
        fields = {"answerId": more["answerId"], "text": "Maya Rai should\r\nrest."}
        status, shown = await doctor.submit(f"{path}/correct", fields)
        assert status == 200
        assert "<del>Maya Rai</del>" in shown
        assert not (await kept(url, more["questionId"], lambda view: True)).corrections  # nothing before it was seen
        status, shown = await doctor.submit(f"{path}/correct", fields | {"seen": mark("Maya Rai should\nrest.")})
        assert status == 200
        [correction] = (await kept(url, more["questionId"], lambda view: view.corrections)).corrections
        assert correction.text.text == "[NAME] should\nrest."
        assert correction.doctor_id == derived_id("doctor", "gurung")
        assert "[NAME] should" in (await doctor.get(path))[1]
        assert "corrected" in (await doctor.get("/desk/indra"))[1]
        assert (await doctor.submit(f"{path}/correct", fields | {"answerId": more["questionId"]}))[0] == 400
        # Another doctor has no part in it, whichever twin is named.
        await sign_in(other, OTHER)
        assert (await other.get(path))[0] == 404
        assert (await other.get(path.replace("indra", "maya")))[0] == 404


async def test_without_models_nothing_of_a_doctors_is_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with pages(
        tmp_path, names=("Alice",), keys=KEYS, settings={"ledger_url": url, "interactions_store": f"file://{tmp_path}/store"},
        scrub=without_maya,
    ) as running, running.browser() as browser:  # fmt: skip
        await browser.get("/doctor/indra")
        more = (await browser.ask("My head hurts"))[-2]["bettertherapy"]
        await kept(url, more["questionId"], lambda view: view.answers)
        await sign_in(browser, DOCTOR)
        path = f"/desk/indra/question/{more['questionId']}/correct"
        assert (await browser.submit(path, {"answerId": more["answerId"], "text": "Rest."}))[0] == 503
        said = {"messages": [{"role": "user", "content": "Can I fly?"}, {"role": "assistant", "content": "Yes."}]}
        fields = {"conversations": json.dumps(said), "shape": "openai", "consent": "yes", "seen": "x"}
        assert (await browser.submit("/desk/indra/upload", fields))[0] == 503
        assert not (tmp_path / "store").exists()


async def test_conversations_are_brought_once_they_were_seen_and_agreed_to(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    said = "\n".join(
        json.dumps(each)
        for each in (
            {
                "messages": [
                    {"role": "user", "content": "I am Maya Rai. Can I fly?"},
                    {"role": "assistant", "content": "Yes, you can."},
                ]
            },
            {"messages": [{"role": "user", "content": "Hello"}], "consent": False},
            {
                "messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B is right."}],
                "consent": False,
            },
            {"mesages": []},
        )
    )
    settings = {"interactions_store": f"file://{store}", "ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    given = {"keys": KEYS, "settings": settings, "scrub": KnowsMaya()}
    async with pages(tmp_path, names=("Alice",), **given) as running, running.browser() as browser:
        await sign_in(browser, DOCTOR)
        fields = {"conversations": said, "shape": "openai"}
        for more in ({}, {"consent": "yes"}, {"seen": mark(said)}, {"consent": "yes", "seen": mark(said + "x")}):
            status, shown = await browser.submit("/desk/indra/upload", fields | more)
            assert status == 200
            assert "<del>Maya Rai</del>" in shown
            assert "I am [NAME]. Can I fly?" in shown
            assert shown.count("Not kept:") == 3
            assert not list(store.rglob("*.jsonl"))
        for _ in range(2):  # brought twice, it lies there once
            status, shown = await browser.submit("/desk/indra/upload", fields | {"consent": "yes", "seen": mark(said)})
            assert status == 200
            assert "Conversations kept: 1." in shown
        [file] = store.rglob("*.jsonl")
        assert file.parent == store / "indra" / "interactions"
        [line] = [json.loads(each) for each in file.read_text().splitlines()]
        assert line["messages"][0]["content"] == "I am [NAME]. Can I fly?"
        assert line["consent"] is True
        status, shown = await browser.submit("/desk/indra/upload", fields | {"conversations": "a,b\n1,2"})
        assert not list(store.rglob("*.jsonl"))[1:]


async def test_a_doctor_sees_what_the_versions_learned(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with await Ledger.open(url) as ledger:
        await ledger.record(
            Training(
                training_id=derived_id("t", "1"), run="dr-night-1", twin=Twin(uid=UID, name="indra"),
                dataset_digest="sha256:" + "d" * 64, adapter_digest="sha256:" + "a" * 64, at_ms=1_700_000_000_000,
                line_digests=("0" * 32, "1" * 32),
            )
        )  # fmt: skip
    async with (
        pages(tmp_path, names=(), keys=KEYS, settings={"ledger_url": url}, scrub=without_maya) as running,
        running.browser() as browser,
    ):
        await sign_in(browser, DOCTOR)
        status, shown = await browser.get("/desk/indra/learned")
        assert status == 200
        assert "indra-aaaaaaaa" in shown
        assert "dr-night-1" in shown
        assert "<dd>2</dd>" in shown
        assert "2023-11-14" in shown


@pytest.mark.parametrize("twins", [None, (), ("dr-*",), ("dr-?",), ("[a]",)])
def test_a_doctors_key_names_its_twins_whole(twins: tuple[str, ...] | None) -> None:
    with pytest.raises(ValidationError, match="names each of its twins"):
        ApiKey(id="x", hash=hash_of("k"), twins=twins, role=Role.DOCTOR)
    assert ApiKey(id="x", hash=hash_of("k"), twins=("dr-x",), role=Role.DOCTOR).may_ask("dr-x")
