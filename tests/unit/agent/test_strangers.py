"""Agents answer the miners of their pool and nobody else, also while the tokens between them are changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from bettertherapy_api import names
from neurons.miner.pod_answers import TryElsewhere, check_answer
from neurons.pool_tokens import PoolTokens
from tests.standin import BASE
from tests.unit.agent.pod import Pod, running_pod, until
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, Twin, eventually, held, version

OLD, NEW = "the-old-token-of-good-length", "the-new-token-of-good-length"
INDRA = version("indra", "a")
ROUTES = [
    ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/embeddings"), ("POST", "/tokenize"),
    ("GET", "/v1/models"), ("GET", "/agent/v1/status"), ("GET", "/agent/v1/lessons"), ("GET", "/agent/v1/lessons/x"),
    ("GET", "/nothing"),
]  # fmt: skip


def tokens_in(folder: Path, **tokens: str) -> Path:
    """Let these be in a folder and no others."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in tokens:
            path.unlink()
    for name, token in tokens.items():
        (folder / name).write_text(token + "\n")
    return folder


async def status(pod: Pod, token: str | None, method: str = "POST", path: str = "/v1/chat/completions") -> int:
    headers = {} if token is None else {names.POOL_TOKEN_HEADER: token}
    body = {"model": BASE, "messages": [{"role": "user", "content": "x"}]} if method == "POST" else None
    async with pod.http.request(method, pod.url + path, json=body, headers=headers) as response:
        return response.status


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_whoever_brings_no_token_of_the_pool_is_turned_away_at_every_route(
    tmp_path: Path, method: str, path: str
) -> None:
    folder = tokens_in(tmp_path / "tokens", first=NEW)
    async with running_pod(tmp_path / "pod", miners_have_tokens=True, tokens_dir=folder) as pod:
        await until(lambda: pod.agent.ready)
        await until(lambda: pod.agent.roster.known_answers.taken and pod.agent.template.settled)
        pod.engine.calls.clear()
        for wrong in (None, "", "x", OLD, NEW[:-1], NEW + "x", f"Bearer {NEW[:-1]}", "\xff" * 20):
            assert await status(pod, wrong, method, path) == 401, wrong
        assert not [call for call in pod.engine.calls if call.startswith("POST")]
        assert await status(pod, NEW, method, path) not in (401, 503)
        assert [await status(pod, None, "GET", probe) for probe in ("/healthz", "/readyz")] == [200, 200]


async def test_another_pools_agent_brings_the_token_as_its_endpoints_key(tmp_path: Path) -> None:
    folder = tokens_in(tmp_path / "tokens", first=NEW)
    async with running_pod(tmp_path / "pod", miners_have_tokens=True, tokens_dir=folder) as pod:
        await until(lambda: pod.agent.ready)
        for given, expected in ((f"Bearer {NEW}", 200), (f"Basic {NEW}", 401), (f"Bearer {OLD}", 401), ("Bearer", 401)):
            async with pod.http.get(pod.url + "/v1/models", headers={"Authorization": given}) as response:
                assert response.status == expected, given


async def test_any_token_that_both_have_is_good(tmp_path: Path) -> None:
    folder = tokens_in(tmp_path / "tokens", first=OLD)
    async with running_pod(tmp_path / "pod", miners_have_tokens=True, tokens_dir=folder) as pod:
        await until(lambda: pod.agent.ready)
        assert await status(pod, f"{NEW} {OLD}") == 200
        tokens_in(folder, first=OLD, second=NEW)
        await until(lambda: NEW in pod.agent.tokens.header)
        assert [await status(pod, each) for each in (OLD, NEW, f"{NEW} {OLD}")] == [200, 200, 200]
        tokens_in(folder, second=NEW)
        await until(lambda: OLD not in pod.agent.tokens.header)
        assert [await status(pod, each) for each in (OLD, NEW, f"{NEW} {OLD}")] == [401, 200, 200]


async def test_a_pod_without_tokens_sends_miners_elsewhere_and_answers_nobody(tmp_path: Path) -> None:
    async with running_pod(tmp_path / "pod", miners_have_tokens=True, tokens_dir=tmp_path / "none") as pod:
        await until(lambda: pod.agent.ready)
        assert [await status(pod, each) for each in (None, NEW)] == [503, 503]


async def test_until_all_miners_bring_tokens_nobody_is_turned_away(tmp_path: Path) -> None:
    """A miner of the release before brings none: its patients are answered while it is replaced."""
    folder = tokens_in(tmp_path / "tokens", first=NEW)
    async with running_pod(tmp_path / "pod", tokens_dir=folder) as pod:
        await until(lambda: pod.agent.ready)
        assert await status(pod, None) == 200


async def test_no_answer_is_lost_while_tokens_are_changed(tmp_path: Path) -> None:
    """A kubelet brings a Secret to one pod after the other: at each moment they have one in common."""
    of_miner, of_agent = tokens_in(tmp_path / "miner", first=OLD), PoolTokens(tokens_in(tmp_path / "agent", first=OLD))
    async with FakeAgent(pod="a", holds=held(INDRA)) as agent, RunningMiner(tmp_path, tokens_dir=of_miner) as miner:
        miner.route({"indra": Twin(versions=(INDRA,))})
        miner.report([agent])
        done, statuses = asyncio.Event(), []

        async def asks() -> None:
            while not done.is_set():
                statuses.append((await miner.ask("indra"))[0])
                assert of_agent.admits(agent.headers[-1].get(names.POOL_TOKEN_HEADER))

        asking = asyncio.create_task(asks())
        await eventually(lambda: bool(statuses))
        for step in (
            lambda: tokens_in(tmp_path / "agent", first=OLD, second=NEW),
            lambda: tokens_in(tmp_path / "miner", first=OLD, second=NEW),
            lambda: tokens_in(tmp_path / "agent", second=NEW),
            lambda: tokens_in(tmp_path / "miner", second=NEW),
        ):
            before = len(statuses)
            step()
            of_agent.refresh()
            await eventually(lambda: agent.headers[-1].get(names.POOL_TOKEN_HEADER) == PoolTokens(of_miner).header)
            await eventually(lambda before=before: len(statuses) > before + 5 or asking.done())
        await eventually(lambda: agent.headers[-1].get(names.POOL_TOKEN_HEADER) == NEW)
        done.set()
        await asking
        assert set(statuses) == {200}


def test_a_miner_that_is_turned_away_asks_another_pod() -> None:
    refused = orjson.dumps({"error": {"message": "x", "type": "NotAMiner"}})
    with pytest.raises(TryElsewhere) as told:
        check_answer(SimpleNamespace(status=401, headers={}), SimpleNamespace(name="a"), refused, {})  # type: ignore[arg-type]
    assert (told.value.reason, told.value.began) == ("stranger", False)


def test_what_is_no_token_opens_nothing(tmp_path: Path) -> None:
    for wrong in ("", "short", "two words of good length", "\xe9" * 20):
        assert not PoolTokens(tokens_in(tmp_path / "tokens", first=wrong)).known
    tokens = PoolTokens(tokens_in(tmp_path / "tokens", first=NEW))
    assert not any(tokens.admits(given) for given in (None, "", " ", NEW[:16]))
    assert tokens.admits(NEW)
    assert tokens.admits(NEW)
    (tmp_path / "tokens" / "first").unlink()
    (tmp_path / "tokens").rmdir()
    tokens.refresh()
    assert tokens.admits(NEW), "a folder that can't be read leaves what was known"
