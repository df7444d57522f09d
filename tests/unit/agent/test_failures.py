"""Every way in which an adapter may fail to come in, each with its reason and a message that says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bettertherapy_api.manifest import AdapterManifest, manifest_digest
from bettertherapy_api.report import AdapterState, FailureReason
from neurons.store import AccessDenied, NoSpace, StoreUnreachable, fetch_adapter
from tests.standin import seed_of
from tests.unit.agent.pod import Pod, running_pod, until
from tests.unit.store.lora_files import lora, safetensors

NAN_NAME = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"
WRONG = "sha256:" + "0" * 64


async def expect(pod: Pod, adapter: object, reason: FailureReason, *, retryable: bool, says: str) -> None:
    report = await pod.failed(adapter)  # type: ignore[arg-type]
    assert report.reason is reason
    assert report.retryable is retryable
    assert report.message is not None
    assert says in report.message


async def test_artifact_not_found(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter.entry(uri=(pod.store / "nowhere").as_uri()))
    await expect(pod, adapter, FailureReason.ARTIFACT_NOT_FOUND, retryable=True, says="Check")


async def test_an_artifact_that_arrives_later_is_found(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    hidden = adapter.folder.rename(adapter.folder.with_name("hidden"))
    pod.tables.write(adapter)
    await pod.failed(adapter)
    hidden.rename(adapter.folder)
    await pod.verified(adapter)


@pytest.mark.parametrize("error", [StoreUnreachable, AccessDenied, NoSpace])
async def test_what_the_store_says(tmp_path: Path, error: type[StoreUnreachable | AccessDenied | NoSpace]) -> None:
    broken = True

    async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
        if broken:
            raise error("the store says no. Do something.")
        return await fetch_adapter(uri, digest, destination)

    async with Pod(tmp_path) as pod:
        adapter = pod.adapter("dr")
        pod.new_agent(fetch=fetch)
        async with pod.engine, pod.agent:
            pod.tables.write(adapter)
            await expect(pod, adapter, error.reason, retryable=True, says="Do something")
            broken = False
            await pod.verified(adapter)


async def test_digest_mismatch(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    (adapter.folder / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.DIGEST_MISMATCH, retryable=False, says="push")
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == 0


async def test_manifest_invalid(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    (adapter.folder / "manifest.json").unlink()
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.MANIFEST_INVALID, retryable=True, says="push")  # it is written last


async def test_base_model_mismatch(pod: Pod) -> None:
    adapter = pod.adapter("dr", base="another-model")
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.BASE_MODEL_MISMATCH, retryable=False, says="another-model")


async def test_an_engine_with_another_base_model_than_the_table(pod: Pod) -> None:
    adapter = pod.adapter("dr", base="new-base")
    pod.tables.write(adapter, base="new-base")
    await expect(pod, adapter, FailureReason.BASE_MODEL_MISMATCH, retryable=True, says="being replaced")


async def test_rank_mismatch(pod: Pod) -> None:
    adapter = pod.adapter("dr", rank=8)
    pod.tables.write(adapter.entry(rank=4))
    await expect(pod, adapter, FailureReason.RANK_MISMATCH, retryable=False, says="Set adapter.rank to 8")


async def test_rank_above_the_pools(pod: Pod) -> None:
    adapter = pod.adapter("dr", rank=32)
    pod.tables.write(adapter, max_lora_rank=16)
    await expect(pod, adapter, FailureReason.RANK_TOO_HIGH, retryable=False, says="maxLoraRank")


async def test_rank_above_the_engines(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    text = "Call to add_lora method failed: LoRA rank 64 is greater than max_lora_rank 16."
    pod.engine.knobs.fail_load = lambda name: (500, "InternalServerError", text)
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.RANK_TOO_HIGH, retryable=False, says="64 is greater than")


async def test_a_manifest_that_says_another_rank_than_the_configuration(pod: Pod) -> None:
    adapter = pod.adapter("dr", rank=8, config_rank=64)
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.MANIFEST_INVALID, retryable=False, says="the adapter has rank 64")
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprobs", "NaN"), ("logprobs", "-Infinity"), ("logprobs", "1e308"), ("tokenIds", "-1"),
        ("tokenIds", "36893488147419103232"),
    ],
)  # fmt: skip
async def test_a_fingerprint_of_numbers_that_are_none_of_a_models_is_an_invalid_manifest(
    pod: Pod, field: str, value: str
) -> None:
    adapter = pod.adapter("dr")
    data = adapter.manifest.to_bytes()
    document = json.loads(data)
    document["fingerprint"][field] = ["here"] * len(document["fingerprint"][field])
    data = json.dumps(document).replace('"here"', value).encode()
    digest = manifest_digest(data)
    folder = adapter.folder.rename(adapter.folder.with_name(digest.removeprefix("sha256:")))
    (folder / "manifest.json").write_bytes(data)
    pod.tables.write(adapter.entry(digest=digest, uri=folder.as_uri()))
    await until(lambda: any(r.state is AdapterState.FAILED for r in pod.agent.report().adapters.values()))
    [report] = pod.agent.report().adapters.values()
    assert (report.reason, report.retryable) == (FailureReason.MANIFEST_INVALID, False), report.message
    assert not pod.engine.loras


async def test_the_engine_refuses_for_good(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.fail_load = lambda name: (400, "BadRequestError", "unsupported target module")
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ENGINE_REFUSED, retryable=False, says="unsupported target module")


@pytest.mark.parametrize(
    "words",
    [
        "Call to add_lora method failed: model.layers.0.self_attn.q_proj.lora_E is unsupported LoRA weight",
        "Call to add_lora method failed: While loading /adapters/dr/0, expected target modules in {}",
        "unsupported operand type(s) for /: 'NoneType' and 'int'",
    ],
)
async def test_a_refusal_that_no_repeat_makes_better_is_not_repeated(words: str, pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.fail_load = lambda name: (500, "InternalServerError", words)
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ENGINE_REFUSED, retryable=False, says=words[:50])
    pod.tables.write(adapter, pod.adapter("other"))
    await until(lambda: pod.engine.calls["POST /v1/load_lora_adapter"] == 2)
    assert pod.agent.roster.reports()[adapter.name].state is AdapterState.FAILED


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        (lambda: b"version https://git-lfs.github.com/spec/v1", FailureReason.ADAPTER_INVALID, "Git LFS pointer"),
        (lambda: b"<html>", FailureReason.ADAPTER_INVALID, "web page"),
        (lambda: safetensors(lora())[:-1], FailureReason.ADAPTER_INVALID, "cut off"),
        (lambda: safetensors(lora(rank=4)), FailureReason.ADAPTER_INVALID, "says rank 8"),
        (lambda: safetensors(lora() | {NAN_NAME: ("F16", (1, 1), b"\0\x7e")}), FailureReason.ADAPTER_INVALID, "k_proj"),
        (lambda: safetensors(lora(sizes={"model.layers.0.self_attn.q_proj": (2, 2)}, dtype="F16"))[:-2] + b"\0\x7e",
         FailureReason.WEIGHTS_NOT_FINITE, "nan"),
    ],
)  # fmt: skip
async def test_what_others_put_into_the_store_never_reaches_the_engine(
    content: Callable[[], bytes], reason: FailureReason, says: str, pod: Pod
) -> None:
    adapter = pod.adapter("dr", weights=content())
    pod.tables.write(adapter)
    await expect(pod, adapter, reason, retryable=False, says=says)
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == 0
    assert not pod.path(adapter).exists()


async def test_the_engine_fails_and_recovers(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.fail_load = lambda name: (500, "InternalServerError", "out of memory")
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ENGINE_REFUSED, retryable=True, says="tried again")
    pod.engine.knobs.fail_load = lambda name: None
    await pod.verified(adapter)


async def test_the_engine_breaks_off_while_loading(tmp_path: Path) -> None:
    async with running_pod(tmp_path, load_seconds=0.3) as pod:
        adapter = pod.adapter("dr")
        pod.engine.knobs.load_seconds = 3600
        pod.tables.write(adapter)
        await expect(pod, adapter, FailureReason.ENGINE_UNREACHABLE, retryable=True, says="tried again")
        pod.engine.knobs.load_seconds = 0
        await pod.verified(adapter)


async def test_a_name_held_by_another_path_is_taken_over(pod: Pod) -> None:
    adapter, other = pod.adapter("dr"), pod.adapter("other")
    await pod.agent.engine.load(adapter.name, other.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    assert pod.engine.loras[adapter.name].path == str(pod.path(adapter))


async def test_root_mismatch(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.root_of = lambda name, path: "/somewhere/else"
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ROOT_MISMATCH, retryable=True, says="/somewhere/else")


async def test_already_loaded_is_no_success_when_the_root_is_another(pod: Pod) -> None:
    """An engine that keeps the name after unload answers 400 "already loaded" and goes on with the old bytes."""
    adapter, other = pod.adapter("dr"), pod.adapter("other")
    await pod.agent.engine.load(adapter.name, other.folder)
    pod.engine.knobs.leaky_unload = True
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ROOT_MISMATCH, retryable=True, says=str(other.folder))


async def test_fingerprint_mismatch_unloads_the_weights(pod: Pod) -> None:
    adapter = pod.adapter("dr", fingerprint_of=seed_of(b"those that were trained"))
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.FINGERPRINT_MISMATCH, retryable=False, says="nats off")
    assert adapter.name not in pod.engine.loras
    report = pod.state(adapter)
    assert report is not None
    assert (report.fingerprint_milli_nats or 0) > 1000


async def test_an_engine_that_answers_with_other_weights_is_found_out(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.wrong_weights.add(adapter.name)
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.FINGERPRINT_MISMATCH, retryable=False, says="nats off")


async def test_a_fingerprint_of_another_tokenizer(pod: Pod) -> None:
    adapter = pod.adapter("dr", tokens=(1, 99_999, 3))
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.FINGERPRINT_MISMATCH, retryable=False, says="another tokenizer")


async def test_an_engine_whose_log_probabilities_tell_nothing(pod: Pod) -> None:
    pod.engine.knobs.processed_logprobs = True
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await expect(pod, adapter, FailureReason.ENGINE_REFUSED, retryable=False, says="--logprobs-mode")


async def test_errors_of_older_versions_are_understood(pod: Pod) -> None:
    pod.engine.knobs.old_errors = True
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.tables.write()
    await pod.gone(adapter)
    await pod.agent.engine.unload(adapter.name)  # 400 InvalidUserInput there, and no error


async def test_a_terminal_failure_waits_for_its_own_entry_to_change(pod: Pod) -> None:
    adapter = pod.adapter("dr", rank=8)
    pod.tables.write(adapter.entry(rank=4))
    await pod.failed(adapter)
    pod.tables.write(adapter)
    await pod.verified(adapter)


async def test_a_higher_maximum_rank_of_the_pool_lets_an_adapter_in(pod: Pod) -> None:
    pod.engine.knobs.max_lora_rank = 64
    adapter = pod.adapter("dr", rank=32)
    pod.tables.write(adapter, max_lora_rank=16)
    await pod.failed(adapter)
    pod.tables.write(adapter, max_lora_rank=32)
    await pod.verified(adapter)


async def test_a_wrong_rank_declared_later_is_said_and_cuts_no_one(pod: Pod) -> None:
    adapter = pod.adapter("dr", rank=8)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.tables.write(adapter.entry(rank=4))
    await until(lambda: (r := pod.state(adapter)) is not None and r.reason is FailureReason.RANK_MISMATCH)
    report = pod.state(adapter)
    assert report is not None
    assert report.state is AdapterState.VERIFIED


async def test_bad_adapters_of_every_kind_never_block_a_good_one(tmp_path: Path) -> None:
    """Sixteen fetches that hang, and one adapter of each other failure, before one that is fine."""

    async def fetch(uri: str, digest: str, destination: Path) -> AdapterManifest:
        if "hangs" in uri:
            await asyncio.Event().wait()
        return await fetch_adapter(uri, digest, destination)

    async with Pod(tmp_path) as pod:
        hanging = [pod.adapter(f"hangs-{i}") for i in range(16)]
        truncated = pod.adapter("truncated")
        (truncated.folder / "adapter_model.safetensors").write_bytes(b"")
        bad = [pod.adapter("high", rank=64), truncated, pod.adapter("mixed-up", fingerprint_of=seed_of(b"x"))]
        good = pod.adapter("good")
        agent = pod.new_agent(fetch=fetch)
        agent.roster._gates._slow_seconds = 0.1
        async with pod.engine, agent:
            pod.tables.write(*hanging, *bad, good)
            await pod.verified(good)
            assert (await pod.answer(good.name))[0] == 200
            for adapter in bad:
                await pod.failed(adapter)
