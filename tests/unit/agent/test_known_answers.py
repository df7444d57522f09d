"""Whom the agent believes: answers that were taken of a sound engine; nobody is judged by another's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bettertherapy_api.report import AdapterReport, AdapterState, FailureReason, Proof
from neurons.agent import known_answers
from neurons.agent.known_answers import KNOWN, Health, KnownAnswers
from neurons.agent.places import Position
from tests.standin import SPOILING, FakeAdapter, StandIn
from tests.unit.agent.pod import Pod, running_pod, until

REFUSAL = (400, "BadRequestError", "allowed_token_ids is not supported")


def known(pod: Pod) -> KnownAnswers:
    return pod.agent.roster.known_answers


def break_while_it_is_loaded(pod: Pod, adapter: FakeAdapter) -> None:
    """Spoil the engine by something else in the moment in which the adapter is loaded, once."""
    left = [adapter.name]

    def load(name: str) -> None:
        if name in left:
            left.remove(name)
            pod.engine.spoilt = True

    pod.engine.knobs.fail_load = load


async def failed_by(pod: Pod, adapter: FakeAdapter, reason: FailureReason) -> AdapterReport:
    await until(lambda: (r := pod.state(adapter)) is not None and r.reason is reason, what=pod.agent.report().to_json)
    report = pod.state(adapter)
    assert report is not None
    return report


async def asked(pod: Pod, times: int = 3) -> None:
    """Wait until the base model was asked so many times more."""
    before = len(pod.engine.bodies)
    await until(lambda: len(pod.engine.bodies) >= before + times * len(KNOWN))


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_an_error_at_the_start_does_not_blind_the_known_answers(tmp_path: Path, status: int) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        pod.engine.knobs.fail_generation = (status, "SomeError", "not now")
        good = pod.adapter("good")
        pod.tables.write(good)
        await pod.engine.start()
        report = await pod.failed(good)
        assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
        await asked(pod)
        assert not known(pod).taken
        assert not pod.agent.ready
        pod.engine.knobs.fail_generation = None
        await pod.verified(good)
        assert await known(pod).check() is Health.SOUND
        pod.engine.spoilt = True
        assert await known(pod).check() is Health.SPOILT
        assert (await pod.answer(good.name))[0] == 503
        innocent = pod.adapter("innocent")
        pod.tables.write(good, innocent)
        assert (await pod.failed(innocent)).reason is FailureReason.ENGINE_UNREACHABLE


async def test_an_engine_that_takes_no_such_questions_is_asked_again_later(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        pod.engine.knobs.fail_generation = REFUSAL
        known(pod).check_seconds = 0.3
        await pod.engine.start()
        await until(lambda: known(pod).taken)
        assert await known(pod).check() is Health.UNASKABLE
        pod.engine.knobs.fail_generation = None
        async with asyncio.timeout(10):
            while await known(pod).check() is not Health.SOUND:
                await asyncio.sleep(0.05)


async def test_a_first_load_on_a_base_that_nobody_can_ask_is_no_proof(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        pod.engine.knobs.fail_generation = REFUSAL
        await pod.engine.start()
        await until(lambda: known(pod).taken)
        pod.engine.knobs.fail_generation = None
        adapter = pod.adapter("dr", with_fingerprint=False)
        pod.tables.write(adapter)
        await pod.verified(adapter)
        report = pod.state(adapter)
        assert report is not None
        assert report.proof is Proof.UNPROVEN
        assert report.measured_milli_nats is None
        assert report.message is not None
        assert "sound" in report.message
        pod.engine.knobs.weights_of[adapter.name] = "others, which no later load may be held against"
        await pod.engine.restart()
        await pod.verified(adapter)


async def test_a_newcomer_is_not_blamed_for_an_engine_that_breaks_by_itself(pod: Pod) -> None:
    first, innocent = pod.adapter("first"), pod.adapter("innocent")
    pod.tables.write(first)
    await pod.verified(first)
    break_while_it_is_loaded(pod, innocent)
    pod.tables.write(first, innocent)
    report = await pod.failed(innocent)
    assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
    await until(pod.settings.wedged_file.exists)
    await pod.engine.restart()
    await pod.verified(first, innocent)


async def test_the_base_model_is_asked_right_before_each_newcomer(pod: Pod) -> None:
    innocent = pod.adapter("innocent")
    await until(lambda: known(pod).taken)
    pod.engine.knobs.load_seconds = 0.3  # so long ago that the base model is asked again
    break_while_it_is_loaded(pod, innocent)
    pod.tables.write(innocent)
    await until(pod.settings.wedged_file.exists)
    assert all(body["model"] != innocent.name for body in pod.engine.bodies)


async def test_the_second_process_that_a_newcomer_spoils_is_the_last(pod: Pod) -> None:
    bad = pod.adapter("bad", flaw=SPOILING)
    pod.tables.write(bad)
    report = await pod.failed(bad)
    assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
    assert "once more" in (report.message or "")
    await pod.engine.restart()
    report = await failed_by(pod, bad, FailureReason.WEIGHTS_NOT_FINITE)
    assert report.retryable is False
    await pod.engine.restart()
    good = pod.adapter("good")
    pod.tables.write(bad, good)
    await pod.verified(good)
    assert not pod.engine.spoilt
    assert (await pod.failed(bad)).reason is FailureReason.WEIGHTS_NOT_FINITE


async def test_the_count_of_spoilt_processes_outlives_the_agent(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod, pod.engine:
        bad = pod.adapter("bad", flaw=SPOILING)
        async with pod.agent:
            pod.tables.write(bad)
            await pod.failed(bad)
        await pod.engine.restart_unseen()
        async with pod.new_agent():
            pod.tables.write(bad)
            await failed_by(pod, bad, FailureReason.WEIGHTS_NOT_FINITE)


@pytest.mark.parametrize("with_fingerprint", [True, False])
async def test_the_next_agent_goes_on_with_the_known_answers_of_the_one_before(
    tmp_path: Path, *, with_fingerprint: bool
) -> None:
    async with Pod(tmp_path) as pod, pod.engine:
        adapter = pod.adapter("dr", with_fingerprint=with_fingerprint)
        async with pod.agent:
            pod.tables.write(adapter)
            await pod.verified(adapter)
        pod.engine.knobs.quantized = 30.0  # nonsense now, and finite
        async with pod.new_agent():
            pod.tables.write(adapter)
            await until(pod.settings.wedged_file.exists)
            report = await pod.failed(adapter)
            assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)


async def test_the_next_agent_asks_at_once_though_no_adapter_comes(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod, pod.engine:
        async with pod.agent:
            pod.tables.write()
            await until(lambda: known(pod).taken)
        pod.engine.knobs.quantized = 30.0
        async with pod.new_agent():
            pod.tables.write()
            await until(pod.settings.wedged_file.exists, seconds=5)


async def test_another_engine_process_gives_known_answers_of_its_own(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod, pod.engine:
        adapter = pod.adapter("dr")
        async with pod.agent:
            pod.tables.write(adapter)
            await pod.verified(adapter)
        pod.engine.knobs.noise = 0.0
        pod.engine.knobs.quantized = 3.0  # as with another engine's image
        await pod.engine.restart_unseen()
        async with pod.new_agent():
            pod.tables.write(adapter)
            await until(lambda: known(pod).taken)
            assert await known(pod).check() is Health.SOUND


async def test_what_one_agent_condemned_the_next_does_not_believe(tmp_path: Path) -> None:
    async with Pod(tmp_path) as pod, pod.engine:
        async with pod.agent:
            pod.tables.write()
            await until(lambda: pod.agent.monitor.up)
            pod.engine.spoilt = True
            await until(lambda: known(pod).taken or pod.agent.monitor.condemned)
            await known(pod).check()
            await until(lambda: pod.agent.monitor.condemned)
        pod.engine.spoilt = False
        pod.engine.knobs.quantized = 30.0
        adapter = pod.adapter("dr", with_fingerprint=False)
        async with pod.new_agent():
            pod.tables.write(adapter)
            await until(lambda: pod.agent.monitor.condemned)
            await pod.engine.restart()
            await pod.verified(adapter)


async def test_nobody_is_judged_while_the_base_model_does_not_answer(pod: Pod) -> None:
    """A mismatch that is found in that moment is judged later."""
    await until(lambda: known(pod).taken)
    check = known(pod).check
    health = [Health.UNKNOWN]

    async def busy(*, within_seconds: float = 0.0, beside: str | None = None) -> Health:
        return health[0] if health else await check(within_seconds=within_seconds, beside=beside)

    known(pod).check = busy  # type: ignore[method-assign]
    adapter = pod.adapter("dr", fingerprint_of="another's")
    pod.tables.write(adapter)
    report = await pod.failed(adapter)
    assert (report.reason, report.retryable) == (FailureReason.ENGINE_UNREACHABLE, True)
    health.clear()
    report = await failed_by(pod, adapter, FailureReason.FINGERPRINT_MISMATCH)
    assert report.state is AdapterState.FAILED


async def go_wrong(pod: Pod) -> str:
    """Let the base model's answers be others than at the start, finite ones, and return what the report says of it."""
    await until(lambda: pod.agent.monitor.live)
    await known(pod).calibrated()
    pod.engine.knobs.quantized = 30.0
    assert await known(pod).check() is Health.SPOILT
    report = pod.agent.report().engine
    assert report.wedged
    return report.message or ""


