"""An adapter that needs more than the engine was started for is told so, and the engine is not asked to load it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.report import AdapterReport, FailureReason
from neurons.agent.settings import parse_settings
from neurons.agent.started import changed_beyond_attention
from tests.standin import FakeAdapter
from tests.unit.agent.pod import Pod
from tests.unit.agent.test_on_demand import known, on_demand
from tests.unit.store.lora_files import DOWN, Q, lora, safetensors, write_lora

FUSED = "model.layers.0.self_attn.qkv_proj"
LOADS = "POST /v1/load_lora_adapter"


@asynccontextmanager
async def started(folder: Path, **settings: Any) -> AsyncIterator[Pod]:
    async with Pod(folder, **settings) as pod, pod.engine, pod.agent:
        yield pod


async def failure(pod: Pod, adapter: FakeAdapter) -> AdapterReport:
    pod.tables.write(adapter, max_lora_rank=256)
    found = await pod.failed(adapter)
    assert pod.engine.calls[LOADS] == 0
    return found


def all_linear(pod: Pod) -> FakeAdapter:
    return pod.adapter("dr", weights=safetensors(lora()))


async def test_modules_that_are_not_wrapped_are_named_before_they_are_lost(tmp_path: Path) -> None:
    async with started(tmp_path, lora_targets="Attention") as pod:
        found = await failure(pod, all_linear(pod))
    assert (found.reason, found.retryable) == (FailureReason.MODULES_NOT_WRAPPED, False)
    assert found.message is not None
    assert "the adapter changes down_proj, and" in found.message
    assert "loraTargets to AllLinear" in found.message
    assert found.attention_only is False


async def test_attention_alone_is_loaded_there(tmp_path: Path) -> None:
    async with started(tmp_path, lora_targets="Attention") as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.verified(adapter)
        report = pod.state(adapter)
    assert report is not None
    assert report.attention_only is True


async def test_without_a_word_everything_is_loaded(pod: Pod) -> None:
    adapter = all_linear(pod)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    report = pod.state(adapter)
    assert report is not None
    assert report.attention_only is False


@pytest.mark.parametrize("lacks", ["modules", "rank"])
async def test_nobody_waits_here_for_what_only_another_engine_can_load(tmp_path: Path, lacks: str) -> None:
    """While engines restart for it, those that have restarted answer."""
    async with started(tmp_path, lora_targets="Attention", max_lora_rank=16, follows_adapters=True) as pod:
        adapter = all_linear(pod) if lacks == "modules" else pod.adapter("dr", rank=64)
        await known(pod, on_demand(adapter), max_lora_rank=256)
        for _ in range(2):
            async with asyncio.timeout(5):
                status, document, headers = await pod.answer(adapter.name)
            assert (status, document["error"]["type"]) == (421, "AdapterNotHere")
            assert headers["x-twin-retry"] == "other-pod"
        assert pod.engine.calls[LOADS] == 0
        assert 'outcome="failed"} 2.0' in await pod.metrics()


async def test_where_the_operator_follows_the_adapters_it_is_tried_again(tmp_path: Path) -> None:
    async with started(tmp_path, lora_targets="Attention", max_lora_rank=16, follows_adapters=True) as pod:
        found = await failure(pod, all_linear(pod))
        assert (found.reason, found.retryable) == (FailureReason.MODULES_NOT_WRAPPED, True)
        assert found.message is not None
        assert "EnginesTuned says when" in found.message
        high = await failure(pod, pod.adapter("dr-high", rank=64))
    assert (high.reason, high.retryable) == (FailureReason.RANK_TOO_HIGH, True)
    assert high.message is not None
    assert "rank 64, and this pod's engine was started for 16" in high.message


async def test_many_modules_are_counted(tmp_path: Path) -> None:
    sizes = {f"model.layers.0.mlp.{name}_proj": (64, 64) for name in "abcdefgh"}
    async with started(tmp_path, lora_targets="Attention") as pod:
        found = await failure(pod, pod.adapter("dr", weights=safetensors(lora(sizes))))
    assert found.message is not None
    assert "changes a_proj, b_proj, c_proj, d_proj and 4 more, and" in found.message
    assert found.message.endswith("slower.")


@pytest.mark.parametrize(
    ("modules", "beyond"),
    [
        ({Q: (64, 64)}, []),
        ({FUSED: (64, 64)}, []),
        ({Q: (64, 64), DOWN: (64, 128)}, ["down_proj"]),
        ({"lm_head": (64, 64), "model.embed_tokens": (64, 64)}, ["embed_tokens", "lm_head"]),
        ({"transformer.h.0.attn.c_attn": (64, 64)}, ["c_attn"]),
    ],
)
@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_what_an_adapter_changes_is_read_from_its_tensors(
    modules: dict[str, tuple[int, int]], beyond: list[str], prefix: str, tmp_path: Path
) -> None:
    assert changed_beyond_attention(write_lora(tmp_path, lora(modules, prefix=prefix))) == beyond


def test_what_is_not_there_or_no_adapter_says_nothing(tmp_path: Path) -> None:
    assert changed_beyond_attention(tmp_path) is None
    (tmp_path / "adapter_model.safetensors").write_bytes(b"<html>")
    assert changed_beyond_attention(tmp_path) is None


def test_the_environment_tells_what_the_engine_was_started_for() -> None:
    pod = {"POOL": "p", "POD_NAMESPACE": "n", "POD_NAME": "a", "POD_UID": "u"}
    plain = parse_settings([], pod)
    assert (plain.lora_targets, plain.max_lora_rank, plain.follows_adapters) == ("", None, False)
    told = {"ENGINE_LORA_TARGETS": "Attention", "ENGINE_MAX_LORA_RANK": "32", "ENGINE_FOLLOWS_ADAPTERS": "true"}
    found = parse_settings([], {**pod, **told})
    assert (found.lora_targets, found.max_lora_rank, found.follows_adapters) == ("Attention", 32, True)
