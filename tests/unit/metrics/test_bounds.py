"""However many twins there are, a page has a bounded number of series, and the sums are right."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from bettertherapy_api.metrics.bounds import MOST_RATED, MOST_TRIED, MOST_TWINS, MOST_VERSIONS, Bound
from bettertherapy_api.metrics.series import OTHER
from neurons.miner.metrics import Metrics as MinerMetrics
from neurons.validator.gateway.metrics import Metrics as GatewayMetrics

TWINS = 10_000


def samples(page: bytes, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == name
    ]


def ask(metrics: MinerMetrics, number: int, *, tried: bool = False) -> None:
    twin, version = f"twin-{number}", f"twin-{number}-abcdef01"
    series = metrics.series(twin, version, tried=tried)
    series.in_flight.inc()
    series.request_seconds.observe(0.2)
    metrics.count(twin, version, "200")
    series.in_flight.dec()


def test_a_miner_with_ten_thousand_twins_has_a_bounded_page_and_right_sums() -> None:
    metrics = MinerMetrics()
    for number in range(TWINS):
        ask(metrics, number)
    page = metrics.render()
    requests = samples(page, "bettertherapy_miner_requests_total")
    assert len(requests) == MOST_VERSIONS + 1
    assert sum(value for _, value in requests) == TWINS
    others = [value for labels, value in requests if labels["twin"] == labels["version"] == OTHER]
    assert others == [TWINS - MOST_VERSIONS]
    counts = samples(page, "bettertherapy_miner_request_seconds_count")
    assert (len(counts), sum(value for _, value in counts)) == (MOST_VERSIONS + 1, TWINS)
    assert sum(line and not line.startswith(b"#") for line in page.splitlines()) < 45 * (MOST_VERSIONS + 2)


def test_a_version_that_a_canary_compares_has_its_own_series_beyond_the_bound() -> None:
    metrics = MinerMetrics()
    for number in range(MOST_VERSIONS):
        ask(metrics, number)
    ask(metrics, TWINS, tried=True)
    ask(metrics, TWINS + 1)
    own = {labels["twin"] for labels, _ in samples(metrics.render(), "bettertherapy_miner_requests_total")}
    assert f"twin-{TWINS}" in own
    assert f"twin-{TWINS + 1}" not in own
    for number in range(TWINS + 2, TWINS + 2 + 2 * MOST_TRIED):
        ask(metrics, number, tried=True)
    assert len(metrics.known()) == MOST_VERSIONS + MOST_TRIED


def test_what_leaves_the_routing_makes_room() -> None:
    metrics = MinerMetrics()
    for number in range(MOST_VERSIONS + 1):
        ask(metrics, number)
    late = (f"twin-{MOST_VERSIONS}", f"twin-{MOST_VERSIONS}-abcdef01")
    assert late not in metrics.known()
    metrics.forget("twin-0", "twin-0-abcdef01")
    ask(metrics, MOST_VERSIONS)
    assert late in metrics.known()
    assert (OTHER, OTHER) not in metrics.known()
    metrics.forget("never", "there")


def test_a_gateway_with_ten_thousand_twins_has_a_bounded_page_and_right_sums() -> None:
    metrics = GatewayMetrics()
    for number in range(TWINS):
        twin = f"twin-{number}"
        metrics.ended(twin, "200")
        metrics.took(twin, 0.5)
        metrics.rated(twin, f"{twin}-abcdef01", 5)
    metrics.ended("", "404")
    page = metrics.render()
    requests = samples(page, "bettertherapy_gateway_requests_total")
    assert (len(requests), sum(value for _, value in requests)) == (MOST_TWINS + 2, TWINS + 1)
    ratings = samples(page, "bettertherapy_gateway_ratings_total")
    assert (len(ratings), sum(value for _, value in ratings)) == (MOST_RATED + 1, TWINS)


def test_a_bound_admits_again_what_it_admitted() -> None:
    bound = Bound(1, reserved=1)
    assert bound.admits("a")
    assert bound.admits("a")
    assert not bound.admits("b")
    assert bound.admits("b", preferred=True)
    assert bound.admits("b")
    bound.forget("a")
    bound.forget("a")
    assert not bound.admits("c")
