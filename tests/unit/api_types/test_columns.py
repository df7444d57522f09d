"""The tables that kubectl prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_time_to_come_is_no_date_which_kubectl_shows_as_invalid(path: Path) -> None:
    columns = yaml.safe_load(path.read_text())["spec"]["versions"][0]["additionalPrinterColumns"]
    dates = [each["jsonPath"] for each in columns if each["type"] == "date"]
    assert set(dates) <= {".metadata.creationTimestamp"}
