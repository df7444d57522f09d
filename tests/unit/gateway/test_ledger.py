"""What is kept of a question: everything in the ledger, once, without identifiers, also when the ledger was away."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from neurons.ledger import Ledger, NotFound, QueuedLedger, Twin, new_id
from neurons.ledger import Session as SessionRecord
from neurons.ledger.spool import Spool
from neurons.validator.gateway.patient import main as patient_command
from neurons.validator.gateway.service import GatewayService
from neurons.validator.gateway.sessions import Ids
from neurons.validator.gateway.settings import Settings
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, gateway, write_keys
from tests.unit.miner.running_miner import digest, eventually
from tests.unit.receipts.keyring import VALIDATOR

NAME = "Maya Shrestha"
RECORD = "MRN 8841-3307"
LONG = replace(PATIENCE, deadline=60.0, hedge=60.0, grace=60.0)


@dataclass(frozen=True)
class Clean:
    text: str
    scrubbed_by: str = "test/1"


def scrub(text: str) -> Clean:
    return Clean(text.replace(NAME, "[NAME]").replace(RECORD, "[RECORD]"))


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_what_several_miners_say_alike_is_looked_through_once(tmp_path: Path) -> None:
    looked_through: list[str] = []

    def counting(text: str) -> Clean:
        looked_through.append(text)
        return scrub(text)

    url = f"sqlite:///{tmp_path}/ledger.db"
    async with (
        await QueuedLedger.open(url, folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice", "Charlie"), recorder=queued, scrub=counting) as running,
    ):
        _, _, document = await running.ask(f"I am {NAME}. My knee hurts.")
        assert await queued.drained(timeout_seconds=20)
        view = await queued.question(question_id=document["bettertherapy"]["questionId"])
        said = {answer.text.text for answer in view.answers if answer.text}
        assert len(view.answers) == 2
        assert NAME not in "".join(said)
        assert len(looked_through) == len(set(looked_through)) == 1 + len(said)


async def test_a_question_with_all_its_answers_and_its_rating_is_in_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    liar = RogueMiner(signed_by="Mallory")
    async with (
        await QueuedLedger.open(url, folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice", "Charlie"), rogues=[liar], recorder=queued, scrub=scrub) as running,
    ):
        _, headers, document = await running.ask(f"I am {NAME}, {RECORD}. I have chest pain.")
        more = document["bettertherapy"]
        rating = {
            "sessionId": headers["x-session-id"], "answerId": more["answerId"], "stars": 5,
            "comment": f"Thanks, {NAME}",
        }  # fmt: skip
        assert (await running.post("/v1/ratings", rating))[0] == 201
        assert (await running.post("/v1/ratings", rating))[0] == 200
        assert await queued.drained(timeout_seconds=20)
        view = await queued.question(question_id=more["questionId"])
        assert view.question.text.text == "I am [NAME], [RECORD]. I have chest pain."
        assert view.question.emergency
        assert view.chosen_id == more["answerId"]
        answered = [answer for answer in view.answers if not answer.failure]
        [failed] = [answer for answer in view.answers if answer.failure]
        assert len(answered) == 2
        assert failed.failure == "forged"
        assert failed.miner.hotkey == liar.keypair.ss58_address
        assert failed.miner.registered_block == 103
        chosen = next(answer for answer in answered if answer.answer_id == view.chosen_id)
        assert chosen.text is not None
        assert chosen.text.text == "It is fine.", "the miner's words, without the notice"
        assert (chosen.adapter_digest, chosen.receipt) == (digest("a"), more["receipt"])
        [stars] = view.ratings
        assert (stars.stars, stars.comment.text if stars.comment else None) == (5, "Thanks, [NAME]")
        session = await queued.history(session_id=headers["x-session-id"], patient_id=view.question.patient_id)
        assert len(session.turns) == 1
        assert running.metric("records_total", outcome="kept") == 1
    assert files_with(tmp_path, NAME) == files_with(tmp_path, RECORD) == [], "not on any disk"


async def test_text_that_cannot_be_freed_of_identifiers_is_not_written_and_the_patient_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(text: str) -> Clean:
        raise RuntimeError(text)

    caplog.set_level(logging.DEBUG)
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice",), recorder=queued, scrub=broken) as running,
    ):
        status, _, document = await running.ask(f"I am {NAME}.")
        assert status == 200
        assert await queued.drained(timeout_seconds=30)
        view = await queued.question(question_id=document["bettertherapy"]["questionId"])
        assert (view.question.text.text, view.question.text.scrubbed_by) == ("", "withheld/1")
        assert [answer.text.text if answer.text else None for answer in view.answers] == [""]
        assert running.metric("records_total", outcome="without_text") == 1
        exposition = running.service.metrics.render().decode()
    assert NAME not in caplog.text
    assert NAME not in exposition


async def test_the_gateway_answers_while_the_ledger_is_away_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """The database's folder isn't there at first: the queue on disk keeps all until it is."""
    away = tmp_path / "volume"
    url = f"sqlite:///{away}/ledger.db"
    questions = []
    async with (
        await QueuedLedger.open(url, folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice",), recorder=queued, scrub=scrub) as running,
    ):
        for number in range(5):
            status, _, document = await running.ask(f"Question {number}")
            assert status == 200
            questions.append(document["bettertherapy"]["questionId"])
        assert queued.waiting > 0
    # The gateway has ended; what it had on disk goes into the ledger when both are back.
    away.mkdir()
    async with await QueuedLedger.open(url, folder=tmp_path / "queue") as queued:
        assert await queued.drained(timeout_seconds=30)
        for number, question in enumerate(questions):
            view = await queued.question(question_id=question)
            assert view.question.text.text == f"Question {number}"
            assert len(view.answers) == 1
            assert view.chosen_id == view.answers[0].answer_id


async def test_a_session_goes_on_after_a_restart_and_an_old_answer_can_be_rated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with await QueuedLedger.open(url, folder=tmp_path / "queue") as queued:
        async with gateway(tmp_path, names=(), rogues=[RogueMiner()], recorder=queued, scrub=scrub) as running:
            _, headers, document = await running.ask(f"I am {NAME}.")
            more = document["bettertherapy"]
        assert await queued.drained(timeout_seconds=30)
        session = {"x-session-id": headers["x-session-id"]}
        # The same client under a new key, and the same secret of ids; nothing in memory.
        async with gateway(tmp_path, names=(), rogues=[RogueMiner()], recorder=queued, scrub=scrub) as running:
            _, _, _ = await running.ask("And now?", headers=session)
            said = [message["content"] for message in running.rogues[0].questions[-1]["messages"]]
            assert said == ["I am [NAME].", "Drink water and rest.", "And now?"]
            rating = {
                "sessionId": headers["x-session-id"], "answerId": more["answerId"], "stars": 3,
                "questionId": more["questionId"],
            }  # fmt: skip
            assert (await running.post("/v1/ratings", rating))[0] == 201
            assert (await running.post("/v1/ratings", rating))[0] == 200


async def test_a_rating_that_cannot_be_kept_is_not_said_to_count(tmp_path: Path) -> None:
    queued = await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue", max_bytes=1)
    async with queued, gateway(tmp_path, names=("Alice",), recorder=queued, scrub=scrub) as running:
        status, headers, document = await running.ask()
        assert status == 200, "a queue that is full keeps nobody from an answer"
        await eventually(lambda: running.metric("records_total", outcome="lost") == 1)
        rating = {"sessionId": headers["x-session-id"], "answerId": document["id"], "stars": 3}
        assert (await running.post("/v1/ratings", rating))[0] == 503
        labels = {"twin": "indra", "version": "indra-aaaaaaaa", "rating": "3"}
        assert running.metric("ratings_total", process=running.service.metrics.process, **labels) == 0


async def test_consent_and_patients_are_pseudonyms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice",), recorder=queued, scrub=scrub) as running,
    ):
        given = {"model": "indra", "user": NAME, "consent": True, "consentWording": "en/3"}
        status, _, session = await running.post("/v1/sessions", given)
        assert status == 201
        assert NAME not in str(session)
        assert await queued.drained(timeout_seconds=30)
        secret = await asyncio.to_thread((tmp_path / "session-secret").read_bytes)
        patient = Ids(secret).patient("clinic", f"user\0{NAME}")
        assert patient_command(["clinic", NAME, "--state-dir", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{patient}\n", "who erases a patient must find the id"
        assert (await queued.consent(patient_id=patient)).given
        with pytest.raises(NotFound):
            await queued.history(session_id=session["id"], patient_id=Ids(secret).patient("other", NAME))
        assert isinstance(queued.ledger, Ledger)


async def test_what_the_ledger_does_not_take_is_counted_and_the_patient_answered(tmp_path: Path) -> None:
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(
            tmp_path, names=(), rogues=[RogueMiner()], recorder=queued, scrub=lambda said: Clean(said, "x" * 65)
        ) as running,
    ):  # fmt: skip
        assert (await running.ask("My knee hurts."))[0] == 200
        await eventually(lambda: running.metric("records_total", outcome="lost") == 1)


@pytest.mark.parametrize("question", ["My knee hurts.", "word " * 40_000])
async def test_a_text_too_long_for_the_ledger_takes_nothing_else_with_it(tmp_path: Path, question: str) -> None:
    """One miner's long answer, given or not, would keep what all others said out of it."""
    long = RogueMiner(says="a " * 100_000)
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice",), rogues=[long], recorder=queued, scrub=scrub, patience=LONG) as running,
    ):
        _, _, document = await running.ask(question)
        assert await queued.drained(timeout_seconds=20)
        view = await queued.question(question_id=document["bettertherapy"]["questionId"])
        assert view.question.text.text in (question, "")
        assert sorted(each.text.text for each in view.answers if each.text) == ["", "It is fine."]
        assert view.question.text.scrubbed_by == ("withheld/1" if len(question) > 100 else "test/1")
        assert running.metric("records_total", outcome="without_text") == 1


