"""Miners that fail or lie: their answers are discarded with a reason; the patient gets another's, or words."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurons.validator.gateway import asking
from tests.unit.gateway.rogue_miner import RogueMiner
from tests.unit.gateway.running_gateway import PATIENCE, gateway, write_miners
from tests.unit.miner.engine_pods import events, text
from tests.unit.miner.running_miner import Twin as Routed
from tests.unit.miner.running_miner import digest, eventually, version

OTHER = "sha256:" + "f" * 64
LIES: list[tuple[str, dict[str, Any]]] = [
    ("otherAnswer", {"receipt": {"answer": OTHER}}),
    ("otherQuestion", {"receipt": {"question": OTHER}}),
    ("otherTwin", {"receipt": {"twin": "dr-other"}}),
    ("unannounced", {"receipt": {"adapter": digest("b")}}),
    ("unannounced", {"receipt": {"adapter": None}}),
    ("forged", {"signed_by": "Mallory"}),
    ("oldReceipt", {"receipt": {"time_ms": time.time_ns() // 10**6 - 3_600_000}}),
    ("oldReceipt", {"receipt": {"time_ms": time.time_ns() // 10**6 + 3_600_000}}),
    ("otherAnswer", {"receipt": {"choices": 2}}),
    ("noReceipt", {"with_receipt": False}),
    ("noReceipt", {"with_receipt": False, "marks": {"x-bettertherapy-receipt": "bm90IG9uZQ"}}),
    ("noReceipt", {"with_receipt": False, "marks": {"x-bettertherapy-receipt": '{"a":' + "[" * 500 + "]" * 500 + "}"}}),
    ("noAnswer", {"body": b"<html>It works!</html>"}),
    ("noAnswer", {"body": b'{"choices": []}'}),
    ("noAnswer", {"body": b'{"choices": [{"message": {"content": {"a": 1}}}]}'}),
    ("noAnswer", {"body": b"\x00\xff" * 5000}),
    ("noAnswer", {"body": b"data: {}\n\ndata: [DONE]\n\n"}),
    ("empty", {"says": " \n"}),
    ("tooLarge", {"flood": 10_000_000}),
    ("tooLarge", {"marks": {"Content-Encoding": "gzip"}}),
    ("broken", {"cut": True}),
    ("error", {"status": 500}),
    ("error", {"status": 302, "marks": {"Location": "http://127.0.0.1:1/"}}),
    ("busy", {"status": 503, "marks": {"Retry-After": "7"}}),
    ("busy", {"status": 429}),
]


@pytest.mark.parametrize(
    ("reason", "knobs"), LIES, ids=[f"{reason}-{number}" for number, (reason, _) in enumerate(LIES)]
)
async def test_an_answer_that_is_not_proven_is_discarded_with_its_reason(
    tmp_path: Path, reason: str, knobs: dict[str, Any]
) -> None:
    rogue = RogueMiner(**knobs)
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        status, _, document = await running.ask()
        assert status == 200, document
        assert document["choices"][0]["message"]["content"] == running.miners[0].says
        assert document["bettertherapy"]["minersProven"] == 1
        assert running.outcomes(reason) == 1
        # Alone it is as if nobody were there, and the patient is told in words.
        write_miners(running.folder / "metagraph.json", [(rogue.keypair, rogue.axon)], block=2000)
        await running.look()
        status, headers, document = await running.ask()
        assert status == (429 if reason == "busy" else 503)
        assert int(headers["Retry-After"]) > 0
        assert "choices" not in document
        assert rogue.says.strip() not in document["error"]["message"] or not rogue.says.strip()


async def test_a_receipt_of_another_miner_is_discarded(tmp_path: Path) -> None:
    """Alice's own genuine receipt for this very question and answer, handed on by Eve."""
    rogue = RogueMiner(status=400)
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        _, headers, _ = await running.ask()
        rogue.status, rogue.with_receipt, rogue.says = 200, False, running.miners[0].says
        rogue.marks = {"x-bettertherapy-receipt": headers["x-bettertherapy-receipt"]}
        await running.ask()
        assert running.outcomes("otherHotkey") == 1


async def test_a_miner_whose_answer_fails_the_judge_himself_costs_nobody_the_others_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rogue = RogueMiner()
    judge = asking.read_answer

    def failing(*args: Any, hotkey: str, **given: Any) -> Any:
        if hotkey == rogue.keypair.ss58_address:
            raise RuntimeError("unforeseen")
        return judge(*args, hotkey=hotkey, **given)

    monkeypatch.setattr(asking, "read_answer", failing)
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        status, _, document = await running.ask()
        assert status == 200
        assert document["bettertherapy"]["minersProven"] == 1
        assert running.outcomes("broken") == 1


async def test_a_miner_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    hanging = RogueMiner(gate=asyncio.Event())
    async with gateway(
        tmp_path, names=("Alice", "Charlie"), rogues=[hanging], patience=replace(PATIENCE, grace=0.2)
    ) as running:
        begun = time.monotonic()
        status, _, document = await running.ask()
        assert status == 200
        assert document["bettertherapy"]["minersProven"] == 2
        assert time.monotonic() - begun < PATIENCE.deadline
        assert running.outcomes("late") == 1
        await eventually(lambda: hanging.cancelled == 1)


async def test_a_slow_miner_is_hedged(tmp_path: Path) -> None:
    """Of one that is asked and hangs the patient notices nothing: another is asked in its place."""
    slow, quick = RogueMiner(name="Eve", gate=asyncio.Event()), RogueMiner(name="Ferdie")
    patience = replace(PATIENCE, miners=1, hedge=0.1)
    async with gateway(tmp_path, names=(), rogues=[slow, quick], patience=patience) as running:
        for _ in range(12):  # until the slow one was drawn first
            status, _, _ = await running.ask()
            assert status == 200
            if running.metric("hedges_total"):
                break
        assert running.metric("hedges_total") >= 1


