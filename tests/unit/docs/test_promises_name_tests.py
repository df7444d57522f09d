"""The threat model names the tests that hold its promises: they are there, and those of rights are named."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+?)`", (ROOT / "docs/security.md").read_text())))


@pytest.mark.parametrize("path", NAMED)
def test_a_named_test_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_each_policy_and_who_decides_names_its_test() -> None:
    wanted = {
        "tests/chart/test_twin_decisions.py", "tests/chart/test_tenant_bounds.py",
        "tests/chart/test_operator_policy.py",
        "tests/api/test_forged_verdicts.py", "tests/api/test_pod_report_policy.py", "tests/unit/cli/test_terminal.py",
        "tests/unit/cli/test_approve_command.py", "tests/unit/operator/test_bounds.py",
    }  # fmt: skip
    assert wanted <= set(NAMED)
    text = (ROOT / "docs/security.md").read_text()
    policies = {path.stem for path in (ROOT / "crds/policies").glob("*.yaml")}
    assert [name for name in sorted(policies) if f"{name}.bettertherapy.io" not in text] == []
