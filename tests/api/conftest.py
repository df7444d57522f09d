"""One operator for the tests of a module, on a cluster whose types stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import shared_operator
from tests.groups import define_leader_worker_sets


@pytest.fixture(scope="session")
def crds(crds: None, kubectl: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The project's types, and LeaderWorkerSets: operators of tests that run beside would end when these come or go."""
    define_leader_worker_sets(kubectl, tmp_path_factory.mktemp("lws"))


@pytest.fixture(scope="module")
def home(kubeconfig: Path, kubectl: Any, crds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The namespace of an operator that the module's tests share."""
    with shared_operator(kubeconfig, kubectl, tmp_path_factory.mktemp("operator")) as namespace:
        yield namespace
