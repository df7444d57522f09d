"""A doctor's correction is heeded at the next question, by that doctor's twin alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from neurons.lessons import Kind, Lesson, LessonsFile, write_lessons
from neurons.miner import lessons, service
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, eventually_async, held, version

QUESTION = "May I take ibuprofen with warfarin?"
CORRECTION = Lesson(QUESTION, "Never. Take paracetamol instead.", Kind.CORRECTION, approved=True)


class Words:
    """Embeds by the words' letters: near for texts that share words, and deterministic."""

    def embed(self, texts: Sequence[str]) -> Any:
        rows = numpy.zeros((len(texts), 4096), dtype="float32")
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().replace("?", "").split():
                row[sum(ord(letter) * 31**place for place, letter in enumerate(word)) % 4096] += 1
        return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "load_embedder", Words)


def file(*lessons: Lesson, uid: str, revision: int = 1) -> tuple[int, bytes]:
    return revision, write_lessons(LessonsFile("dr-gurung", uid, revision, lessons))[0]


async def test_a_correction_stands_in_the_next_prompt_and_goes_when_it_is_taken_back(tmp_path: Path) -> None:
    v1, other = version("dr-gurung", "a"), version("dr-rai", "b")
    agent = FakeAgent(pod="a", holds=held(v1, other))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02, lesson_floor=0.6) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt="Be brief."), "dr-rai": Twin((other,))})
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" not in str(agent.bodies[-1])
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        _, headers, _ = await miner.ask("dr-gurung", text="May I take ibuprofen with my warfarin?")
        system, question = agent.bodies[-1]["messages"]
        assert system["content"].startswith("Be brief.\n\n")
        assert '"Never. Take paracetamol instead."' in system["content"]
        assert question["content"] == "May I take ibuprofen with my warfarin?"
        assert headers["x-twin-lessons"] == "1"
        # A question about something else has none, and another doctor's twin never does.
        _, headers, _ = await miner.ask("dr-gurung", text="When do you open on Monday?")
        assert "paracetamol" not in str(agent.bodies[-1])
        assert "x-twin-lessons" not in headers
        await miner.ask("dr-rai", text=QUESTION)
        assert "paracetamol" not in str(agent.bodies[-1])
        agent.lessons = {"uid-dr-gurung": None}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 0)
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" not in str(agent.bodies[-1])


async def test_a_follow_up_keeps_what_its_conversation_found(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        talk = [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "And for a single day?"},
        ]
        await miner.ask("dr-gurung", messages=talk)
        assert "paracetamol" in agent.bodies[-1]["messages"][0]["content"]
        assert agent.bodies[-1]["messages"][1:] == talk


async def test_lessons_of_another_uid_are_nobodys_whatever_an_agent_says(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-of-another")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lesson_errors_total") == 1)
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" not in str(agent.bodies[-1])


async def test_a_twin_that_takes_over_a_name_gets_none_of_the_formers(tmp_path: Path) -> None:
    v1, v2 = version("dr-gurung", "a"), version("dr-gurung", "b")
    agent = FakeAgent(pod="a", holds=held(v1, v2))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), uid="uid-1")})
        agent.lessons = {"uid-1": file(CORRECTION, uid="uid-1")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        miner.route({"dr-gurung": Twin((v2,), uid="uid-2")})
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" not in str(agent.bodies[-1])
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 0)


