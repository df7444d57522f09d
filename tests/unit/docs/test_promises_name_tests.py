"""The threat model names the tests that hold its promises: each has one, they are there, and rights are named."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.unit.docs.named_tests import missing, named

TEXT = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(named(TEXT)))
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}


@pytest.mark.parametrize("path", NAMED)
def test_a_named_test_is_there(path: str) -> None:
    assert missing([path]) == []


def test_no_test_is_named_by_half() -> None:
    """Such a name could be that of a test which is gone."""
    assert re.findall(r"`test_\w+(?:\.py)?`", TEXT) == []


@pytest.mark.parametrize("section", ["What is guarded", "Promises and their tests"])
def test_each_promise_in_the_tables_names_its_test(section: str) -> None:
    rows = [row for row in SECTIONS[section].splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row[:60] for row in rows if not named(row.rpartition(" | ")[2])] == []


def test_each_section_names_the_tests_of_what_it_promises() -> None:
    assert [title for title, said in SECTIONS.items() if not named(said)] == []


def test_each_policy_and_who_decides_names_its_test() -> None:
    wanted = {
        "tests/chart/test_twin_decisions.py", "tests/chart/test_tenant_bounds.py",
        "tests/chart/test_operator_policy.py",
        "tests/api/test_forged_verdicts.py", "tests/api/test_pod_report_policy.py", "tests/unit/cli/test_terminal.py",
        "tests/unit/cli/test_approve_command.py", "tests/unit/operator/test_bounds.py",
    }  # fmt: skip
    assert wanted <= set(NAMED)
    policies = {path.stem for path in (ROOT / "crds/policies").glob("*.yaml")}
    assert [name for name in sorted(policies) if f"{name}.bettertherapy.io" not in TEXT] == []
