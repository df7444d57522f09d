"""No request is cut: not by a pod that goes, a rollout, or a pool that shrinks. With real vLLM engines."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.e2e.conftest import NAMESPACE, POOL, Answer, Clinic, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
STARTS = 600
"""Seconds: a second engine starts and measures its adapters while the first answers, on the same two cores."""
TWINS = ("dr-indra-gurung", "dr-tomas-okafor")
LONG = 64
"""Tokens: several seconds, and well within drainSeconds even where two starting engines leave little of two cores."""


@dataclass
class Stream:
    """One streamed answer: who gives it, and all its events once it has ended."""

    pod: str
    events: Future[list[str]]


@dataclass
class Load:
    """Clients that ask one short question after another."""

    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def stream(clinic: Clinic, twin: str, workers: ThreadPoolExecutor) -> Stream:
    body = {
        "model": twin, "stream": True, "max_tokens": LONG, "ignore_eos": True,
        "messages": [{"role": "user", "content": "Tell me about headaches."}],
    }  # fmt: skip
    headers = {"content-type": "application/json", "authorization": f"Bearer {clinic.token}"}
    headers["x-session-id"] = uuid.uuid4().hex  # each is another patient's
    request = urllib.request.Request(f"{clinic.service}/v1/chat/completions", json.dumps(body).encode(), headers)
    response = urllib.request.urlopen(request, timeout=180)
    pod = response.headers["x-twin-pod"]

    def read() -> list[str]:
        with response:
            return [line.decode().strip() for line in response if line.strip()]

    return Stream(pod, workers.submit(read))


@contextmanager
def load(clinic: Clinic, clients: int = 2) -> Iterator[Load]:
    done, seen = threading.Event(), Load()

    def ask(number: int) -> None:
        while not done.is_set():
            try:
                seen.answers.append(clinic.ask(TWINS[number % 2], max_tokens=3))
            except OSError as error:
                seen.broken.append(repr(error))

    with ThreadPoolExecutor(clients) as pool:
        try:
            for number in range(clients):
                pool.submit(ask, number)
            yield seen
        finally:
            done.set()


def is_whole(events: list[str]) -> bool:
    tokens = [event for event in events if '"delta"' in event]
    return events[-1] == "data: [DONE]" and len(tokens) >= LONG and "error" not in events[-2]


def test_a_scale_up_and_down_cuts_no_request(clinic: Clinic) -> None:
    clinic.kubectl("scale", "mp", POOL, "-n", NAMESPACE, "--replicas=2")  # through the scale subresource
    try:
        with load(clinic) as seen, ThreadPoolExecutor(8) as workers:
            clinic.await_serving(*TWINS, seconds=STARTS)
            # Streams on both pods, so that whichever goes has one to finish.
            streams = [stream(clinic, TWINS[number % 2], workers) for number in range(6)]
            assert {one.pod for one in streams} == {pod["metadata"]["name"] for pod in clinic.pods("engine")}
            clinic.kubectl("scale", "mp", POOL, "-n", NAMESPACE, "--replicas=1")
            eventually(lambda: len(clinic.pods("engine")) == 1, seconds=60, what="one pod is told to go")
            assert all(is_whole(one.events.result(timeout=180)) for one in streams)
            clinic.await_serving(*TWINS)
        assert not seen.broken
        assert {answer.status for answer in seen.answers} == {200}
        assert len(seen.answers) > 20
    finally:
        clinic.kubectl("scale", "mp", POOL, "-n", NAMESPACE, "--replicas=1")
        clinic.await_serving(*TWINS)


def test_a_rollout_of_engines_and_miners_cuts_no_request(clinic: Clinic) -> None:
    old = {pod["metadata"]["name"] for pod in clinic.pods("engine")}
    with load(clinic) as seen, ThreadPoolExecutor(8) as workers:
        began = stream(clinic, TWINS[0], workers)
        for which in ("engine", "miner"):
            clinic.kubectl("rollout", "restart", f"deploy/{POOL}-{which}", "-n", NAMESPACE)
        assert is_whole(began.events.result(timeout=180))
        eventually(
            lambda: old.isdisjoint(pod["metadata"]["name"] for pod in clinic.pods("engine")),
            seconds=STARTS,
            what="a new engine pod instead of the old one",
        )
        for which in ("engine", "miner"):
            asked = ("rollout", "status", f"deploy/{POOL}-{which}", "-n", NAMESPACE, f"--timeout={STARTS}s")
            clinic.kubectl(*asked, timeout=STARTS + 10)
        clinic.await_serving(*TWINS)
    assert not seen.broken
    assert {answer.status for answer in seen.answers} == {200}
