"""A real vLLM keeps the contract that the stand-in keeps, so what is tested on the one holds for the other.

TWIN_REAL_ENGINE_URL        http://host:port or unix:///path/of/socket of a vLLM with LoRA updating on
TWIN_REAL_ENGINE_BASE       the base model's served name
TWIN_REAL_ENGINE_ADAPTERS   two adapter folders of different weights as that engine sees them, separated by a colon;
                            a third is taken for one whose rank is above the engine's maximum
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.standin import ROUTES
from tests.standin.contract import *  # noqa: F403 - collects the contract's tests here
from tests.standin.contract import Subject

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # a loaded machine takes minutes


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    """The engine under TWIN_REAL_ENGINE_URL, left without the adapters that a test loaded."""
    url = os.environ.get("TWIN_REAL_ENGINE_URL")
    if not url:
        pytest.skip("TWIN_REAL_ENGINE_URL names no engine")
    first, second, *high = os.environ["TWIN_REAL_ENGINE_ADAPTERS"].split(":")
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector()
    if url.startswith("unix://"):
        connector, url = aiohttp.UnixConnector(url.removeprefix("unix://")), "http://engine"
    timeout = aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        base = os.environ["TWIN_REAL_ENGINE_BASE"]
        engine = Subject(http, url, base, (first, second), high[0] if high else None)
        yield engine
        _, models = await engine.call("GET", "/v1/models")
        for card in models["data"]:
            if card["id"].startswith("try-"):
                await engine.unload(card["id"])


async def test_every_route_of_the_real_engine_is_known(subject: Subject) -> None:
    """A route that a new version adds must be tried against the agent's door."""
    _, document = await subject.call("GET", "/openapi.json")
    real = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    unify = {(method, path.replace("{response_id}", "{id}")) for method, path in real}
    assert unify <= set(ROUTES)
