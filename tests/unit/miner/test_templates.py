"""Every kind of chat template answers, the doctor's rules in it; one that takes nothing is told in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurons.miner import templates as miner_templates
from tests.standin import templates
from tests.unit.miner.engine_pods import Pool, pool

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
        assert before <= 6
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