async def test_what_was_recorded_last_is_in_the_ledger_before_the_gateway_has_left(tmp_path: Path) -> None:
    """A pod's own disk goes with it: nothing may be left in the queue while the ledger is there."""
    url, session, patient = f"sqlite:///{tmp_path}/ledger.db", new_id(), new_id()
    write_keys(tmp_path / "keys.json")
    service = GatewayService(
        Settings(keys_file=tmp_path / "keys.json", ledger_url=url, state_dir=tmp_path / "state", drain_seconds=300.0),
        keypair=VALIDATOR, scrub=scrub,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        recorder, _ = await service._ledger(stack)
        assert recorder is not None
        twin = Twin(uid=new_id(), name="indra")
        await recorder.record(SessionRecord(session_id=session, patient_id=patient, twin=twin, at_ms=1))
    assert Spool(tmp_path / "state" / "queue", max_bytes=1 << 20).entries == 0
    async with await Ledger.open(url, timeout_seconds=300.0) as ledger:
        [history] = await ledger.sessions(patient_id=patient)
    assert history.session is not None
    assert history.session.session_id == session


async def test_the_process_that_writes_the_ledger_is_seen_to_end_and_answers_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with gateway(tmp_path, names=("Alice",), scrub=scrub, settings={"ledger_url": url}) as running:

        async def ready() -> tuple[int, str]:
            async with running.client.get("/readyz") as response:
                return response.status, await response.text()

        await eventually(lambda: running.metric("ledger_writer_up") == 1, 30)
        assert "ledger" not in (await ready())[1]
        writer = running.service._writer
        assert writer is not None
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        await eventually(lambda: running.metric("ledger_writer_ends") == 1, 30)
        assert running.metric("ledger_writer_up") == 0
        status, said = await ready()
        assert status == 200, "what is answered is safe on the disk"
        assert "the process that writes the ledger" in said
        _, _, document = await running.ask("My knee hurts.")
        await eventually(lambda: running.metric("ledger_writer_up") == 1 and not running.metric("ledger_waiting"), 60)
        assert "ledger" not in (await ready())[1]
    async with await Ledger.open(url, timeout_seconds=300.0) as ledger:
        view = await ledger.question(question_id=document["bettertherapy"]["questionId"])
    assert len(view.answers) == 1


async def test_texts_are_looked_through_while_miners_answer_and_written_only_then(tmp_path: Path) -> None:
    """The question's from the beginning, an answer's while another is waited for."""
    looked_through: list[str] = []

    def counting(text: str) -> Clean:
        looked_through.append(text)
        return scrub(text)

    gate = asyncio.Event()
    slow = RogueMiner(gate=gate)
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(
            tmp_path, names=("Alice",), rogues=[slow], recorder=queued, scrub=counting, patience=LONG
        ) as running,
    ):  # fmt: skip
        asking = asyncio.create_task(running.ask(f"I am {NAME}."))
        await eventually(lambda: len(looked_through) == 2)
        assert looked_through == [f"I am {NAME}.", running.miners[0].says]
        assert not asking.done()
        assert queued.waiting == 0
        assert files_with(tmp_path, "[NAME]") == files_with(tmp_path, NAME) == []
        gate.set()
        _, _, document = await asking
        assert await queued.drained(timeout_seconds=20)
        view = await queued.question(question_id=document["bettertherapy"]["questionId"])
        assert view.question.text.text == "I am [NAME]."
        assert len(looked_through) == len(set(looked_through)) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_ends_when_it_is_safe_however_long_looking_through_it_takes(
    tmp_path: Path, stream: bool
) -> None:
    """What a patient was given, and may rate, is not lost by a gateway that is killed the moment after."""
    begun, may_end = threading.Event(), threading.Event()

    def slowly(text: str) -> Clean:
        begun.set()
        assert may_end.wait(60)
        return scrub(text)

    async with (
        await QueuedLedger.open("postgresql://nobody@127.0.0.1:1/none", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=("Alice",), recorder=queued, scrub=slowly, patience=LONG) as running,
    ):
        asking = asyncio.create_task(running.stream("My knee hurts.") if stream else running.ask("My knee hurts."))
        await eventually(begun.is_set)
        await asyncio.wait({asking}, timeout=1.0)
        assert not asking.done()
        assert queued.waiting == 0
        may_end.set()
        await asking
        assert queued.waiting == 1


