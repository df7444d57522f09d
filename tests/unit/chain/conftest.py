from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import bittensor.config
import pytest

from tests.unit.chain.played import NETUID, Subnet, open_subnet

__all__ = ["NETUID"]
OpenSubnet = Callable[..., Awaitable[Subnet]]


@pytest.fixture(autouse=True)
def no_symbol_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK keeps tokens' symbols in the home folder; tests leave nothing there."""
    monkeypatch.setattr(bittensor.config, "DEFAULT_TOKEN_SYMBOLS_PATH", tmp_path / "symbols.json")


@pytest.fixture
async def open_local(tmp_path: Path) -> AsyncIterator[OpenSubnet]:
    """Start local subnets, each on a port of its own; all are stopped at the end."""
    opened: list[Subnet] = []

    async def start(**options: object) -> Subnet:
        subnet = await open_subnet(tmp_path / f"chain-{len(opened)}.db", **options)  # type: ignore[arg-type]
        opened.append(subnet)
        return subnet

    yield start
    for subnet in opened:
        await subnet.stop()


@pytest.fixture
async def subnet(open_local: OpenSubnet) -> Subnet:
    """A local subnet whose epochs are short, where every extrinsic makes a block."""
    return await open_local()
