"""A wedged engine answers 200 on /health; what tells is that nothing moves while something ought to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from neurons.agent.progress import ProgressJudge, Sample, Verdict, parse_sample
from tests.unit.agent.pod import Pod, running_pod, until


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod that calls an engine wedged after half a second."""
    async with running_pod(tmp_path, wedge_seconds=0.5) as running:
        await until(lambda: running.agent.ready)
        yield running


async def test_an_engine_that_stops_with_a_request_in_flight_is_wedged(hasty: Pod) -> None:
    hasty.engine.wedge()
    request = asyncio.ensure_future(hasty.answer("base-model"))
    await until(hasty.settings.wedged_file.exists)
    report = hasty.agent.report()
    assert report.engine.wedged
    assert not report.engine.live
    assert not report.ready
    status, _, headers = await hasty.answer("base-model")
    assert (status, headers["x-twin-retry"]) == (503, "other-pod")
    hasty.engine.unwedge()
    await request


async def test_the_file_goes_when_the_engine_restarts(hasty: Pod) -> None:
    hasty.engine.wedge()
    request = asyncio.ensure_future(hasty.answer("base-model"))
    await until(hasty.settings.wedged_file.exists)
    await hasty.engine.restart()
    assert (await request)[0] == 502
    await until(lambda: not hasty.settings.wedged_file.exists())
    await until(lambda: hasty.agent.ready)
    assert (await hasty.answer("base-model"))[0] == 200


async def test_an_engine_that_moves_again_by_itself_is_no_longer_wedged(hasty: Pod) -> None:
    hasty.engine.wedge()
    request = asyncio.ensure_future(hasty.answer("base-model"))
    await until(hasty.settings.wedged_file.exists)
    hasty.engine.unwedge()
    assert (await request)[0] == 200
    await until(lambda: not hasty.settings.wedged_file.exists())


async def test_a_wedge_is_found_although_every_client_gives_up_early(hasty: Pod) -> None:
    """They go on coming: of the first one the agent may not know whether the engine stood still before it or after."""
    hasty.engine.wedge()
    async with asyncio.timeout(20):
        while not hasty.settings.wedged_file.exists():
            request = asyncio.ensure_future(hasty.answer("base-model"))
            await until(lambda: hasty.engine.running + hasty.engine.waiting > 0)
            await asyncio.wait({request}, timeout=0.1)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)


async def test_an_idle_engine_is_not_wedged(hasty: Pod) -> None:
    hasty.engine.wedge()
    await asyncio.sleep(1.2)
    assert not hasty.agent.monitor.wedged


async def test_a_slow_engine_is_not_wedged(hasty: Pod) -> None:
    hasty.engine.knobs.token_seconds = 0.2
    assert (await hasty.answer("base-model", max_tokens=8))[0] == 200
    assert not hasty.settings.wedged_file.exists()


async def test_a_file_left_by_an_earlier_process_is_removed(tmp_path: Path) -> None:
    async with running_pod(tmp_path, engine=False) as pod:
        pod.settings.wedged_file.write_text("old")
        await pod.engine.start()
        await until(lambda: not pod.settings.wedged_file.exists())


def sample(progress: str, *, queued: float = 0) -> Sample:
    return Sample(((progress, ""),), queued, None)


def test_a_long_prefill_is_progress_while_the_cache_fills() -> None:
    judge = ProgressJudge(wedge_seconds=60)
    for second in range(0, 300, 5):
        verdict = judge.judge(second, sample(f"kv {second}", queued=1), in_flight=1, unanswered=0)
        assert verdict is Verdict.FINE


def test_a_stale_gauge_alone_never_makes_a_wedge() -> None:
    judge = ProgressJudge(wedge_seconds=60)
    verdicts = [judge.judge(s, sample("still", queued=1), in_flight=0, unanswered=0) for s in range(0, 600, 5)]
    assert Verdict.WEDGED not in verdicts
    assert verdicts[-1] is Verdict.SUSPECT


def test_an_engine_that_no_longer_answers_for_its_metrics_is_wedged_in_time() -> None:
    judge = ProgressJudge(wedge_seconds=60)
    assert judge.judge(0, None, in_flight=0, unanswered=0) is Verdict.FINE
    assert judge.judge(59, None, in_flight=0, unanswered=0) is Verdict.FINE
    assert judge.judge(60, None, in_flight=0, unanswered=0) is Verdict.WEDGED


def test_the_metrics_of_vllm_are_read() -> None:
    text = (
        '# TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 3.0\n'
        'vllm:iteration_tokens_total_count{engine="0",model_name="m"} 7.0\n'
        'vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 91.0\n'
        'vllm:num_requests_running{engine="0",model_name="m"} 2.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1.0\n'
        "process_start_time_seconds 1.7e+09\n"
    )
    read = parse_sample(text)
    assert len(read.progress) == 4
    assert read.queued == 3.0
    assert read.start_time == 1.7e9