async def test_an_answer_is_kept_though_its_reader_leaves_in_the_middle(tmp_path: Path) -> None:
    """What was shown of it can be rated."""
    long = RogueMiner(says="a " * 400_000)
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=(), rogues=[long], recorder=queued, scrub=scrub, patience=LONG) as running,
    ):
        asked = {"model": "indra", "messages": [{"role": "user", "content": "My knee hurts."}], "stream": True}
        async with running.client.post("/v1/chat/completions", json=asked) as response:
            session = response.headers["x-session-id"]
            await response.content.readuntil(b"\n\n")
            [answer] = (await running.get(f"/v1/sessions/{session}"))[1]["answers"]
            assert response.connection is not None
            response.connection.transport.abort()
        await eventually(lambda: running.metric("in_flight") == 0)
        rating = {"sessionId": session, "answerId": answer["answerId"], "stars": 1}
        assert (await running.post("/v1/ratings", rating))[0] == 201
        assert await queued.drained(timeout_seconds=20)
        view = await queued.question(question_id=answer["questionId"])
        assert [each.answer_id for each in view.answers] == [answer["answerId"]]
        assert [each.stars for each in view.ratings] == [1]


async def test_a_question_whose_client_left_is_not_written_and_what_failed_to_be_looked_through_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []

    def broken(text: str) -> Clean:
        failed.append(text)
        raise RuntimeError(text)

    hanging = RogueMiner(gate=asyncio.Event())
    caplog.set_level(logging.DEBUG)
    async with (
        await QueuedLedger.open(f"sqlite:///{tmp_path}/ledger.db", folder=tmp_path / "queue") as queued,
        gateway(tmp_path, names=(), rogues=[hanging], recorder=queued, scrub=broken, patience=LONG) as running,
    ):
        asking = asyncio.create_task(running.ask(f"I am {NAME}."))
        await eventually(lambda: bool(failed))
        asking.cancel()
        await eventually(lambda: hanging.cancelled == 1)
        assert queued.waiting == 0
    gc.collect()
    assert NAME not in caplog.text


