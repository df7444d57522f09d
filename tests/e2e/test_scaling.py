"""A crowd of patients on a real cluster: a real second engine starts beside the first, and goes when they are gone."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import POOL, Clinic, eventually, run_demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
ROW = re.compile(r"^\d\d:\d\d:\d\d +(\d) → (\d) +(\w+) +(.+)$", re.MULTILINE)


def test_the_demos_pool_grows_to_two_engines_and_back_and_says_why(clinic: Clinic) -> None:
    shown = run_demo("--until", "scaling")
    decided = [match[:3] for match in ROW.findall(shown)]
    assert decided[-2:] == [("1", "2", "ScaledUp"), ("2", "1", "ScaledDown")], shown
    assert re.search(r"[1-9]\d* questions were answered, 0 were not", shown), shown
    # Handed back: spec.replicas counts again.
    eventually(lambda: len(clinic.pods("engine")) == 1, seconds=120, what="one engine")
    assert "autoscaling" not in clinic.get("mp", POOL)["spec"]
