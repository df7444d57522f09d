"""One operator for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.operator_harness import shared_operator


@pytest.fixture(scope="module")
def home(kubeconfig: Path, kubectl: Any, crds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The namespace of an operator that the module's tests share."""
    with shared_operator(kubeconfig, kubectl, tmp_path_factory.mktemp("operator")) as namespace:
        yield namespace