async def begin_anew(pod: Pod) -> None:
    pod.engine.knobs.quantized = 0.0
    epoch = pod.agent.monitor.epoch
    await pod.engine.restart()
    await until(lambda: pod.agent.monitor.epoch > epoch and pod.agent.monitor.live)


async def test_an_engine_that_goes_wrong_in_each_process_is_restarted_ever_more_rarely_and_the_report_says_why(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_answers, "PAUSE_SECONDS", 0.6)
    for _ in range(known_answers.AT_ONCE):
        assert "image" not in await go_wrong(pod)
        assert pod.settings.wedged_file.exists()
        await begin_anew(pod)
    for pause in (0.6, 1.2):
        said = await go_wrong(pod)
        assert "spec.engine.image" in said
        began = time.monotonic()
        assert not pod.settings.wedged_file.exists()
        assert (await pod.answer("base-model"))[0] == 503
        await until(pod.settings.wedged_file.exists)
        assert 0.25 * pause <= time.monotonic() - began < pause + 5.0
        assert pod.agent.report().engine.message == said
        await begin_anew(pod)
    await pod.engine.stop()
    await until(lambda: "spec.engine.image" in (pod.agent.report().engine.message or ""))


async def test_the_pause_before_a_restart_outlives_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_answers, "PAUSE_SECONDS", 60.0)
    async with Pod(tmp_path) as pod, pod.engine:
        async with pod.agent:
            pod.tables.write()
            for _ in range(known_answers.AT_ONCE):
                await go_wrong(pod)
                await begin_anew(pod)
            said = await go_wrong(pod)
        async with pod.new_agent():
            pod.tables.write()
            await until(lambda: pod.agent.monitor.condemned)
            await asyncio.sleep(1.0)
            assert not pod.settings.wedged_file.exists()
            assert said.partition(":")[2] == (pod.agent.report().engine.message or "").partition(":")[2]


