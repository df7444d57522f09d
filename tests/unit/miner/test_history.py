"""A conversation that is too long is shortened: never the rules, never the newest question, the same way each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neurons.miner.history import Rounds, bound
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, held, version

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
