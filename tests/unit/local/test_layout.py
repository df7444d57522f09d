"""Names and folders that can't work are refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.errors import PreflightError
from localcluster.layout import Layout


@pytest.mark.parametrize("name", ["demo", "test", "a1", "x-y-z", "twelve-chars"])
def test_a_name_that_fits_an_interface_is_taken(name: str) -> None:
    assert len(f"bt-{Layout.of(name, root=Path('/srv')).name}") <= 15


@pytest.mark.parametrize("name", ["", "a", "Demo", "-x", "x-", "thirteen-char", "a/b", "..", "a b"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(PreflightError, match="can't be a cluster's name"):
        Layout.of(name, root=Path("/srv"))


@pytest.mark.parametrize("root", ["/run/x", "/var/log/x", "/var/run", "/proc/x"])
def test_a_folder_that_the_cluster_covers_with_its_own_is_refused(root: str) -> None:
    with pytest.raises(PreflightError, match="can't be"):
        Layout.of("demo", root=Path(root))


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(PreflightError, match="too long for a Unix socket"):
        Layout.of("demo", root=Path("/srv") / ("x" * 100))
