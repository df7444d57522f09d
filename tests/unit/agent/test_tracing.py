"""A request's trace goes on to the engine."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.pod import running_pod, until

GIVEN = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b"}


async def test_the_trace_goes_on_to_the_engine_as_it_came(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        await until(lambda: pod.agent.ready)
        body = {"model": "base-model", "messages": [{"role": "user", "content": "Hello"}]}
        async with pod.http.post(f"{pod.url}/v1/chat/completions", json=body, headers=GIVEN) as response:
            assert response.status == 200
        # The agent asks the engine, too, and has no trace of its own.
        assert sum(GIVEN.items() <= headers.items() for headers in pod.engine.seen_headers) == 1
