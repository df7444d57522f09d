"""The reader of PromQL that other tests go by sees what isn't in the contract."""

from __future__ import annotations

import pytest

from tests.promql import asked, faults

GOOD = 'sum by (twin, le) (rate(bettertherapy_miner_request_seconds_bucket{twin=~"a|b",namespace="x"}[5m] offset 1h))'


def test_series_selectors_and_lists_are_read() -> None:
    found = asked(f'histogram_quantile(0.95, {GOOD}) > on (pod) group_left up{{job!="y"}} and 1 == bool 2')
    assert found.series == {
        "bettertherapy_miner_request_seconds_bucket": {"twin", "namespace"}, "up": {"job"},
    }  # fmt: skip
    assert found.listed == {"twin", "le", "pod"}
    assert not list(faults(GOOD))


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum(bettertherapy_miner_wishes_total)", "no series bettertherapy_miner_wishes_total"),
        ("bettertherapy_miner_request_seconds", "no series bettertherapy_miner_request_seconds"),
        ('bettertherapy_miner_held{twin="a"}', "bettertherapy_miner_held has no label twin"),
        ("sum by (patient) (bettertherapy_miner_held)", "no label patient"),
        ("1 + 1", "no series in"),
    ],
)
def test_what_the_contract_lacks_is_told(expression: str, fault: str) -> None:
    assert any(fault in told for told in faults(expression))
