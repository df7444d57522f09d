"""Fixtures of the agent's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent.pod import Pod, running_pod


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    """A pod whose engine and agent run, with an empty table."""
    async with running_pod(tmp_path) as running:
        yield running
