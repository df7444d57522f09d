"""Sessions with history, ratings and preferences: one's own, and each once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from neurons.ledger import Ledger, QueuedLedger
from neurons.validator.gateway.keys import new_key
from neurons.validator.gateway.sessions import Ids
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import RunningGateway, gateway
from tests.unit.gateway.test_keys import bearer
from tests.unit.gateway.test_ledger import scrub
from tests.unit.miner.running_miner import digest


async def test_a_session_knows_what_was_said(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=(), rogues=[RogueMiner()]) as running:
        [rogue] = running.rogues
        status, _, session = await running.post("/v1/sessions", {"model": "indra"})
        assert status == 201
        own = {"x-session-id": session["id"]}
        _, headers, _ = await running.ask("My head aches.", headers=own)
        assert headers["x-session-id"] == session["id"]
        await running.ask("Since two days.", headers=own)
        said = [message["content"] for message in rogue.questions[-1]["messages"]]
        assert said == ["My head aches.", "Drink water and rest.", "Since two days."]
        # A client that repeats all of it is taken at its word, and nothing is there twice.
        messages = [
            {"role": "user", "content": "My head aches."},
            {"role": "assistant", "content": "Drink water and rest."},
            {"role": "user", "content": "And now?"},
        ]
        await running.ask(messages=messages, headers=own)
        assert rogue.questions[-1]["messages"] == messages
        _, shown = await running.get(f"/v1/sessions/{session['id']}")
        assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 2
        assert len(shown["answers"]) == 3
        assert [one["id"] for one in (await running.get("/v1/sessions"))[1]["data"]] == [session["id"]]


async def test_without_a_header_an_answer_names_a_new_session_and_a_repeating_client_keeps_its_own(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, names=(), rogues=[RogueMiner()]) as running:
        _, first, document = await running.ask("Hello")
        again = [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": document["choices"][0]["message"]["content"]},
            {"role": "user", "content": "And?"},
        ]
        _, second, _ = await running.ask(messages=again)
        assert second["x-session-id"] == first["x-session-id"]
        _, third, _ = await running.ask("Hello")
        assert third["x-session-id"] != first["x-session-id"], "another patient may begin with the same word"
        seen = [headers["x-session-id"] for headers in running.rogues[0].headers]
        assert first["x-session-id"] not in seen, "miners get a name of their own for a conversation"
        assert seen[0] == seen[1] != seen[2]


async def test_two_patients_who_begin_alike_are_not_taken_for_one(tmp_path: Path) -> None:
    """Of clients that repeat the conversation and say nothing of whose it is, each goes on in its own session."""
    async with gateway(tmp_path, names=(), rogues=[RogueMiner()]) as running:
        [rogue] = running.rogues

        async def turn(said: list[dict[str, str]], text: str) -> tuple[list[dict[str, str]], str]:
            messages = [*said, {"role": "user", "content": text}]
            _, headers, document = await running.ask(messages=messages)
            answer = document["choices"][0]["message"]["content"]
            return [*messages, {"role": "assistant", "content": answer}], headers["x-session-id"]

        rogue.says = "Namaste. What is it?"
        mine, first = await turn([], "Hello")
        rogue.says = "Good day. What is it?"
        theirs, second = await turn([], "Hello")
        mine, again = await turn(mine, "I took a test and it says that I have HIV.")
        assert again == first
        assert (await turn(theirs, "My knee hurts."))[1] == second
        assert (await turn([{**mine[0]}, {**mine[1], "content": "  Namaste.  What is it?"}], "Are you there?"))[
            1
        ] == first
        # The same words on both sides: nobody can tell whose it is, so it is nobody's of those.
        rogue.says = "Namaste."
        alike, third = await turn([], "Hi")
        _, fourth = await turn([], "Hi")
        mine, fifth = await turn(alike, "I have HIV.")
        assert len({first, second, third, fourth, fifth}) == 5
        assert (await turn(mine, "And now?"))[1] == fifth
        _, shown = await running.get(f"/v1/sessions/{fourth}")
        assert "HIV" not in str(shown)


async def test_only_true_is_a_consent(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=()) as running:
        for given in ("yes", "true", "on", 1, 1.0, "", []):
            status, _, said = await running.post("/v1/sessions", {"model": "indra", "consent": given})
            assert (status, said["error"]["param"]) == (400, "consent")
        assert (await running.post("/v1/sessions", {"model": "indra", "consent": True}))[0] == 201


async def test_another_keys_session_is_not_there(tmp_path: Path) -> None:
    other = new_key()
    async with gateway(tmp_path, names=(), rogues=[RogueMiner()], keys={"other": {"key": other}}) as running:
        _, headers, document = await running.ask("A secret.")
        session, answer = headers["x-session-id"], document["bettertherapy"]["answerId"]
        theirs = bearer(other)
        for path in (f"/v1/sessions/{session}", f"/v1/sessions/{'0' * 8}-0000-0000-0000-{'0' * 12}", "/v1/sessions/x"):
            status, said = await running.get(path, theirs)
            assert (status, said["error"]["code"]) == (404, "session_not_found")
        status, _, said = await running.ask(headers=theirs | {"x-session-id": session})
        assert (status, said["error"]["code"]) == (404, "session_not_found")
        rating = {"sessionId": session, "answerId": answer, "stars": 1}
        assert (await running.post("/v1/ratings", rating, theirs))[0] == 404
        assert (await running.get("/v1/sessions", theirs))[1]["data"] == []
        # Nor may an answer of another session be rated under one's own.
        _, own, _ = await running.ask(headers=theirs)
        status, _, said = await running.post("/v1/ratings", rating | {"sessionId": own["x-session-id"]}, theirs)
        assert (status, said["error"]["code"]) == (404, "answer_not_found")
        assert running.metric("ratings_total", twin="indra", version="indra-aaaaaaaa", rating="1") == 0


async def test_a_rating_counts_once(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        _, headers, document = await running.ask()
        rating = {
            "sessionId": headers["x-session-id"],
            "answerId": document["id"],
            "stars": 4,
            "comment": "<b>fine</b>",
        }
        labels = {"twin": "indra", "version": f"indra-{digest('a')[7:15]}", "process": running.service.metrics.process}
        status, _, made = await running.post("/v1/ratings", rating)
        assert (status, made["stars"]) == (201, 4)
        status, _, again = await running.post("/v1/ratings", rating)
        assert (status, again) == (200, made)
        assert running.metric("ratings_total", rating="4", **labels) == 1
        status, _, changed = await running.post("/v1/ratings", rating | {"stars": 2})
        assert (status, changed["stars"]) == (201, 2)
        assert running.metric("ratings_total", rating="2", **labels) == 0, "the first counts: a counter can't go down"
        for wrong in (
            {"stars": 0},
            {"stars": 6},
            {"stars": "5"},
            {"stars": 4.5},
            {"answerId": "x"},
            {"comment": "x" * 5000},
        ):
            assert (await running.post("/v1/ratings", rating | wrong))[0] == 400


async def test_a_blind_comparison_becomes_a_preference(tmp_path: Path) -> None:
    rogues = [RogueMiner(name="Eve", says="Rest and drink."), RogueMiner(name="Ferdie", says="Drink and sleep well.")]
    async with gateway(tmp_path, names=(), rogues=rogues) as running:
        status, headers, document = await running.ask(bettertherapy={"compare": True})
        assert status == 200
        more = document["bettertherapy"]
        assert {choice["message"]["content"] for choice in document["choices"]} == {each.says for each in rogues}
        blind = str(document) + str(dict(headers))
        assert not any(each.keypair.ss58_address in blind for each in rogues), "nobody is told whose they are"
        assert not any(each.keypair.public_key.hex() in blind for each in rogues)
        first, second = (each["answerId"] for each in more["compared"])
        choice = {"sessionId": headers["x-session-id"], "preferredId": first}
        status, _, said = await running.post("/v1/preferences", choice)
        assert status == 201
        assert {said["preferred"]["hotkey"], said["rejected"]["hotkey"]} == {r.keypair.ss58_address for r in rogues}
        assert said["preferred"]["answerId"] == first
        assert (await running.post("/v1/preferences", choice))[0] == 200
        status, _, said = await running.post("/v1/preferences", choice | {"preferredId": second})
        assert (status, said["error"]["code"]) == (409, "already_chosen")
        _, headers, document = await running.ask("Alone")
        alone = {"sessionId": headers["x-session-id"], "preferredId": document["bettertherapy"]["answerId"]}
        assert (await running.post("/v1/preferences", alone))[0] == 404


@pytest.mark.parametrize("choice", [0, 1])
async def test_a_session_goes_on_from_the_answer_that_was_chosen(tmp_path: Path, choice: int) -> None:
    rogues = [RogueMiner(says="Rest."), RogueMiner(name="Ferdie", says="Drink.")]
    async with gateway(tmp_path, names=(), rogues=rogues) as running:
        _, headers, document = await running.ask("My head hurts", bettertherapy={"compare": True})
        session = headers["x-session-id"]
        chosen = document["bettertherapy"]["compared"][choice]["answerId"]
        preferred = {"sessionId": session, "preferredId": chosen}
        assert (await running.post("/v1/preferences", preferred))[0] == 201
        await running.ask("How long?", headers={"x-session-id": session})
        said = [message["content"] for message in rogues[0].questions[-1]["messages"]]
        assert said == ["My head hurts", document["choices"][choice]["message"]["content"], "How long?"]


async def test_a_choice_that_is_made_later_changes_nothing_that_was_said_since(tmp_path: Path) -> None:
    rogues = [RogueMiner(says="Rest."), RogueMiner(name="Ferdie", says="Drink.")]
    async with gateway(tmp_path, names=(), rogues=rogues) as running:
        _, headers, document = await running.ask("My head hurts", bettertherapy={"compare": True})
        session = {"x-session-id": headers["x-session-id"]}
        await running.ask("How long?", headers=session)
        before = (await running.get(f"/v1/sessions/{session['x-session-id']}"))[1]["messages"]
        for each in document["bettertherapy"]["compared"][1:]:
            preferred = {"sessionId": session["x-session-id"], "preferredId": each["answerId"]}
            assert (await running.post("/v1/preferences", preferred))[0] == 201
        assert (await running.get(f"/v1/sessions/{session['x-session-id']}"))[1]["messages"] == before


def test_ids_prove_whose_they_are_and_name_nobody() -> None:
    ids, others = Ids(b"a" * 32), Ids(b"b" * 32)
    session = ids.session("clinic")
    assert ids.owns("clinic", session)
    assert not ids.owns("clinic2", session)
    assert not others.owns("clinic", session)
    for wrong in (session.upper(), session.replace("-", ""), session[:-1] + "g", "", "é" * 36):
        assert not ids.owns("clinic", wrong)
    assert ids.patient("clinic", "Maya Rai") == ids.patient("clinic", "Maya Rai")
    assert ids.patient("clinic", "Maya Rai") != ids.patient("other", "Maya Rai")
    assert ids.patient("clinic", "Maya Rai") != others.patient("clinic", "Maya Rai")
    with pytest.raises(ValueError, match="32 bytes"):
        Ids(b"short")


GURUNG, RAI = "3f0c1f0e-0000-4000-8000-000000000001", "3f0c1f0e-0000-4000-8000-000000000002"


def write_twin(folder: Path, uid: str) -> Path:
    """Say whose twin is called indra."""
    file = folder / "twins.json"
    twin = {"name": "indra", "uid": uid, "doctor": "Dr. Indra"}
    file.write_text(json.dumps({"format": "bettertherapy-twins/1", "twins": [twin]}))
    return file


async def test_a_patient_who_was_erased_by_hand_is_forgotten_by_a_running_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.ledger.queued._TIDY_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with (
        await QueuedLedger.open(url, folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=(), rogues=[RogueMiner()], recorder=queued, scrub=scrub) as running,
    ):
        _, headers, _ = await running.ask("My head aches.")
        _, others, _ = await running.ask("My knee hurts.")
        assert await queued.drained(timeout_seconds=20)
        sessions = running.service._chats._sessions  # type: ignore[union-attr]
        patient = sessions._known[headers["x-session-id"]].patient_id
        async with await Ledger.open(url) as ledger:
            assert (await ledger.erase(patient_id=patient)).removed["questions"] == 1
        async with asyncio.timeout(20):
            while headers["x-session-id"] in sessions._known:
                await asyncio.sleep(0.01)
        assert (await running.get(f"/v1/sessions/{headers['x-session-id']}"))[0] == 404
        assert (await running.get(f"/v1/sessions/{others['x-session-id']}"))[1]["messages"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_said_to_a_twin_is_not_told_to_the_next_one_of_its_name(tmp_path: Path, restarted: bool) -> None:
    own = {"twins_file": write_twin(tmp_path, GURUNG)}
    first = "I have told nobody but you."
    key = new_key()
    async with await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued:
        given: dict[str, Any] = {
            "names": (), "rogues": [RogueMiner()], "settings": own, "recorder": queued, "scrub": scrub,
            "keys": {"other": {"key": key}},
        }  # fmt: skip
        async with gateway(tmp_path, **given) as running:
            _, headers, document = await running.ask(first, headers=bearer(key))
            session = {"x-session-id": headers["x-session-id"], **bearer(key)}
            assert (await running.ask("And?", headers=session))[0] == 200
            assert await queued.drained(timeout_seconds=20)
            if not restarted:
                await after(running, session, first, document)
        if restarted:
            async with gateway(tmp_path, **{**given, "rogues": [RogueMiner()]}) as running:
                await after(running, session, first, document)


async def after(running: RunningGateway, session: dict[str, str], first: str, document: dict[str, Any]) -> None:
    """Another doctor's twin has the name now."""
    write_twin(running.folder, RAI)
    running.service._twins_file.refresh()  # type: ignore[union-attr]
    status, _, refused = await running.ask("Who am I?", headers=session)
    assert (status, refused["error"]["code"]) == (400, "other_twin")
    repeated = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": document["choices"][0]["message"]["content"]},
        {"role": "user", "content": "And now?"},
    ]
    own = {"Authorization": session["Authorization"]}
    status, headers, _ = await running.ask(messages=repeated, headers=own)
    assert (status, headers["x-session-id"] == session["x-session-id"]) == (200, False)