@pytest.mark.parametrize("slots", [1, 2])
async def test_an_engine_whose_base_model_answers_with_an_adapters_weights_is_never_ready(
    tmp_path: Path, slots: int
) -> None:
    """A foreign image for CPUs: sound alone, another doctor's weights beside an adapter once every slot is taken."""
    async with running_pod(tmp_path, engine=False) as pod:
        knobs = pod.engine.knobs
        knobs.mixes_up, knobs.max_loras, knobs.prefill_seconds = True, slots, 0.05
        pod.tables.write(*(pod.adapter(f"dr-{number}") for number in range(slots)))
        await pod.engine.start()
        for _ in range(known_answers.AT_ONCE):
            await until(pod.settings.wedged_file.exists)
            await begin_anew(pod)
        await until(lambda: "spec.engine.image" in (pod.agent.report().engine.message or ""))
        assert not any(report.ready for report in pod.reports)


async def test_an_adapter_that_takes_the_last_slot_has_the_base_model_looked_at(pod: Pod) -> None:
    knobs = pod.engine.knobs
    knobs.max_loras, knobs.prefill_seconds = 2, 0.05
    first, second = pod.adapter("first"), pod.adapter("second")
    pod.tables.write(first)
    await pod.verified(first)
    await until(lambda: pod.agent.ready)
    knobs.mixes_up = True
    pod.tables.write(first, second)
    await until(pod.settings.wedged_file.exists)  # long before the next of the looks that are taken anyway
    assert not pod.agent.report().ready


async def test_a_look_that_hung_does_not_hold_up_the_next_process(pod: Pod) -> None:
    """An engine stood still for minutes under a look; the one after it was not Ready for four times as long."""
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    await until(lambda: pod.agent.ready)
    looks = pod.agent.roster.known_answers
    looks.check_seconds = 60.0
    before = looks.checks
    pod.engine.wedge()
    looks.look_soon()
    await until(lambda: looks.checks > before)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 3.0)
    epoch = pod.agent.monitor.epoch
    await pod.engine.restart()
    came = time.monotonic()
    await until(lambda: pod.agent.monitor.epoch > epoch and pod.agent.ready, seconds=30)
    assert time.monotonic() - came < 8.0  # four times as long would be 12 s


async def test_restarts_for_which_an_adapter_is_to_blame_are_not_put_off(pod: Pod) -> None:
    for number in range(known_answers.AT_ONCE + 1):
        bad = pod.adapter(f"bad-{number}", flaw=SPOILING)
        pod.tables.write(bad)
        for _ in range(2):
            await until(pod.settings.wedged_file.exists)
            await begin_anew(pod)
        await failed_by(pod, bad, FailureReason.WEIGHTS_NOT_FINITE)
    assert pod.agent.monitor.live


async def test_a_server_that_nobody_can_restart_is_not_said_to_be_restarted(tmp_path: Path) -> None:
    engine = StandIn(port=0)
    async with engine, running_pod(tmp_path, engine=False, endpoint=engine.url) as pod:
        await until(lambda: known(pod).taken and pod.agent.monitor.live)
        engine.knobs.quantized = 30.0
        assert await known(pod).check() is Health.SPOILT
        assert "restart" not in (pod.agent.report().engine.message or "")


async def test_a_look_beside_an_adapter_ends_though_a_cancellation_is_lost(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before Python 3.12 some awaits lose one; the adapter was then asked for ever, and nobody was judged."""
    adapter = pod.adapter("dr")
    pod.tables.write(adapter)
    await pod.verified(adapter)
    known_answers_ = known(pod)
    measuring = known_answers_._measuring
    ask = measuring.ask

    async def deaf(model: str, positions: Sequence[Position]) -> tuple[float, ...]:
        try:
            return await ask(model, positions)
        except asyncio.CancelledError:
            if model != adapter.name:
                raise
            return (0.0,)

    monkeypatch.setattr(measuring, "ask", deaf)
    async with asyncio.timeout(5):
        assert await known_answers_.check(beside=adapter.name) is Health.SOUND
