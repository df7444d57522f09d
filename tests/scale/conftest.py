"""Fake nodes, played by kwok, on the cluster under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster import Cluster as LocalCluster


@pytest.fixture
def fake_nodes(kubeconfig: Path) -> Iterator[Callable[[int], None]]:
    """Have a number of them: `fake_nodes(100)`; they are gone afterwards."""
    local = LocalCluster(_name_of(kubeconfig))

    def have(count: int) -> None:
        local.kwok(count)

    try:
        yield have
    finally:
        local.kwok(0)


def _name_of(kubeconfig: Path) -> str:
    """Return the name of the local cluster that this kubeconfig is of."""
    for name in (kubeconfig.parent.name, "test"):
        if LocalCluster(name).kubeconfig_path == kubeconfig:
            return name
    pytest.skip("fake nodes are played on local clusters only")
