"""Three validators, one of which copies what it finds on the chain: measuring pays better than copying."""

from __future__ import annotations

import pytest

from tests.unit.chain.conftest import OpenSubnet
from tests.unit.chain.copiers import COPIER, HONEST, standing, with_a_copier


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_copier_earns_less_than_who_measures(open_local: OpenSubnet, seed: int) -> None:
    earned = (await with_a_copier(await open_local(), epochs=10, seed=seed)).dividends
    assert earned[COPIER] < min(earned[name] for name in HONEST)


async def test_where_nothing_changes_copying_is_worth_nearly_as_much(open_local: OpenSubnet) -> None:
    """What a commit hides, it hides for an epoch."""
    earned = (await with_a_copier(await open_local(), epochs=6, seed=1, moves=standing)).dividends
    assert earned[COPIER] == pytest.approx(min(earned[name] for name in HONEST), rel=0.05)
