"""A conversation that is too long is shortened: never the rules, never the newest question, the same way each time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from neurons.miner.history import Rounds, bound
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version

RULES = "Never recommend aspirin to children."
FILLER = "It was a long day and I walked around the lake with the dog and then home again. "


def talk(rounds: int, *, words: int = 3) -> list[dict[str, Any]]:
    """Return a conversation of so many questions, of which the first says something that matters."""
    turns: list[dict[str, Any]] = []
    for number in range(rounds):
        said = "I am allergic to penicillin. " if number == 0 else f"Day {number}. "
        turns.append({"role": "user", "content": said + FILLER * words})
        turns.append({"role": "assistant", "content": f"Answer {number}. " + FILLER * words})
    return [*turns, {"role": "user", "content": "And what shall I take now?"}]


async def test_a_long_conversation_is_shortened_and_the_answer_says_so(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    async with FakeAgent(pod="a", holds=held(v1), context=1024) as agent, RunningMiner(tmp_path) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        messages = talk(40)
        status, headers, _ = await miner.ask("dr-gurung", messages=messages, max_tokens=100)
        assert status == 200
        sent = agent.bodies[-1]["messages"]
        assert sent[0] == {"role": "system", "content": RULES}
        assert sent[-1] == messages[-1]
        assert sent[-3:-1] == messages[-3:-1]
        assert "I am allergic to penicillin." in sent[1]["content"]
        assert "messages of this conversation are left out" in sent[1]["content"]
        told = dict(part.split("=") for part in headers["x-twin-history"].split(", "))
        assert int(told["summarised"]) + int(told["dropped"]) + int(told["kept"]) == len(messages)
        assert miner.metric("bettertherapy_miner_shortened_histories_total", outcome="summarised") == 1
        assert miner.metric("bettertherapy_miner_left_out_messages_total") > 0
        await miner.ask("dr-gurung", messages=messages, max_tokens=100)
        assert agent.bodies[-1]["messages"] == sent


async def test_a_conversation_that_fits_is_sent_as_it_is_and_counted_by_nobody(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    async with FakeAgent(pod="a", holds=held(v1), context=8192) as agent, RunningMiner(tmp_path) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        messages = talk(3)
        _, headers, _ = await miner.ask("dr-gurung", messages=messages)
        assert agent.bodies[-1]["messages"][1:] == messages
        assert agent.counted == 0
        assert "x-twin-history" not in headers
        messages = talk(15)  # more bytes than tokens that fit: now the engine is asked, and it fits
        await miner.ask("dr-gurung", messages=messages)
        assert agent.bodies[-1]["messages"][1:] == messages
        assert agent.counted == 1
        assert agent.counted_for == ["dr-gurung"]


async def test_a_newest_message_that_is_too_long_is_refused_in_words(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    async with FakeAgent(pod="a", holds=held(v1), context=1024) as agent, RunningMiner(tmp_path) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        status, _, document = await miner.ask("dr-gurung", text=FILLER * 100)
        assert status == 400
        assert document["error"]["code"] == "context_length_exceeded"
        assert "1024" in document["error"]["message"]
        assert "lake" not in document["error"]["message"]
        assert "lake" not in str(agent.bodies)


async def test_an_engine_that_counts_no_tokens_gets_what_fits_for_certain(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    agent = FakeAgent(pod="a", holds=held(v1), context=2048, bytes_a_token=None)
    async with agent, RunningMiner(tmp_path) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        for rounds in (20, 21):
            status, _, _ = await miner.ask("dr-gurung", messages=talk(rounds), max_tokens=100)
            assert status == 200


def test_what_was_cut_stays_cut_while_a_conversation_grows() -> None:
    cuts = []
    for rounds in range(10, 30):
        turns = talk(rounds)
        size = sum(len(turn["content"]) for turn in turns) // 4
        cuts.append(Rounds.of(turns).cut_for(1200, size=size))
    assert cuts == sorted(cuts)
    assert len(set(cuts)) < 10
    assert cuts[-1] > 0


def test_calls_of_tools_and_their_results_stay_together() -> None:
    turns = [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "two"},
        {"role": "user", "content": "and three"},
    ]
    rounds = Rounds.of(turns)
    assert [len(each) for each in rounds.rounds] == [5, 2]
    shortened = rounds.shortened(1, summary_bytes=100)
    assert [turn["role"] for turn in shortened.turns] == ["user", "user"]
    assert "- one" in shortened.turns[0]["content"]
    assert (shortened.kept, shortened.summarised, shortened.dropped) == (2, 1, 4)


def test_no_prompt_has_more_tokens_than_the_bound() -> None:
    assert bound(100, 3, tools=False) > 100


def test_a_conversation_of_very_many_rounds_stops_nobody_else() -> None:
    """1 MiB holds so many; while they are counted the miner answers no patient."""
    turns = [{"role": role, "content": "a"} for _ in range(16_000) for role in ("user", "assistant")]
    rounds = Rounds.of([*turns, {"role": "user", "content": "c"}])
    began = time.process_time()
    assert rounds.cut_for(120_000, size=450_000) > 8000
    assert time.process_time() - began < 0.5


BUSY = [
    turn
    for day in range(1, 12)
    for turn in (
        {"role": "user", "content": f"Day {day}: blood pressure {120 + day}, I take the 5 mg tablet, no pill."},
        {"role": "assistant", "content": "Go on with it."},
        {"role": "user", "content": f"Took {day} mg pills"},
        {"role": "assistant", "content": "Good."},
    )
]
"""What ranks high by its many words of medicine, and fills what room is left."""


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        (["I am allergic to penicillin."], "I am allergic to penicillin."),
        (["I'm on warfarin."], "I'm on warfarin."),
        (["I am HIV positive."], "I am HIV positive."),
        (["I want to end my life."], "I want to end my life."),
        (["I swallowed all of the pills."], "I swallowed all of the pills."),
        (["I can't breathe when I lie down."], "I can't breathe when I lie down."),
        (["I might be 8 weeks pregnant."], "I might be 8 weeks pregnant."),
        (["मलाई पेनिसिलिनको एलर्जी छ।"], "मलाई पेनिसिलिनको एलर्जी छ।"),
        (["Hello", "Are you allergic to any medicine?", "Yes, penicillin."], "Yes, penicillin."),
        (["Hello", "I see. Are you pregnant?", "Yes"], 'Asked "Are you pregnant?", I said: Yes'),
        (
            ["so hello doctor " + "i walked around the lake with the dog and home again " * 20
             + "and i am allergic to penicillin by the way " + "and then we ate rice at my house " * 20],
            "i am allergic to penicillin",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_may_harm_is_kept_before_all_else_that_was_said(first: list[str], kept: str) -> None:
    roles = ("user", "assistant", "user")
    begin = [{"role": role, "content": text} for role, text in zip(roles, first, strict=False)]
    if begin[-1]["role"] == "user":
        begin.append({"role": "assistant", "content": "I see."})
    rounds = Rounds.of([*begin, *BUSY, {"role": "user", "content": "May I take amoxicillin?"}])
    shortened = rounds.shortened(len(rounds.rounds) - 1, summary_bytes=400)
    content = shortened.turns[0]["content"]
    assert kept in content
    assert len(content.encode()) < 400 + 250


def test_of_a_sentence_that_is_full_of_what_may_harm_the_first_of_it_is_kept() -> None:
    """One breath of a dictated story: its pieces touch one another, and must not become one that is too long."""
    breath = "i am allergic to penicillin and it was on a day like this one when i " + (
        "had the asthma again and my sister drove me home and it rained so much that day then " * 60
    )
    rounds = Rounds.of([
        {"role": "user", "content": breath}, {"role": "assistant", "content": "I see."},
        {"role": "user", "content": "May I take amoxicillin?"},
    ])  # fmt: skip
    content = rounds.shortened(1, summary_bytes=600).turns[0]["content"]
    assert "i am allergic to penicillin" in content
    assert len(content.encode()) < 600 + 250


@pytest.mark.parametrize("filler", ["a ", "allergy ", "no, ", "z" * 2000 + " "], ids=["a", "allergy", "no", "long"])
def test_a_sentence_without_an_end_is_looked_through_once(filler: str) -> None:
    """It is as long as a body may be, and read anew for each length that is tried: others' tokens wait meanwhile."""

    def spent(length: int) -> tuple[float, Rounds]:
        sentence = filler * (length // len(filler)) + "I am allergic to penicillin " + filler * 20
        rounds = Rounds.of([
            {"role": "user", "content": sentence}, {"role": "assistant", "content": "I see."},
            {"role": "user", "content": "What may I take?"},
        ])  # fmt: skip
        began = time.thread_time()
        shortened = rounds.shortened(1, summary_bytes=4000)
        return time.thread_time() - began, shortened

    # Four times as long takes about four times as long, on whatever machine; read anew each time, sixteen.
    quarter = min(spent(250_000)[0] for _ in range(3))
    whole, shortened = spent(1_000_000)
    assert whole < 10 * quarter + 0.05
    if filler == "a ":
        assert "… " + "a " * 16 + "I am allergic to penicillin" in shortened.turns[0]["content"]


async def test_a_second_cut_leaves_rounds_out_before_it_leaves_out_what_may_harm(tmp_path: Path) -> None:
    """The rounds have nearly no bytes by their estimate, and many tokens: the first cut is never enough."""
    v1 = version("dr-gurung", "a")
    async with FakeAgent(pod="a", holds=held(v1), context=1024) as agent, RunningMiner(tmp_path) as miner:
        miner.report([agent])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        long = "I sleep badly and it is a long story. " * 44
        messages = [
            {"role": "user", "content": "I am allergic to penicillin."}, {"role": "assistant", "content": "Noted."},
            *({"role": role, "content": "ok"} for _ in range(300) for role in ("user", "assistant")),
            {"role": "user", "content": long}, {"role": "assistant", "content": long},
            {"role": "user", "content": "What shall I take?"},
        ]  # fmt: skip
        status, _, _ = await miner.ask("dr-gurung", messages=messages, max_tokens=100)
        assert status == 200
        assert "I am allergic to penicillin." in str(agent.bodies[-1]["messages"])


async def test_rules_that_grew_while_a_pod_failed_are_fitted_anew(tmp_path: Path) -> None:
    v1 = version("dr-gurung", "a")
    gate = asyncio.Event()
    first, second = (FakeAgent(pod=pod, holds=held(v1), context=1024, gate=gate) for pod in "ab")
    async with first, second, RunningMiner(tmp_path) as miner:
        miner.report([first, second])
        miner.route({"dr-gurung": Twin((v1,), system_prompt=RULES)})
        for agent in (first, second):  # what the template takes is asked before
            agent.gate = None
        messages = talk(40)
        await miner.ask("dr-gurung", messages=messages, max_tokens=100)
        for agent in (first, second):
            agent.gate = gate
            agent.bodies.clear()
        asking = asyncio.create_task(miner.ask("dr-gurung", messages=messages, max_tokens=100))
        await eventually(lambda: bool(first.running or second.running))
        (first if first.running else second).break_off = True
        longer = RULES + " " + FILLER * 20
        miner.route({"dr-gurung": Twin((v1,), system_prompt=longer)})
        gate.set()
        status, _, _ = await asking
        assert status == 200
        sent = next(agent.bodies[-1]["messages"] for agent in (first, second) if not agent.break_off)
        assert sent[0]["content"] == longer