@pytest.mark.parametrize("secret", [None, b"too short"])
def test_without_the_secret_nobody_is_looked_up(
    secret: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if secret is not None:
        (tmp_path / "secret").write_bytes(secret)
    assert patient_command(["clinic", NAME, "--secret-file", str(tmp_path / "secret")]) == 1
    assert (said := capsys.readouterr()).out == ""
    assert NAME not in said.err


async def test_a_gateway_that_waits_for_another_s_queue_ends_as_soon_as_it_is_told_to(tmp_path: Path) -> None:
    """It is the pod that was to replace another, and is replaced itself: it may not keep its own place for minutes."""
    write_keys(tmp_path / "keys.json")
    settings = Settings(
        keys_file=tmp_path / "keys.json", ledger_url=f"sqlite:///{tmp_path}/ledger.db", state_dir=tmp_path / "state",
        metagraph_file=tmp_path / "metagraph.json", host="127.0.0.1", port=0, metrics_port=0, drain_seconds=300.0,
    )  # fmt: skip
    with closing(Spool(tmp_path / "state" / "queue", max_bytes=1 << 20)):
        service = GatewayService(settings, keypair=VALIDATOR, scrub=scrub)
        running = asyncio.create_task(service.run())
        done, _ = await asyncio.wait({running}, timeout=0.3)
        assert not done
        service.stop()
        async with asyncio.timeout(20):
            await running
    assert not service.listening.is_set()
