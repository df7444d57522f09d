"""Which certificates a build is handed."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagebuilder.trust import own_authority


@pytest.mark.parametrize("variable", ["PIP_CERT", "SSL_CERT_FILE"])
def test_the_bundle_that_the_environment_names_is_used(tmp_path: Path, variable: str) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("certificate")

    assert own_authority({variable: str(bundle)}, tmp_path) == bundle


def test_pips_configuration_is_asked_next(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("certificate")
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(f"[global]\ncert = {bundle}\n")

    assert own_authority({}, tmp_path) == bundle


def test_a_bundle_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    assert own_authority({"PIP_CERT": str(tmp_path / "gone.crt")}, tmp_path) != tmp_path / "gone.crt"
