"""Pools in front of a server that runs already: nothing is loaded there, all is proven that can be."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bettertherapy_api.report import FailureReason, Proof
from neurons.agent.known_answers import Health
from tests.standin import FakeAdapter, StandIn, seed_of
from tests.unit.agent.pod import Pod, until, words


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod before a foreign server, whose administrator can load adapters."""
    async with StandIn(port=0) as foreign:
        key = tmp_path / "key"
        key.write_text("s3cret\n")
        async with Pod(tmp_path / "pod", endpoint=foreign.url, endpoint_key_file=key) as pod:
            pod.engine = foreign
            async with pod.agent:
                yield pod


def load_by_hand(pod: Pod, name: str, folder: Path) -> None:
    from tests.standin.engine import _Lora

    pod.engine.loras[name] = _Lora(name, str(folder), 1)


async def test_an_adapter_that_the_server_lists_is_verified(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    _, document, _ = await pod.answer(adapter.name)
    assert words(document).startswith(adapter.seed[:8])
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == 0
    assert not pod.path(adapter).exists()


async def test_an_adapter_that_it_does_not_list_cannot_be_loaded(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    report = await pod.failed(adapter)
    assert report.reason is FailureReason.ENDPOINT_NOT_LOADABLE
    assert report.message is not None
    assert adapter.name in report.message
    load_by_hand(pod, adapter.name, adapter.folder)
    await pod.verified(adapter)


async def test_other_weights_under_the_right_name_are_found_out(pod: Pod) -> None:
    adapter = pod.adapter("dr", fingerprint_of=seed_of(b"others"))
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    assert (await pod.failed(adapter)).reason is FailureReason.FINGERPRINT_MISMATCH
    assert adapter.name in pod.engine.loras  # not ours to unload


async def exchange(pod: Pod, *adapters: FakeAdapter, quantized: float = 0.0) -> None:
    """Put another server in this one's place, with these adapters and a base model that is moved by so many nats."""
    await pod.engine.stop()
    await until(lambda: not pod.agent.monitor.up)
    pod.engine.knobs.quantized = quantized
    await pod.engine.start()
    for adapter in adapters:
        load_by_hand(pod, adapter.name, adapter.folder)


async def test_a_first_load_at_one_server_is_no_measure_for_another(pod: Pod) -> None:
    adapter = pod.adapter("dr", with_fingerprint=False)
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    first = pod.state(adapter)
    await exchange(pod, adapter, quantized=3.0)
    await pod.verified(adapter)
    second = pod.state(adapter)
    assert first is not None
    assert second is not None
    assert (first.proof, second.proof) == (Proof.FIRST_LOAD, Proof.FIRST_LOAD)
    assert first.measured_milli_nats != second.measured_milli_nats


async def test_other_weights_at_another_server_of_the_same_base_model_are_found_out(pod: Pod) -> None:
    adapter = pod.adapter("dr", with_fingerprint=False)
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.weights_of[adapter.name] = seed_of(b"others")
    await exchange(pod, adapter)
    assert (await pod.failed(adapter)).reason is FailureReason.FINGERPRINT_MISMATCH


async def test_another_base_model_in_between_lets_no_other_weights_in(pod: Pod) -> None:
    adapter = pod.adapter("dr", with_fingerprint=False)
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    await exchange(pod, adapter, quantized=3.0)
    await pod.verified(adapter)
    pod.engine.knobs.weights_of[adapter.name] = seed_of(b"others")
    await exchange(pod, adapter)
    assert (await pod.failed(adapter)).reason is FailureReason.FINGERPRINT_MISMATCH


async def test_what_was_learned_at_one_address_is_forgotten_at_another(pod: Pod) -> None:
    adapter = pod.adapter("dr", with_fingerprint=False)
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    async with StandIn(port=0) as other:
        pod.settings = dataclasses.replace(pod.settings, endpoint=other.url)
        pod.engine = other
        other.knobs.weights_of[adapter.name] = seed_of(b"what this server calls so")
        load_by_hand(pod, adapter.name, adapter.folder)
        async with pod.new_agent():
            pod.tables.write(adapter)
            await pod.verified(adapter)


async def test_a_server_that_takes_anothers_place_unseen_is_asked_for_known_answers_of_its_own(pod: Pod) -> None:
    known = pod.agent.roster.known_answers
    pod.tables.write()
    await until(lambda: known.taken and pod.agent.ready)
    pod.engine.knobs.quantized = 30.0
    pod.engine.start_time += 60.0
    assert await known.check() is not Health.SPOILT
    await until(lambda: known.taken and pod.agent.monitor.live)
    assert await known.check() is Health.SOUND


async def test_the_manifest_must_be_the_one_of_the_digest(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.tables.write(adapter.entry(digest="sha256:" + "0" * 64))
    await until(lambda: bool(pod.agent.report().adapters))
    await until(lambda: all(r.reason is FailureReason.DIGEST_MISMATCH for r in pod.agent.report().adapters.values()))


async def test_the_servers_key_is_sent(pod: Pod) -> None:
    pod.tables.write()
    await until(lambda: pod.agent.ready)
    assert (await pod.answer("base-model"))[0] == 200
    assert pod.engine.seen_headers[-1]["authorization"] == "Bearer s3cret"


async def test_adapters_of_the_foreign_server_that_no_twin_wants_are_left_alone(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    load_by_hand(pod, adapter.name, adapter.folder)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.tables.write()
    await pod.gone(adapter)
    assert adapter.name in pod.engine.loras


async def test_a_stopping_pod_lets_its_requests_end(pod: Pod) -> None:
    pod.tables.write()
    await until(lambda: pod.agent.ready)
    await pod.agent.shut_down()
    assert pod.withdrawn
    assert (await pod.answer("base-model"))[0] == 503
