"""Pools in front of a server that runs already: nothing is loaded there, all is proven that can be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bettertherapy_api.report import FailureReason
from tests.standin import StandIn, seed_of
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