async def test_who_asks_is_told_to_the_miners_of_the_session_and_nobody_else(tmp_path: Path) -> None:
    """Age, sex, conditions and medicines stand in the prompt; no log, ledger or answer of the gateway has them."""
    patient = {"age": 67, "sex": "female", "conditions": ["zollinger ellison"], "medicines": ["warfarin 5 mg"]}
    async with gateway(tmp_path, names=("Alice",)) as running:
        bodies = running.miners[0].agent.bodies
        status, headers, document = await running.ask("May I eat spinach?", bettertherapy={"patient": patient})
        assert status == 200
        assert "zollinger" in json.dumps(bodies[-1])
        session = {"x-session-id": headers["x-session-id"]}
        _, _, more = await running.ask("And kale?", headers=session)
        assert "zollinger" in json.dumps(bodies[-1])
        _, _, _ = await running.ask("And kale?")
        assert "zollinger" not in json.dumps(bodies[-1])
        _, shown = await running.get(f"/v1/sessions/{headers['x-session-id']}")
        assert not any("zollinger" in json.dumps(each) for each in (document, more, shown))
        _, _, _ = await running.ask("And beans?", headers=session, bettertherapy={"patient": {}})
        assert "zollinger" not in json.dumps(bodies[-1])
    assert not _kept_in(tmp_path, b"zollinger")


def _kept_in(folder: Path, words: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and words in path.read_bytes()]


async def test_a_patient_that_is_no_patient_is_refused_without_its_words(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        status, _, document = await running.ask("Hello", bettertherapy={"patient": {"zollinger": 1}})
        assert status == 400
        assert "zollinger" not in json.dumps(document)
