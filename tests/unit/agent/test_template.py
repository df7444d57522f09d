"""A chat template that takes no conversation is reported, once for each engine process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standin import templates
from tests.unit.agent.pod import Pod, running_pod, until

NOTHING = "{{ raise_exception('This model was made to complete texts, not to talk') }}"


def last_said(pod: Pod) -> str | None:
    return pod.reports[-1].engine.template_refusal if pod.reports else None


async def test_one_that_takes_nothing_is_reported_in_its_words(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod:
        pod.engine.knobs.chat_template = NOTHING
        async with pod.engine, pod.agent:
            pod.tables.write()
            await until(lambda: "made to complete texts" in (last_said(pod) or ""))


@pytest.mark.parametrize("template", ["CHATML", "MISTRAL", "GEMMA", "LLAMA2"])
async def test_each_manner_is_no_refusal(tmp_path: Path, template: str) -> None:
    async with Pod(tmp_path) as pod:
        pod.engine.knobs.chat_template = getattr(templates, template)
        async with pod.engine, pod.agent:
            pod.tables.write()
            await until(lambda: pod.agent.template.settled)
            assert pod.agent.template.refusal is None


async def test_an_engine_without_the_template_is_asked_anew(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        await until(lambda: pod.agent.template.settled)
        assert pod.agent.template.refusal is None
        pod.engine.knobs.chat_template = NOTHING
        await pod.engine.restart()
        await until(lambda: "made to complete texts" in (last_said(pod) or ""))
