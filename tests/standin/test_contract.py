"""The stand-in keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.standin import BASE, NO_EFFECT, NOT_FINITE, StandIn, write_adapter
from tests.standin.contract import *  # noqa: F403 - collects the contract's tests here
from tests.standin.contract import Subject


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    adapters = tuple(str(write_adapter(tmp_path, f"dr-{i}").folder) for i in range(2))
    high = str(write_adapter(tmp_path, "high", rank=64).folder)
    no_effect = str(write_adapter(tmp_path, "no-effect", flaw=NO_EFFECT).folder)
    not_finite = str(write_adapter(tmp_path, "not-finite", flaw=NOT_FINITE).folder)
    async with StandIn(port=0, max_loras=2) as engine, aiohttp.ClientSession() as http:
        yield Subject(http, engine.url, BASE, adapters, high, no_effect, not_finite)
