"""The best of several answers is given, in its time, whatever some of them do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from bettertherapy_api import names
from neurons.candidates import Candidate, Question, Weighted, read_scorers
from neurons.receipts import answer_of
from tests.standin.sayings import Saying
from tests.unit.miner.engine_pods import QUESTION, Pool, pool, text
from tests.unit.miner.running_miner import TOKEN, eventually
from tests.unit.miner.signing_miner import on_subnet
from tests.unit.miner.test_receipted_answers import genuine

RIGHT = "Drink water, rest, and see a doctor if it lasts."
RIGHT_TOO = "Drink water and rest, and see a doctor if it lasts."
ODD = "Bananas are yellow."
SCORERS = read_scorers("agreement:2,likelihood,support:2")


def says(*texts: str) -> list[Saying]:
    return [Saying(text=said) for said in texts]


@asynccontextmanager
async def drawing(folder: Path, sayings: Sequence[Saying], *, count: int = 1, **more: Any) -> AsyncIterator[Pool]:
    settings = {"miner_candidates": 4, "miner_latency_budget_seconds": 10.0, "miner_scorers": SCORERS}
    async with pool(folder, count, sayings=sayings, **(settings | more)) as running:
        yield running


async def ask(running: Pool, **body: Any) -> tuple[Any, Any]:
    status, headers, document = await running.miner.ask("indra", **body)
    assert status == 200, document
    return headers, document


def said(document: Any) -> str:
    [choice] = document["choices"]
    assert choice["index"] == 0
    return str(choice["message"]["content"])


def outcome(running: Pool, what: str) -> float:
    return running.miner.metric("bettertherapy_miner_draws_total", outcome=what)


async def test_the_answer_that_most_agree_with_is_given_and_says_how_many_were_drawn(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT_TOO, RIGHT)) as running:
        headers, document = await ask(running)
        assert said(document) == RIGHT
        assert headers[names.CANDIDATES_HEADER] == "4"
        assert document["bettertherapy"]["candidates"] == {"drawn": 4, "complete": 4, "chosen": 1}
        assert document["model"] == "indra"
        assert document["object"] == "chat.completion"
        assert document["choices"][0]["logprobs"] is None, "nobody asked for them"
        assert document["choices"][0]["finish_reason"] == "stop"
        words = len(RIGHT.split())
        assert document["usage"]["completion_tokens"] == words, "its own tokens, not all that were drawn"
        assert document["usage"]["prompt_tokens"] > 0
        [engine] = running.order
        assert [body["n"] for body in engine.bodies] == [4], "one request, so that the prompt is read once"
        assert running.miner.metric("bettertherapy_miner_candidates_total", outcome="complete") == 4
        assert running.miner.metric("bettertherapy_miner_candidate_chosen_total", index="1") == 1
        assert outcome(running, "compared") == 1


async def test_a_stream_is_the_winner_s_and_nothing_else(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT_TOO, RIGHT)) as running:
        got = await running.stream(stream_options={"include_usage": True})
        assert text(got) == RIGHT
        assert got[-1] == "[DONE]"
        assert got[-2]["choices"] == []
        assert got[-2]["usage"]["completion_tokens"] == len(RIGHT.split())
        chunks = list(got[:-2])
        assert {choice["index"] for event in chunks for choice in event["choices"]} == {0}
        assert all("usage" not in event for event in chunks)
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert len({event["id"] for event in chunks}) == 1


async def test_the_receipt_is_the_chosen_answer_s(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT_TOO, RIGHT), miner_subnet=on_subnet(tmp_path)) as running:
        headers, _ = await ask(running)
        receipt = genuine(headers[names.RECEIPT_HEADER])
        assert (receipt.answer, receipt.choices, receipt.cached) == (answer_of([RIGHT]), 1, False)
        got = await running.stream()
        assert genuine(got[-2]["bettertherapy"]["receipt"]).answer == answer_of([RIGHT])


async def test_what_hangs_is_left_out_at_the_budget(tmp_path: Path) -> None:
    hanging = Saying(text=RIGHT, hangs=True)
    sayings = [hanging, Saying(text=ODD), hanging, hanging]
    async with drawing(tmp_path, sayings, miner_latency_budget_seconds=0.4) as running:
        began = time.monotonic()
        _, document = await ask(running)
        assert said(document) == ODD, "the only one that is complete"
        assert time.monotonic() - began >= 0.35
        assert document["bettertherapy"]["candidates"] == {"drawn": 4, "complete": 1, "chosen": 1}
        await eventually(lambda: running.order[0].aborted == 1)
        assert running.order[0].running == 0
        assert outcome(running, "one_complete") == 1
        assert running.miner.metric("bettertherapy_miner_candidates_total", outcome="missing") == 3


async def test_once_half_are_complete_stragglers_are_not_waited_for(tmp_path: Path) -> None:
    slow = Saying(text=RIGHT, seconds=30)
    async with drawing(tmp_path, [slow, *says(RIGHT_TOO, RIGHT), slow]) as running:
        async with asyncio.timeout(8):
            _, document = await ask(running)
        assert document["bettertherapy"]["candidates"]["complete"] == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_first_answer_that_is_slower_than_the_budget_is_still_given(tmp_path: Path, stream: bool) -> None:
    slow = Saying(text=RIGHT, seconds=0.05)
    async with drawing(tmp_path, [slow], miner_latency_budget_seconds=0.1) as running:
        if stream:
            got = await running.stream()
            assert (text(got), got[-1]) == (RIGHT, "[DONE]")
            assert outcome(running, "live") == 1
        else:
            _, document = await ask(running)
            assert said(document) == RIGHT
        assert running.asked == 1


async def test_a_stream_is_kept_alive_while_candidates_are_compared(tmp_path: Path) -> None:
    slow = Saying(text=RIGHT, seconds=0.06)
    async with drawing(tmp_path, [slow], miner_keep_alive_seconds=0.05) as running:
        body = {"model": "indra", "messages": QUESTION, "stream": True}
        async with running.miner.client.post("/v1/chat/completions", json=body) as response:
            assert response.headers["Cache-Control"] == "no-cache"
            first = await response.content.readline()
            assert first == b": comparing\n", "before anything was said"
            data = first + await response.read()
        assert data.count(b": comparing\n\n") >= 3
        assert data.rstrip().endswith(b"data: [DONE]")
        client = openai.AsyncOpenAI(base_url=f"{running.miner.url}/v1", api_key=TOKEN)
        chunks = [c async for c in await client.chat.completions.create(model="indra", messages=QUESTION, stream=True)]
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == RIGHT, "OpenAI's client reads over them"
        await client.close()


async def test_a_stream_in_the_form_of_responses_is_kept_alive_too(tmp_path: Path) -> None:
    slow = Saying(text=RIGHT, seconds=0.06)
    async with drawing(tmp_path, [slow], miner_keep_alive_seconds=0.05) as running:
        client = openai.AsyncOpenAI(base_url=f"{running.miner.url}/v1", api_key=TOKEN)
        events = [e async for e in await client.responses.create(model="indra", input="Hello", stream=True)]
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == RIGHT
        whole = await client.responses.create(model="indra", input="Hello")
        assert whole.output_text == RIGHT
        assert whole.model_extra is not None
        assert whole.model_extra["bettertherapy"]["candidates"]["drawn"] == 4
        await client.close()


async def test_a_client_that_leaves_while_candidates_are_compared_ends_them_all(tmp_path: Path) -> None:
    hanging = Saying(text=RIGHT, hangs=True)
    async with drawing(tmp_path, [hanging], miner_keep_alive_seconds=0.05) as running:
        for stream in (False, True):
            asking = asyncio.create_task(ask(running, stream=True) if stream else ask(running))
            await eventually(lambda: running.order[0].running == 1)
            asking.cancel()
            await asyncio.wait({asking})
            await eventually(lambda: running.order[0].running == 0)
        assert running.order[0].aborted == 2
        assert [pod.in_flight for pod in running.miner.service.tables.snapshot.ready_pods] == [0]


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 2}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0}, {"seed": 7}, {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
    ],
    ids=lambda asked: next(iter(asked)),
)  # fmt: skip
async def test_what_a_client_asks_for_itself_is_respected(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT, RIGHT)) as running:
        headers, document = await ask(running, **asked)
        assert names.CANDIDATES_HEADER not in headers
        assert "candidates" not in document["bettertherapy"]
        [engine] = running.order
        assert engine.bodies[0].get("n", 1) == asked.get("n", 1)
        assert "stream_options" not in engine.bodies[0]


async def test_n_1_is_one_answer_that_may_be_the_best_of_several(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT, RIGHT)) as running:
        assert said((await ask(running, n=1))[1]) == RIGHT


@pytest.mark.parametrize("settings", [{"miner_candidates": 1}, {"miner_latency_budget_seconds": 0.0}], ids=str)
async def test_without_candidates_or_time_one_answer_is_asked_for(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT, RIGHT), **settings) as running:
        headers, document = await ask(running)
        assert (said(document), headers.get(names.CANDIDATES_HEADER)) == (ODD, None)


async def test_an_engine_that_ignores_n_is_answered_with_its_one(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD), most_choices=1) as running:
        headers, document = await ask(running)
        assert (said(document), headers[names.CANDIDATES_HEADER]) == (ODD, "1")
        assert running.asked == 1


async def test_an_engine_that_refuses_n_is_asked_for_one_and_not_again_for_several(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(ODD), refuses_choices=True) as running:
        for asked in (2, 3):
            _, document = await ask(running)
            assert said(document) == ODD
            assert running.asked == asked, "refused once, then plain"
        assert outcome(running, "refused") == 1


async def test_a_client_s_own_error_is_its_own_and_blames_no_engine(tmp_path: Path) -> None:
    async with drawing(tmp_path, says(RIGHT)) as running:
        running.order[0].knobs.fail_generation = (400, "BadRequestError", "max_tokens is too much")
        status, _, document = await running.miner.ask("indra", max_tokens=10)
        assert (status, document["error"]["message"]) == (400, "max_tokens is too much")
        running.order[0].knobs.fail_generation = None
        assert (await ask(running))[0][names.CANDIDATES_HEADER] == "4", "drawn again at once"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_while_drawing_is_replaced_by_one_answer_of_another(
    tmp_path: Path, stream: bool
) -> None:
    async with drawing(tmp_path, [Saying(text=RIGHT, hangs=True)], count=2, miner_keep_alive_seconds=0.02) as running:
        first, second = running.order
        second.knobs.sayings = says(RIGHT_TOO)
        asking = asyncio.create_task(running.stream() if stream else running.miner.ask("indra"))
        await eventually(lambda: first.running == 1)
        await asyncio.sleep(0.1)  # some keep-alives: the stream has begun
        await first.stop()
        got = await asking
        assert (text(got) if stream else said(got[2])) == RIGHT_TOO
        assert "n" not in second.bodies[0], "what broke one engine isn't multiplied at the next"


async def test_an_error_in_the_stream_loses_no_answer_that_was_complete(tmp_path: Path) -> None:
    hanging = Saying(text=RIGHT, hangs=True)
    async with drawing(tmp_path, [hanging, Saying(text=ODD), hanging, hanging]) as running:
        asking = asyncio.create_task(ask(running))
        [engine] = running.order
        await eventually(lambda: engine.running == 1)
        await asyncio.sleep(0.1)
        await engine.stop()
        assert said((await asking)[1]) == ODD


async def test_an_aborted_candidate_is_none(tmp_path: Path) -> None:
    async with drawing(tmp_path, [Saying(text=RIGHT, finish="abort"), *says(ODD)]) as running:
        assert said((await ask(running))[1]) == ODD


async def test_complete_answers_go_before_cut_ones_and_those_before_empty_ones(tmp_path: Path) -> None:
    cut = Saying(text=RIGHT, finish="length")
    async with drawing(tmp_path, [Saying(text=""), cut, cut, Saying(text=ODD)]) as running:
        assert said((await ask(running))[1]) == ODD
        running.order[0].knobs.sayings = [Saying(text=""), Saying(text=""), cut, Saying(text="")]
        assert said((await ask(running))[1]) == RIGHT
        running.order[0].knobs.sayings = [Saying(text="")]
        assert said((await ask(running))[1]) == "", "as one answer would be"


@pytest.mark.parametrize("bad", [{"logprob": None}, {"raw_nan": True}], ids=["null", "NaN"])
async def test_probabilities_that_are_no_numbers_lose_no_word_and_win_nothing(
    tmp_path: Path, bad: dict[str, Any]
) -> None:
    async with drawing(tmp_path, [Saying(text=RIGHT, **bad), Saying(text=RIGHT, **bad), *says(ODD, ODD)]) as running:
        assert said((await ask(running))[1]) == ODD
        running.order[0].knobs.sayings = [Saying(text=RIGHT, **bad)]
        assert said((await ask(running))[1]) == RIGHT


class Scripted:
    """A scorer that does as it is told."""

    needs_logprobs = False

    def __init__(self, does: Any) -> None:
        self.does = does
        self.seen: list[Question] = []

    async def score(self, question: Question, candidates: Sequence[Candidate]) -> Any:
        self.seen.append(question)
        if isinstance(self.does, BaseException):
            raise self.does
        if self.does == "hang":
            await asyncio.Event().wait()
        return self.does


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (ValueError("a patient's words"), "error"), ("hang", "late"), ([math.nan] * 4, "nonsense"),
        ([2.0] * 4, "nonsense"), ([1.0], "nonsense"), (None, "error"),
    ],
    ids=["raises", "hangs", "NaN", "too much", "too few", "nothing"],
)  # fmt: skip
async def test_a_scorer_that_fails_leaves_the_choice_to_the_others(
    tmp_path: Path, does: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    scorers = (Weighted("odd", Scripted(does), 100.0), *SCORERS)
    async with drawing(
        tmp_path, says(ODD, RIGHT, RIGHT, RIGHT), miner_scorers=scorers, miner_latency_budget_seconds=0.6
    ) as running:
        assert said((await ask(running))[1]) == RIGHT
        assert running.miner.metric("bettertherapy_miner_scorer_failures_total", scorer="odd", why=why) == 1
        assert "words" not in caplog.text


async def test_without_any_opinion_the_first_is_given(tmp_path: Path) -> None:
    scorers = (Weighted("odd", Scripted([None] * 4)),)
    async with drawing(tmp_path, says(ODD, RIGHT, RIGHT, RIGHT), miner_scorers=scorers) as running:
        _, document = await ask(running, text="What now?")
        assert (said(document), document["bettertherapy"]["candidates"]["chosen"]) == (ODD, 0)
        assert scorers[0].scorer.seen[0].text == "What now?"  # type: ignore[attr-defined]
        assert "logprobs" not in running.order[0].bodies[0], "no scorer reads them"


async def test_a_live_candidate_that_is_stopped_in_the_middle_is_no_answer(tmp_path: Path) -> None:
    """What was forwarded goes on elsewhere or is told to be incomplete: never a signed end in the middle."""
    stopped = Saying(text="You may take it but", seconds=0.05, finish="abort")
    async with drawing(
        tmp_path, [stopped], miner_latency_budget_seconds=0.08, miner_subnet=on_subnet(tmp_path),
        miner_hold_seconds=0.0,
    ) as running:  # fmt: skip
        got = await running.stream()
        assert outcome(running, "live") == 1
        assert got[-1] != "[DONE]"
        assert got[-1]["error"]["code"] == "stream_broken"
        assert "abort" not in str(got)
        assert "receipt" not in str(got)


async def test_an_empty_answer_is_no_reason_to_leave_those_that_come(tmp_path: Path) -> None:
    slow = Saying(text=RIGHT, seconds=0.05)
    sayings = [Saying(text=""), slow, slow, slow]
    async with drawing(tmp_path, sayings, miner_latency_budget_seconds=0.1) as running:
        assert text(await running.stream()) == RIGHT
        _, document = await ask(running)
        assert said(document) == RIGHT
