"""Every kind of chat template answers, the doctor's rules in it; one that takes nothing is told in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.routing import Version
from neurons.miner import templates as miner_templates
from tests.standin import StandIn, templates
from tests.unit.miner.engine_pods import Pool, pool
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually

ON_BASE_OF_AGENTS = Version(served_name="base", weight_percent=100)
RULES = "You are Dr. Gurung's twin. Send every emergency to a hospital."
TALK: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "I have a headache."},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSince when?"},
    {"role": "user", "content": "Since Monday."},
    {"role": "user", "content": "No, since Sunday."},
]
KINDS = ["CHATML", "QWEN3", "LLAMA2", "MISTRAL", "GEMMA", "DEAF"]


async def ask(running: Pool, messages: list[Any] = TALK) -> tuple[int, Any]:
    status, _, document = await running.miner.ask("indra", messages=messages, max_tokens=4)
    return status, document


def prompt_of(template: str, running: Pool) -> str:
    """What the engine's model read last."""
    body = next(engine for engine in running.order if engine.bodies).bodies[-1]
    return templates.render(template, body["messages"])


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_template_reads_the_doctors_rules_and_all_turns(tmp_path: Path, kind: str) -> None:
    template = getattr(templates, kind)
    async with pool(tmp_path, system_prompt=RULES, chat_template=template) as running:
        assert (await ask(running))[0] == 200
        read = prompt_of(template, running)
        for words in (RULES, "Be brief.", "I have a headache.", "Since when?", "Since Monday.", "No, since Sunday."):
            assert words in read


@pytest.mark.parametrize("kind", KINDS)
async def test_a_template_is_probed_once(tmp_path: Path, kind: str) -> None:
    async with pool(tmp_path, system_prompt=RULES, chat_template=getattr(templates, kind)) as running:
        await ask(running)
        before = running.asked
        assert before <= 7
        for _ in range(3):
            assert (await ask(running))[0] == 200
        assert running.asked == before + 3


@pytest.mark.parametrize("kind", ["CHATML", "LLAMA2", "GEMMA"])
@pytest.mark.parametrize("rules", [None, RULES])
async def test_a_conversation_that_the_twin_begins_is_answered(tmp_path: Path, kind: str, rules: str | None) -> None:
    template = getattr(templates, kind)
    async with pool(tmp_path, 1, system_prompt=rules, chat_template=template) as running:
        greeted = [{"role": "assistant", "content": "How can I help?"}, {"role": "user", "content": "A cough."}]
        assert (await ask(running, greeted))[0] == 200
        assert all(words in prompt_of(template, running) for words in (rules or "", "How can I help?", "A cough."))


async def test_nothing_is_probed_where_nothing_depends_on_it(tmp_path: Path) -> None:
    async with pool(tmp_path, chat_template=templates.MISTRAL) as running:
        assert (await ask(running, [{"role": "user", "content": "Hello"}]))[0] == 200
        assert running.asked == 1


@pytest.mark.parametrize("kind", ["CHATML", "QWEN3", "LLAMA2", "MISTRAL", "GEMMA"])
async def test_a_stream_goes_on_elsewhere_with_every_template(tmp_path: Path, kind: str) -> None:
    async with pool(tmp_path, system_prompt=RULES, chat_template=getattr(templates, kind)) as running:
        whole = await running.stream(messages=TALK)
        running.order[0].knobs.cut_stream_after = 3
        assert await says(running) == [event["choices"][0]["delta"] for event in whole[:-1]]


async def says(running: Pool) -> list[Any]:
    return [event["choices"][0]["delta"] for event in (await running.stream(messages=TALK))[:-1]]


async def test_a_template_that_takes_nothing_is_told_in_words_and_counted(tmp_path: Path) -> None:
    async with pool(tmp_path, system_prompt=RULES, chat_template=templates.BROKEN) as running:
        for _ in range(2):
            status, document = await ask(running)
            assert (status, document["error"]["code"]) == (502, "chat_template_refuses")
            assert "this model takes no conversation" in document["error"]["message"]
            assert "--chat-template" in document["error"]["message"]
        assert running.asked == 1
        assert running.miner.metric("bettertherapy_miner_template_refusals_total") == 2


async def test_a_template_that_was_changed_is_probed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miner_templates, "ASK_AGAIN_SECONDS", 0.0)
    async with pool(tmp_path, system_prompt=RULES, chat_template=templates.CHATML) as running:
        assert (await ask(running))[0] == 200
        for engine in running.order:
            engine.knobs.chat_template = templates.GEMMA
        assert (await ask(running))[0] == 200
        assert RULES in prompt_of(templates.GEMMA, running)


async def test_a_conversation_that_is_odd_itself_is_the_clients_400(tmp_path: Path) -> None:
    async with pool(tmp_path, system_prompt=RULES, chat_template=templates.GEMMA) as running:
        assert (await ask(running))[0] == 200
        odd = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "tool", "content": "c"}]
        status, document = await ask(running, odd)
        assert status == 400
        assert "roles must alternate" in document["error"]["message"]


REFUSES: dict[str, Any] = {
    "429": {"status": 429, "error": {"type": "TooManyRequests", "message": "full"}},
    "503": {"status": 503, "error": {"type": "Overloaded", "message": "full"}},
    "500": {"status": 500, "error": {"type": "InternalServerError", "message": "x"}},
    "400_of_its_own": {"status": 400, "error": {"type": "BadRequestError", "message": "x", "param": "max_tokens"}},
    "breaks_off": {"break_off": True},
    "no_json": {"answer": b"<html>ok</html>"},
    "no_count": {"answer": b'{"choices": [{"index": 0}], "usage": {}}'},
}


