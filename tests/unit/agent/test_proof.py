"""What Verified rests on: finite, not the base's, likelier its own than its parent's, and an engine that is sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bettertherapy_api.report import AdapterReport, AdapterState, FailureReason, Proof
from neurons.agent.known_answers import Health
from tests.standin import BASE, BASE_SEED, NO_EFFECT, NOT_FINITE, SPOILING, FakeAdapter, seed_of
from tests.unit.agent.pod import Pod, running_pod, until, words

PARENT = seed_of(b"last night's weights")


@pytest.fixture
async def watchful(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that looks at its base model twenty times a second."""
    async with Pod(tmp_path) as pod:
        pod.agent.roster.known_answers.check_seconds = 0.05
        pod.tables.write()
        async with pod.engine, pod.agent:
            await until(lambda: pod.agent.ready and pod.agent.roster.known_answers.taken)
            yield pod


def loads(pod: Pod, adapter: FakeAdapter) -> bool:
    return adapter.name in pod.engine.loras


async def banned(pod: Pod, adapter: FakeAdapter) -> AdapterReport:
    """Wait until it is called not finite; returns its report."""
    await until(lambda: (r := pod.state(adapter)) is not None and r.reason is FailureReason.WEIGHTS_NOT_FINITE)
    return await pod.failed(adapter)


async def proof(pod: Pod, adapter: FakeAdapter) -> Proof | None:
    await pod.verified(adapter)
    report = pod.state(adapter)
    assert report is not None
    return report.proof


@pytest.mark.parametrize("with_fingerprint", [True, False])
@pytest.mark.parametrize("flaw", [NOT_FINITE, SPOILING])
async def test_an_adapter_that_is_not_finite_is_unloaded_before_any_patient(
    pod: Pod, flaw: str, *, with_fingerprint: bool
) -> None:
    bad = pod.adapter("bad", flaw=flaw, with_fingerprint=with_fingerprint)
    pod.tables.write(bad)
    report = await pod.failed(bad)
    if flaw == SPOILING:
        assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
        await pod.engine.restart()
        report = await banned(pod, bad)
    assert (report.reason, report.retryable) == (FailureReason.WEIGHTS_NOT_FINITE, False)
    assert report.message is not None
    assert "NaN" in report.message
    assert not loads(pod, bad)
    assert (await pod.answer(bad.name))[0] in (421, 503)


async def test_a_quiet_one_leaves_engine_and_others_alone(pod: Pod) -> None:
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=NOT_FINITE)
    pod.tables.write(good, bad)
    await pod.verified(good)
    await pod.failed(bad)
    assert not pod.agent.monitor.wedged
    assert words((await pod.answer(good.name))[1]).startswith(good.seed[:8])


async def test_one_that_spoils_the_engine_is_never_loaded_again(pod: Pod) -> None:
    good, bad = pod.adapter("good"), pod.adapter("bad", flaw=SPOILING)
    pod.tables.write(good)
    await pod.verified(good)
    pod.tables.write(good, bad)
    await until(pod.settings.wedged_file.exists)
    status, _, headers = await pod.answer(good.name)
    assert (status, headers["x-twin-retry"]) == (503, "other-pod")
    await pod.engine.restart()
    assert (await banned(pod, bad)).retryable is False  # the second process was the last that it could spoil
    await pod.engine.restart()
    await pod.verified(good)
    pod.engine.bodies.clear()
    assert words((await pod.answer(good.name))[1]).startswith(good.seed[:8])
    assert (await pod.failed(bad)).reason is FailureReason.WEIGHTS_NOT_FINITE
    async with pod.new_agent():  # it is on the disk too
        await pod.verified(good)
        await pod.failed(bad)
    assert not pod.engine.spoilt
    assert all(body["model"] != bad.name for body in pod.engine.bodies)


async def test_those_that_came_with_it_are_not_blamed(pod: Pod) -> None:
    bad = pod.adapter("bad", flaw=SPOILING)
    good = [pod.adapter(f"good-{i}", with_fingerprint=i % 2 == 0) for i in range(8)]
    pod.tables.write(bad, *good)
    await until(pod.settings.wedged_file.exists)
    await pod.engine.restart()
    await banned(pod, bad)
    await pod.engine.restart()
    await pod.verified(*good)
    assert (await pod.failed(bad)).reason is FailureReason.WEIGHTS_NOT_FINITE
    assert not pod.settings.wedged_file.exists()