async def test_all_hanging_ends_by_the_deadline(tmp_path: Path) -> None:
    hanging = [RogueMiner(name=name, gate=asyncio.Event()) for name in ("Eve", "Ferdie")]
    async with gateway(tmp_path, names=(), rogues=hanging, patience=replace(PATIENCE, deadline=0.3)) as running:
        begun = time.monotonic()
        status, _, document = await running.ask()
        assert (status, document["error"]["code"]) == (503, "no_answer")
        assert time.monotonic() - begun < 3.0
        # In a stream that has begun it is an error event, and no [DONE].
        status, sent = await running.stream()
        assert status == 200
        assert sent.startswith(": comparing answers\n\n")
        [error] = [event for event in events(sent.encode()) if isinstance(event, dict)]
        assert error["error"]["code"] == "no_answer"
        assert "[DONE]" not in sent


async def test_every_miner_down_is_said_in_words(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        assert (await running.ask())[0] == 200
        await running.miners[0].agent.__aexit__()
        running.miners[0].miner.route({})
        status, _, document = await running.ask()
        assert status == 503
        assert document["error"]["type"] == "service_unavailable"
        assert "Nothing was said in the doctor's name" in document["error"]["message"]
        await running.look()  # it announces no twin any more, but was known to
        status, _, document = await running.ask()
        assert (status, document["error"]["code"]) == (503, "no_answer")
        status, sent = await running.stream()
        assert status == 503, "nothing was sent yet, so the status can say it"
        assert json.loads(sent)["error"]["code"] == "no_answer"


async def test_a_new_version_answers_before_the_next_look(tmp_path: Path) -> None:
    """A rollout between two looks costs no answer: the miner is asked what it announces now."""
    async with gateway(tmp_path, names=("Alice",)) as running:
        [alice] = running.miners
        new = version("indra", "b")
        alice.agent.holds[new.served_name] = digest("b")
        alice.miner.route({"indra": Routed(versions=(new,))})
        alice.miner.report([alice.agent])
        roster = running.service.roster
        assert roster is not None
        from neurons.validator.gateway import roster as module

        module_seconds, module.RENEW_SECONDS = module.RENEW_SECONDS, 0.0  # type: ignore[misc]
        try:
            status, headers, _ = await running.ask()
        finally:
            module.RENEW_SECONDS = module_seconds  # type: ignore[misc]
        assert (status, headers["x-twin-adapter-digest"]) == (200, digest("b"))


async def test_only_approved_weights_answer_where_a_file_names_them(tmp_path: Path) -> None:
    """Whatever a miner announces and signs: another's weights under the doctor's name are no answer."""
    impostor = RogueMiner(adapter=digest("c"), says="By other weights.")
    twins = tmp_path / "twins.json"
    entry = {"name": "indra", "doctor": "Dr. Indra Gurung", "digests": [digest("a")]}
    twins.write_text(json.dumps({"format": "bettertherapy-twins/1", "twins": [entry]}))
    async with gateway(tmp_path, names=("Alice",), rogues=[impostor], settings={"twins_file": twins}) as running:
        for _ in range(3):
            _, _, document = await running.ask()
            assert document["choices"][0]["message"]["content"] == "It is fine."
        assert impostor.questions == [], "who announces only others isn't even asked"
        impostor.announced = (digest("a"), digest("c"))
        await running.look()
        _, _, document = await running.ask()
        assert document["bettertherapy"]["minersProven"] == 1
        assert running.outcomes("notApproved") == 1
        _, listed = await running.get("/v1/models")
        assert listed["data"][0]["bettertherapy"]["adapterDigests"] == [digest("a")]
        # Approved while it runs.
        entry["digests"] = [digest("a"), digest("c")]
        twins.write_text(json.dumps({"format": "bettertherapy-twins/1", "twins": [entry]}))
        running.service._twins_file.refresh()  # type: ignore[union-attr]
        running.service.standings.of.clear()
        _, _, document = await running.ask()
        assert document["bettertherapy"]["minersProven"] == 2


async def test_failing_costs_a_miner_its_questions(tmp_path: Path) -> None:
    rogue = RogueMiner(receipt={"answer": OTHER})
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        for _ in range(6):
            assert (await running.ask())[0] == 200
        assert len(running.miners[0].agent.bodies) == 6
        standing = next(
            standing
            for who, standing in running.service.standings.of.items()
            if who.hotkey == rogue.keypair.ss58_address
        )
        assert standing.capacity == 1.0
        assert standing.rests_until > time.monotonic()


async def test_a_forged_stream_of_one_miner_does_not_reach_the_patient(tmp_path: Path) -> None:
    rogue = RogueMiner(says="LIE " * 50, signed_by="Mallory")
    async with gateway(tmp_path, names=("Alice",), rogues=[rogue]) as running:
        _, sent = await running.stream()
        assert "LIE" not in sent
        assert text(events(sent.encode())) == "It is fine."


async def test_miners_that_refuse_the_question_are_quoted_in_status_only(tmp_path: Path) -> None:
    refusing = RogueMiner(status=400, body=b'{"error": {"message": "too long, says the miner"}}')
    async with gateway(tmp_path, names=(), rogues=[refusing]) as running:
        status, _, document = await running.ask()
        assert (status, document["error"]["code"]) == (400, "refused_by_miners")
        assert "says the miner" not in document["error"]["message"]
