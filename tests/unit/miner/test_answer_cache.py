"""Answers that are given again: only to the same question of the same version, marked, and out of all measures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api import names
from neurons.miner.cache import AnswerCache
from neurons.receipts import answer_of
from tests.standin.sayings import Saying
from tests.unit.miner.engine_pods import pool, text
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually_async, held, version
from tests.unit.miner.signing_miner import on_subnet
from tests.unit.miner.test_receipted_answers import genuine

OLD, NEW = version("indra", "a"), version("indra", "b")
BASE = "sha256:" + "e" * 64


@asynccontextmanager
async def caching(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningMiner, FakeAgent]]:
    values: dict[str, Any] = {"cache_bytes": 1024 * 1024, "cache_seconds": 60.0}
    async with FakeAgent(pod="a", holds=held(OLD, NEW)) as agent, RunningMiner(folder, **(values | settings)) as miner:
        miner.route({"indra": Twin(versions=(OLD,))})
        miner.report([agent])
        yield miner, agent


def requests(miner: RunningMiner) -> float:
    return miner.metric("bettertherapy_miner_requests_total", twin="indra", version=OLD.served_name, code="200")


async def test_the_same_question_is_answered_once_and_the_repetition_is_marked(tmp_path: Path) -> None:
    async with caching(tmp_path, subnet=on_subnet(tmp_path)) as (miner, agent):
        agent.base_digest = BASE
        miner.report([agent])
        _, first, made = await miner.ask("indra")
        agent.words = ("Something", " else")
        status, headers, again = await miner.ask("indra")
        assert (status, len(agent.bodies)) == (200, 1)
        assert again["choices"] == made["choices"]
        assert again["model"] == "indra"
        assert again["bettertherapy"]["cached"] is True
        assert names.CACHED_HEADER not in first
        assert int(headers[names.CACHED_HEADER]) >= 0
        assert headers[names.ADAPTER_DIGEST_HEADER] == OLD.digest
        receipts = [genuine(each[names.RECEIPT_HEADER]) for each in (first, headers)]
        assert [receipt.cached for receipt in receipts] == [False, True]
        assert [receipt.base.digest for receipt in receipts] == [BASE, BASE], "of the pod that gave it"
        assert receipts[0].answer == receipts[1].answer == answer_of(["It is fine."])
        assert requests(miner) == 1, "neither a canary's errors nor the speed are diluted"
        timed = {"twin": "indra", "version": OLD.served_name}
        assert miner.metric("bettertherapy_miner_request_seconds_count", **timed) == 1
        assert miner.metric("bettertherapy_miner_cache_total", outcome="hit") == 1


async def test_a_stream_is_repeated_as_a_stream(tmp_path: Path) -> None:
    async with pool(
        tmp_path, 1, sayings=[Saying(text="Drink water.")], miner_cache_bytes=1024 * 1024,
        miner_subnet=on_subnet(tmp_path),
    ) as running:  # fmt: skip
        first, again = await running.stream(), await running.stream()
        assert running.asked == 1
        assert text(first) == text(again) == "Drink water."
        assert [genuine(got[-2]["bettertherapy"]["receipt"]).cached for got in (first, again)] == [False, True]
        await running.miner.ask("indra")
        assert running.asked == 2, "a whole answer is another request"


async def test_what_the_best_of_several_gave_is_repeated_too(tmp_path: Path) -> None:
    async with pool(
        tmp_path, 1, sayings=[Saying(text="Drink water.")], miner_cache_bytes=1024 * 1024, miner_candidates=4,
    ) as running:  # fmt: skip
        await running.miner.ask("indra")
        _, headers, again = await running.miner.ask("indra")
        assert running.asked == 1
        assert names.CACHED_HEADER in headers
        assert again["bettertherapy"]["candidates"]["drawn"] == 4


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    async with pool(tmp_path, 1) as running:
        await running.miner.ask("indra")
        await running.miner.ask("indra")
        assert running.asked == 2


@pytest.mark.parametrize(
    "second",
    [
        {"text": "hello"}, {"temperature": 0.5}, {"user": "p-1"}, {"safety_identifier": "p-1"},
        {"prompt_cache_key": "p-1"}, {"metadata": {"age": "41"}}, {"headers": {"x-session-id": "s"}},
        {"messages": [{"role": "system", "content": "The patient is 41."}, {"role": "user", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hello", "name": "Sita"}]},
        {"messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Hello"},
        ]},
    ],
    ids=str,
)  # fmt: skip
async def test_nothing_but_the_same_words_of_nobody_in_particular_is_answered_again(
    tmp_path: Path, second: dict[str, Any]
) -> None:
    async with caching(tmp_path) as (miner, agent):
        await miner.ask("indra")
        before = len(agent.bodies)
        _, headers, _ = await miner.ask("indra", **second)
        assert names.CACHED_HEADER not in headers
        assert len(agent.bodies) > before
        others = "text" in second or "temperature" in second
        _, headers, _ = await miner.ask("indra", **second)
        assert (names.CACHED_HEADER in headers) == others, "what names somebody is never kept"


async def test_another_client_s_question_is_another_question(tmp_path: Path) -> None:
    async with caching(tmp_path) as (miner, agent):
        (miner.access_dir / "other").write_text("another-token-of-good-length")
        await miner.ask("indra")
        others = {"Authorization": "Bearer another-token-of-good-length"}

        async def answered() -> bool:
            status, headers, _ = await miner.ask("indra", headers=others)
            assert names.CACHED_HEADER not in headers
            return bool(status == 200)

        await eventually_async(answered)
        assert len(agent.bodies) == 2


async def test_another_version_or_other_rules_never_meet_an_old_answer(tmp_path: Path) -> None:
    async with caching(tmp_path) as (miner, agent):
        await miner.ask("indra")
        for count, twin in enumerate(
            (
                Twin(versions=(NEW,)),
                Twin(versions=(OLD,), system_prompt="Never name a dose."),
                Twin(versions=(OLD,), uid="another-doctor"),
            ),
            start=2,
        ):
            miner.route({"indra": twin})
            _, headers, _ = await miner.ask("indra")
            assert names.CACHED_HEADER not in headers
            # One that has rules asks what the template takes before.
            assert [body["messages"][-1]["content"] for body in agent.bodies].count("Hello") == count
        miner.route({"indra": Twin(versions=(OLD,))})
        _, headers, _ = await miner.ask("indra")
        assert headers[names.ADAPTER_DIGEST_HEADER] == OLD.digest, "rolled back: that version's own answer"


async def test_errors_and_broken_streams_are_not_kept(tmp_path: Path) -> None:
    async with caching(tmp_path, hold_seconds=0.0) as (miner, agent):
        agent.status, agent.error = 400, {"message": "no", "type": "BadRequestError"}
        await miner.ask("indra")
        agent.status = 200
        status, headers, _ = await miner.ask("indra")
        assert (status, headers.get(names.CACHED_HEADER)) == (200, None)


def test_it_is_bounded_in_bytes_and_age() -> None:
    now = 0.0
    cache = AnswerCache(max_bytes=3000, max_seconds=10, clock=lambda: now)
    for number in range(10):
        cache.put(bytes([number]), b"x" * 400, {})
        assert cache.bytes <= 3000
    assert (len(cache), cache.get(b"\x00")) == (3, None), "the longest unused goes first"
    assert cache.get(b"\x07") is not None
    cache.put(b"new", b"x" * 400, {})
    assert cache.get(b"\x07") is not None
    assert cache.get(b"\x08") is None
    cache.put(b"huge", b"x" * 3000, {})
    assert cache.get(b"huge") is None
    now = 11.0
    assert cache.get(b"\x07") is None
    assert cache.bytes == 2000