@pytest.mark.parametrize("says", REFUSES.values(), ids=REFUSES)
async def test_no_conversation_is_sent_to_a_pod_whose_template_is_not_known(
    tmp_path: Path, says: dict[str, Any]
) -> None:
    agent = FakeAgent(pod="a", **says)
    async with agent, RunningMiner(tmp_path, hold_seconds=0.3) as miner:
        miner.route({"indra": Twin(versions=(ON_BASE_OF_AGENTS,), system_prompt=RULES)})
        miner.report([agent])
        status, _, document = await miner.ask("indra", text="I have a headache.")
        assert status in (429, 502, 503) or says.get("status") == status == 500
        assert document["error"]["message"]
        assert "I have a headache." not in str(agent.bodies)


async def test_an_engine_that_does_not_say_in_time_what_its_template_takes_gets_no_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miner_templates, "PROBE_SECONDS", 0.1)
    agent = FakeAgent(pod="a", gate=asyncio.Event())
    async with agent, RunningMiner(tmp_path, hold_seconds=0.3) as miner:
        miner.route({"indra": Twin(versions=(ON_BASE_OF_AGENTS,), system_prompt=RULES)})
        miner.report([agent])
        status, headers, document = await miner.ask("indra", text="I have a headache.")
        assert (status, document["error"]["code"]) == (503, "chat_template_unknown")
        assert int(headers["Retry-After"]) > 0
        assert "I have a headache." not in str(agent.bodies)


async def test_a_template_that_is_asked_while_its_engine_is_full_is_asked_again(tmp_path: Path) -> None:
    full = (429, "TooManyRequests", "full")
    async with pool(tmp_path, 1, system_prompt=RULES, chat_template=templates.DEAF, fail_generation=full) as running:
        (engine,) = running.order
        asked = asyncio.create_task(ask(running))
        await eventually(lambda: bool(engine.bodies))
        engine.knobs.fail_generation = None
        assert (await asked)[0] == 200
        assert RULES in prompt_of(templates.DEAF, running)


async def test_a_template_is_asked_at_another_pod_when_one_does_not_say(tmp_path: Path) -> None:
    async with pool(tmp_path, 2, system_prompt=RULES, chat_template=templates.DEAF) as running:
        first, second = running.order
        first.knobs.fail_generation = (429, "TooManyRequests", "full")
        assert (await ask(running))[0] == 200
        assert RULES in templates.render(templates.DEAF, second.bodies[-1]["messages"])


class Script(list[Any]):
    """Bodies of an engine that changes as they arrive: `then` is called with their number."""

    def __init__(self, then: Callable[[int], None]) -> None:
        super().__init__()
        self.then = then

    def append(self, body: Any) -> None:
        super().append(body)
        self.then(len(self))


async def test_nothing_is_known_of_a_template_in_doubt_until_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miner_templates, "ASK_AGAIN_SECONDS", 0.0)
    async with pool(tmp_path, 1, system_prompt=RULES, chat_template=templates.CHATML) as running:
        assert (await ask(running))[0] == 200
        (engine,) = running.order

        def change(arrived: int) -> None:
            if arrived == 1:  # it refuses the conversation, so that the template is in doubt
                engine.knobs.chat_template = templates.GEMMA
            elif arrived == 2:  # the question about it gets no answer
                engine.knobs.chat_template = templates.DEAF
                engine.knobs.fail_generation = (429, "TooManyRequests", "full")
            else:
                engine.knobs.fail_generation = None

        engine.bodies = Script(change)
        assert (await ask(running))[0] == 200
        assert RULES in prompt_of(templates.DEAF, running)


async def test_each_pod_is_asked_for_its_own_template(tmp_path: Path) -> None:
    async with (
        pool(tmp_path, 1, system_prompt=RULES, chat_template=templates.CHATML) as running,
        StandIn(port=0, chat_template=templates.DEAF) as new,
    ):
        assert (await ask(running))[0] == 200
        running.miner.report([FakeAgent(pod="new", address=f"127.0.0.1:{new.port}")])
        assert (await ask(running))[0] == 200
        assert RULES in templates.render(templates.DEAF, new.bodies[-1]["messages"])


async def test_one_probe_is_for_all_who_wait_though_the_first_leaves(tmp_path: Path) -> None:
    async with pool(tmp_path, 1, system_prompt=RULES, chat_template=templates.DEAF, prefill_seconds=0.05) as running:
        first = asyncio.create_task(ask(running))
        await eventually(lambda: running.asked > 0)
        others = [asyncio.create_task(ask(running)) for _ in range(5)]
        await asyncio.sleep(0.02)
        first.cancel()
        assert [status for status, _ in await asyncio.gather(*others)] == [200] * 5
        assert running.asked <= 6 + 5


async def test_a_template_that_leaves_the_rules_out_everywhere_is_told_in_words(tmp_path: Path) -> None:
    last_turn = "{{ '<user> ' + messages[-1]['content'] + ' <assistant>' }}"
    async with pool(tmp_path, 1, system_prompt=RULES, chat_template=last_turn) as running:
        status, document = await ask(running)
        assert (status, document["error"]["code"]) == (502, "chat_template_refuses")
        assert "leaves out" in document["error"]["message"]