async def test_one_that_spoils_processes_is_found_though_each_is_replaced_before_it_is_judged(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the base model anyway finds it first, and ends the process."""
    known = pod.agent.roster.known_answers
    check = known.check

    async def after_another_has_ended_it(**how: Any) -> Health:
        if pod.engine.spoilt:
            await check()
            await pod.engine.restart()
            await until(lambda: pod.agent.monitor.live and not pod.agent.monitor.condemned)
        return await check(**how)

    monkeypatch.setattr(known, "check", after_another_has_ended_it)
    bad = pod.adapter("bad", flaw=SPOILING)
    pod.tables.write(bad)
    await banned(pod, bad)


@pytest.mark.parametrize("with_fingerprint", [True, False])
async def test_an_adapter_that_changes_nothing_fails(pod: Pod, *, with_fingerprint: bool) -> None:
    adapter = pod.adapter("dr", flaw=NO_EFFECT, with_fingerprint=with_fingerprint)
    pod.tables.write(adapter)
    report = await pod.failed(adapter)
    assert (report.reason, report.retryable) == (FailureReason.NO_EFFECT, False)
    assert report.message is not None
    assert "exactly as the base model" in report.message
    assert not loads(pod, adapter)


@pytest.mark.parametrize("quantized", [0.0, 3.0])
async def test_noise_of_a_busy_engine_is_no_effect(pod: Pod, quantized: float) -> None:
    pod.engine.knobs.quantized = quantized
    steady = pod.adapter("first")
    pod.tables.write(steady)
    await until(lambda: pod.agent.roster.known_answers.taken)  # when nothing ran
    pod.engine.knobs.unsteady = 0.05
    adapter = pod.adapter("dr", flaw=NO_EFFECT, probes=4, parent=PARENT)
    pod.tables.write(adapter)
    assert (await pod.failed(adapter)).reason is FailureReason.NO_EFFECT


async def test_the_report_says_what_the_proof_is(pod: Pod) -> None:
    recorded, pushed = pod.adapter("recorded", probes=4, parent=PARENT), pod.adapter("pushed", with_fingerprint=False)
    pod.tables.write(recorded, pushed)
    assert await proof(pod, recorded) is Proof.FINGERPRINT
    assert await proof(pod, pushed) is Proof.FIRST_LOAD
    report = pod.state(pushed)
    assert report is not None
    assert report.measured_milli_nats is not None
    assert len(report.measured_milli_nats) == 8


async def test_one_that_nothing_tells_from_its_parent_serves_unproven(pod: Pod) -> None:
    same = pod.adapter("dr").seed
    adapter = pod.adapter("dr", probes=4, parent=same)
    assert adapter.seed == same
    pod.tables.write(adapter)
    assert await proof(pod, adapter) is Proof.UNPROVEN
    report = pod.state(adapter)
    assert report is not None
    assert report.message is not None
    assert "learned too little" in report.message
    asked = [body for body in pod.engine.bodies if body["model"] == adapter.name and body["prompt"][0] >= 1000]
    assert len(asked) == 48  # every place was tried


@pytest.mark.parametrize("probes", [0, 4])
async def test_a_record_that_says_nothing_of_the_parent_it_has_is_no_proof(pod: Pod, probes: int) -> None:
    trained = pod.adapter("dr", probes=probes, parent_digest=f"sha256:{'a' * 64}")
    first = pod.adapter("first", probes=probes)
    pod.tables.write(trained, first)
    assert await proof(pod, first) is Proof.FINGERPRINT
    assert await proof(pod, trained) is Proof.UNPROVEN
    report = pod.state(trained)
    assert report is not None
    assert "trained from" in (report.message or "")


async def test_without_a_fingerprint_the_first_load_is_what_later_ones_are_compared_with(pod: Pod) -> None:
    adapter = pod.adapter("dr", with_fingerprint=False)
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.weights_of[adapter.name] = PARENT
    await pod.engine.restart()
    report = await pod.failed(adapter)
    assert report.reason is FailureReason.FINGERPRINT_MISMATCH
    assert report.message is not None
    assert "first load" in report.message


@pytest.mark.parametrize("quantized", [0.0, 0.5])
async def test_the_parents_weights_do_not_pass_as_the_childs(pod: Pod, quantized: float) -> None:
    pod.engine.knobs.quantized = quantized
    adapter = pod.adapter("dr", probes=4, parent=PARENT)
    pod.engine.knobs.weights_of[adapter.name] = PARENT
    pod.tables.write(adapter)
    report = await pod.failed(adapter)
    assert report.reason is FailureReason.FINGERPRINT_MISMATCH
    assert report.message is not None
    assert "parent" in report.message
    assert not loads(pod, adapter)


async def test_the_bases_weights_do_not_pass_as_the_childs(pod: Pod) -> None:
    adapter = pod.adapter("dr", probes=4, parent=PARENT)
    pod.engine.knobs.weights_of[adapter.name] = seed_of(BASE_SEED.encode())
    pod.tables.write(adapter)
    assert (await pod.failed(adapter)).reason is FailureReason.NO_EFFECT


async def test_the_right_weights_pass_on_a_quantized_base(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod:
        pod.engine.knobs.quantized = 0.5
        adapter = pod.adapter("dr", probes=4, parent=PARENT)
        async with pod.engine, pod.agent:
            pod.tables.write(adapter)
            assert await proof(pod, adapter) is Proof.FINGERPRINT


async def test_a_verdict_of_one_engine_process_is_formed_anew_in_the_next(pod: Pod) -> None:
    adapter = pod.adapter("dr")
    pod.engine.knobs.weights_of[adapter.name] = PARENT
    pod.tables.write(adapter)
    await pod.failed(adapter)
    pod.engine.knobs.weights_of.clear()
    await pod.engine.restart()
    await pod.verified(adapter)


async def test_an_engine_that_answers_nonsense_is_drained_and_restarted(watchful: Pod) -> None:
    pod, adapter = watchful, watchful.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    pod.engine.knobs.token_seconds = 0.05
    async with pod.ask(BASE, max_tokens=1000, stream=True) as running:
        await running.content.readany()
        pod.engine.spoilt = True
        await until(pod.settings.wedged_file.exists)
        report = pod.agent.report()
        assert (report.engine.wedged, report.ready) == (True, False)
        assert "known question" in (report.engine.message or "")
        assert (await pod.answer(adapter.name))[0] == 503
        with pytest.raises(aiohttp.ClientError):  # broken off: a miner asks another pod
            await running.read()
    pod.engine.knobs.token_seconds = 0.0
    await pod.engine.restart()
    await until(lambda: not pod.settings.wedged_file.exists())
    await pod.verified(adapter)
    assert (await pod.answer(adapter.name))[0] == 200


async def test_progress_does_not_acquit_an_engine_that_answers_nonsense(tmp_path: Path) -> None:
    async with running_pod(tmp_path, wedge_seconds=0.5) as pod:
        await until(lambda: pod.agent.roster.known_answers.taken)
        pod.engine.spoilt = True
        await pod.agent.roster.known_answers.check()
        polls = pod.engine.calls["GET /metrics"]
        await until(lambda: pod.engine.calls["GET /metrics"] >= polls + 3)
        assert pod.settings.wedged_file.exists()


async def test_a_spoilt_engine_blames_no_adapter(pod: Pod) -> None:
    await until(lambda: pod.agent.roster.known_answers.taken)
    await asyncio.sleep(0.3)  # so long ago that the base model is asked again for a newcomer
    pod.engine.spoilt = True
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    report = await pod.failed(adapter)
    assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
    assert pod.settings.wedged_file.exists()
    await pod.engine.restart()
    await pod.verified(adapter)


async def test_a_pod_whose_base_model_is_spoilt_from_the_start_is_not_served(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        adapter = pod.adapter("dr")
        pod.tables.write(adapter)
        await pod.engine.start()
        pod.engine.spoilt = True
        await until(pod.settings.wedged_file.exists)
        report = pod.state(adapter)
        assert report is not None
        assert report.state is not AdapterState.VERIFIED