async def test_a_damaged_file_leaves_the_last_good_one(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        agent.lessons = {"uid-dr-gurung": (2, b"{}\n")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lesson_errors_total") == 1)
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" in str(agent.bodies[-1])
        agent.lessons = {}  # an agent that has not looked yet says nothing, which is no withdrawal
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" in str(agent.bodies[-1])


async def test_without_a_model_the_same_words_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neurons.lessons.embedding import EmbedderMissing

    def missing() -> Any:
        raise EmbedderMissing("not installed")

    monkeypatch.setattr(service, "load_embedder", missing)
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        await miner.ask("dr-gurung", text="may I take Ibuprofen with Warfarin")
        assert "paracetamol" in str(agent.bodies[-1])


async def test_a_long_conversation_keeps_its_lesson_when_there_is_room(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1), context=512)
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        old = [{"role": "user", "content": "x " * 900}, {"role": "assistant", "content": "y " * 900}]
        status, headers, _ = await miner.ask(
            "dr-gurung", messages=[*old, {"role": "user", "content": QUESTION}], max_tokens=64
        )
        assert status == 200
        assert "paracetamol" in agent.bodies[-1]["messages"][0]["content"]
        assert headers["x-twin-lessons"] == "1"
        # Where there is no room for both, what is asked comes first.
        long = QUESTION + " please " * 180
        status, headers, _ = await miner.ask("dr-gurung", messages=[{"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "No."}, {"role": "user", "content": long}], max_tokens=64)  # fmt: skip
        assert status == 200
        assert "x-twin-lessons" not in headers


async def test_an_answer_from_before_a_correction_is_not_given_again_though_the_lookup_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()

    class Slow(Words):
        def embed(self, texts: Sequence[str]) -> Any:
            if slow.is_set():
                time.sleep(lessons.FIND_SECONDS + 0.3)
            return super().embed(texts)

    monkeypatch.setattr(service, "load_embedder", Slow)
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1), words=("Two", " tablets."))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02, lesson_floor=0.6, cache_bytes=1_000_000) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        asked = "May I take ibuprofen with my warfarin?"
        await miner.ask("dr-gurung", text=asked)
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        slow.set()
        agent.words = ("Never",)
        _, headers, document = await miner.ask("dr-gurung", text=asked)
        assert miner.metric("bettertherapy_miner_lesson_lookups_total", outcome="late") == 1
        assert "x-twin-cached" not in headers
        assert document["choices"][0]["message"]["content"] == "Never"


async def test_an_embedder_that_fails_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Words):
        def embed(self, texts: Sequence[str]) -> Any:
            raise RuntimeError(f"can't embed {texts}")

    monkeypatch.setattr(service, "load_embedder", Fails)
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        status, _, _ = await miner.ask("dr-gurung", text="I have HIV")
        assert status == 200
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" in str(agent.bodies[-1]), "the same words are found"
        assert "HIV" not in caplog.text


@pytest.mark.parametrize("field", [{"prompt_logprobs": 0}, {"return_token_ids": True}], ids=str)
async def test_no_field_shows_what_others_asked_the_doctor(tmp_path: Path, field: dict[str, Any]) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=0.02) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,))})
        agent.lessons = {"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")}
        await eventually(lambda: miner.metric("bettertherapy_miner_lessons") == 1)
        status, _, document = await miner.ask("dr-gurung", text=QUESTION, **field)
        assert (status, document["error"]["param"]) == (400, next(iter(field)))
        assert agent.bodies == []
        status, _, _ = await miner.ask("dr-gurung", text="When do you open on Monday?", **field)
        assert status == 200, "nothing of anybody else's is in it"


async def test_a_miner_that_begins_is_ready_once_it_has_the_corrections(tmp_path: Path) -> None:
    """Else each rollout of miners would give patients uncorrected answers until the second lap."""
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1), lessons={"uid-dr-gurung": file(CORRECTION, uid="uid-dr-gurung")})
    async with agent, RunningMiner(tmp_path, lessons_seconds=600.0) as miner:

        async def ready() -> bool:
            async with miner.client.get("/readyz") as response:
                return response.status == 200

        miner.route({"dr-gurung": Twin((v1,))})
        miner.report([agent])
        assert not await ready() or miner.metric("bettertherapy_miner_lessons") == 1
        await eventually_async(ready)
        await miner.ask("dr-gurung", text=QUESTION)
        assert "paracetamol" in str(agent.bodies[-1])


async def test_pods_that_say_nothing_of_lessons_don_t_keep_a_miner_from_its_patients(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1))
    async with agent, RunningMiner(tmp_path, lessons_seconds=600.0) as miner:
        miner.route({"dr-gurung": Twin((v1,))})
        miner.report([agent])

        async def ready() -> bool:
            async with miner.client.get("/readyz") as response:
                return response.status == 200

        await eventually_async(ready)
