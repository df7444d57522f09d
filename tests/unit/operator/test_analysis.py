"""What is made of a canary's metrics."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bettertherapy_api.doctor_twin import Rollout
from tests.unit.operator.samples import pod_object
from twin_operator.domain.canary_analysis import RATINGS, Measurement, Outlook, Trial, assess, measurements, queries
from twin_operator.domain.pool_facts import PodFacts, pod_facts
from twin_operator.engine.prometheus import Prometheus, Sample
from twin_operator.errors import PrometheusError
from twin_operator.kinds.doctor_twin.canary_watch import measure

TRIAL = Trial(twin="dr-a", canary="dr-a-b", stable="dr-a-a")
LIMITS = Rollout(max_error_percent=1, max_latency_ratio_percent=150)


def miner(name: str = "m1", *, ready: bool = True) -> PodFacts:
    return pod_facts(pod_object(name, component="miner", ready=ready))


MINERS = [miner()]


def measured(
    *fresh: str, canary: float | None = None, stable: float | None = None, **codes: float
) -> Measurement:  # fmt: skip
    return Measurement(
        fresh_miners=frozenset(fresh), requests={code.lstrip("c"): count for code, count in codes.items()},
        canary_seconds=canary, stable_seconds=stable,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "outlook", "reason"),
    [
        ("Prometheus doesn't answer", Outlook.UNKNOWN, "MetricsUnavailable"),
        (measured(c200=100), Outlook.UNKNOWN, "MetricsStale"),
        (measured("m1"), Outlook.GOOD, "NoTraffic"),
        (measured("m1", c200=100), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=99, c500=1), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=98, c500=2), Outlook.WORSE, "ErrorRate"),
        (measured("m1", c200=98, broken=2), Outlook.WORSE, "ErrorRate"),
        (measured("m1", c200=50, c499=50), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=50, c404=50), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=4, c503=1), Outlook.UNCLEAR, "ErrorRate"),
        (measured("m1", c503=3), Outlook.WORSE, "ErrorRate"),
        (measured("m1", canary=3.0, stable=1.0, c200=19), Outlook.GOOD, "WithinLimits"),
        (measured("m1", canary=1.6, stable=1.0, c200=20), Outlook.WORSE, "Latency"),
        (measured("m1", canary=1.5, stable=1.0, c200=20), Outlook.GOOD, "WithinLimits"),
        (measured("m1", canary=9.0, stable=None, c200=20), Outlook.GOOD, "WithinLimits"),
        (measured("m1", canary=9.0, stable=0.0, c200=20), Outlook.GOOD, "WithinLimits"),
    ],
)
def test_outlook(found: Measurement | str, outlook: Outlook, reason: str) -> None:
    analysis = assess(found, LIMITS, miners=MINERS)
    assert (analysis.outlook, analysis.reason) == (outlook, reason)


def rated(canary: dict[int, float], stable: dict[int, float]) -> Measurement:
    return Measurement(
        fresh_miners=frozenset({"m1"}), requests={"200": 100}, canary_ratings=canary, stable_ratings=stable
    )


@pytest.mark.parametrize(
    ("found", "outlook", "said"),
    [
        (rated({}, {}), Outlook.GOOD, "0 of 100 requests failed"),
        (rated({1: 19}, {5: 400}), Outlook.GOOD, "rated 1.0 of 5 by 19 against 5.0 by 400, too few to compare"),
        (rated({1: 40}, {5: 19}), Outlook.GOOD, "too few to compare"),
        (rated({1: 40}, {}), Outlook.GOOD, "against 0.0 by 0, too few"),
        (rated({3: 10, 4: 10}, {4: 200, 5: 200}), Outlook.WORSE, "rated 3.5 of 5 by 20 against 4.5 by 400"),
        (rated({4: 12, 5: 8}, {4: 200, 5: 200}), Outlook.GOOD, "rated 4.4 of 5 by 20 against 4.5 by 400"),
        (rated({5: 30}, {1: 400}), Outlook.GOOD, "rated 5.0 of 5 by 30 against 1.0 by 400"),
        (rated({4: 30}, {5: 400}), Outlook.WORSE, "rated 4.0 of 5 by 30 against 5.0 by 400"),
    ],
)
def test_patients_ratings_count(found: Measurement, outlook: Outlook, said: str) -> None:
    analysis = assess(found, LIMITS, miners=MINERS)
    assert analysis.outlook is outlook
    assert said in analysis.message
    assert analysis.reason == ("Rating" if outlook is Outlook.WORSE else "WithinLimits")


def test_chance_alone_seldom_makes_a_canary_worse() -> None:
    draw = random.Random(3)
    scale, weights = (1, 2, 3, 4, 5), (1, 1, 3, 8, 12)
    taken_back = 0
    for _ in range(300):
        canary, stable = (Counter(draw.choices(scale, weights, k=count)) for count in (40, 400))
        taken_back += assess(rated(dict(canary), dict(stable)), LIMITS, miners=MINERS).outlook is Outlook.WORSE
    assert taken_back <= 6  # one-sided, three standard errors: 0.1% to 0.5% with samples as small as these


@pytest.mark.parametrize(
    ("fresh", "miners", "outlook"),
    [
        ({"m1"}, [miner("m1"), miner("m2")], Outlook.UNKNOWN),
        ({"m1", "m2"}, [miner("m1"), miner("m2")], Outlook.GOOD),
        ({"m1"}, [miner("m1"), miner("m2", ready=False)], Outlook.GOOD),
        ({"m1"}, [miner("m1", ready=False)], Outlook.GOOD),
        (set(), [miner("m1", ready=False)], Outlook.UNKNOWN),
        ({"m1"}, [], Outlook.UNKNOWN),
        # As many as there should be, and more, but they are another pool's.
        ({"q1", "q2", "q3"}, [miner("m1")], Outlook.UNKNOWN),
        ({"m1", "q1"}, [miner("m1"), miner("m2")], Outlook.UNKNOWN),
    ],
)
def test_every_ready_miner_of_the_twins_pools_must_be_scraped(
    fresh: set[str], miners: list[PodFacts], outlook: Outlook
) -> None:
    found = Measurement(fresh_miners=frozenset(fresh), requests={"200": 100})
    assert assess(found, LIMITS, miners=miners).outlook is outlook


def test_miners_that_are_not_scraped_are_named() -> None:
    found = assess(Measurement(fresh_miners=frozenset({"m1"})), LIMITS, miners=[miner("m1"), miner("m2")])
    assert "from 1 of 2 ready miner pods of the twin's pools, none from m2" in found.message
    [of_no_pod] = measurements(answers(fresh=[Sample(labels={}, value=2)]), [TRIAL]).values()
    said = assess(of_no_pod, LIMITS, miners=MINERS)
    assert (said.reason, "2 miners' samples carry no label `pod`" in said.message) == ("MetricsStale", True)


def answers(**parts: list[Sample]) -> dict[str, list[Sample]]:
    fresh = [Sample(labels={"pod": "m1"}, value=1)]
    return {"fresh": fresh, "requests": [], "canary": [], "stable": [], "ratings": [], **parts}


def of_canary(value: float, **labels: object) -> Sample:
    return Sample(labels={"twin": TRIAL.twin, "version": TRIAL.canary, **labels}, value=value)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "requests",
    [
        [of_canary(1e308, code="200"), of_canary(1e308, code="500")],
        [of_canary(50, code="200"), of_canary(5, code=500)],
        [of_canary(50, code="200"), of_canary(5)],
        [of_canary(50, code="200"), of_canary(5, code=["500"])],
        [of_canary(-50, code="200"), of_canary(20, code="500")],
        [of_canary(50, code="200"), of_canary(-20, code="500")],
        [of_canary(50, code="200"), of_canary(2.0**53 + 2, code="500")],
    ],
)
def test_requests_that_can_not_be_true_are_neither_good_nor_bad(requests: list[Sample]) -> None:
    [found] = measurements(answers(requests=requests), [TRIAL]).values()
    said = assess(found, LIMITS, miners=MINERS)
    assert (said.outlook, said.reason) == (Outlook.UNKNOWN, "MetricsUnavailable")
    assert "can't be true" in said.message


def test_other_figures_that_can_not_be_true_were_not_measured() -> None:
    odd = [
        Sample(labels={"pod": "m1"}, value=1e308), Sample(labels={"pod": ["m2"]}, value=1),  # type: ignore[dict-item]
        Sample(labels={"pod": "m3"}, value=-1), Sample(labels={"pod": "m4"}, value=1),
    ]  # fmt: skip
    [found] = measurements(
        answers(
            fresh=odd, canary=[of_canary(1e308)], stable=[Sample(labels={"twin": 1, "version": {}}, value=1)],  # type: ignore[dict-item]
            ratings=[of_canary(1e308, rating="1"), of_canary(-3, rating="2"), of_canary(9, rating=3)],
        ),
        [TRIAL],
    ).values()  # fmt: skip
    assert found == Measurement(fresh_miners=frozenset({"m4"}), unnamed_miners=1)


def test_every_question_is_of_the_namespace() -> None:
    asked = queries([TRIAL], window_seconds=60, matchers='namespace="x"')
    for name, promql in asked.items():
        for selector in re.findall(r"\{([^}]*)\}", promql):
            assert 'namespace="x"' in selector, name
    assert f"{RATINGS}{{" in asked["ratings"]


def test_the_numbers_are_in_the_sentence() -> None:
    message = assess(measured("m1", canary=2.0, stable=1.0, c200=99, c500=1), Rollout(), miners=MINERS).message
    assert "95% answered within 2.00 s against 1.00 s (200%" in message


def test_metrics_are_those_of_the_miner() -> None:
    from neurons.miner.metrics import Metrics

    rendered = Metrics().render().decode()
    asked = " ".join(queries([Trial(twin="t", canary="c", stable="s")], window_seconds=60, matchers="").values())
    for name in ("bettertherapy_miner_requests_total", "bettertherapy_miner_pods_ready"):
        assert name in asked
        assert name.removesuffix("_total") in rendered
    assert "bettertherapy_miner_request_seconds_bucket" in asked
    assert "bettertherapy_miner_request_seconds" in rendered


@pytest.fixture
async def server() -> AsyncIterator[tuple[dict[str, object], str]]:
    """A Prometheus that answers what the test says, by a word in the query."""
    answers: dict[str, object] = {}

    async def query(request: web.Request) -> web.Response:
        promql = (await request.post())["query"]
        for word, answer in answers.items():
            if word in str(promql):
                if isinstance(answer, web.Response):
                    return answer
                return web.json_response({"status": "success", "data": {"resultType": "vector", "result": answer}})
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": []}})

    app = web.Application()
    app.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield answers, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


OTHER = Trial(twin="dr-z", canary="dr-z-b", stable="dr-z-a")


async def asked(url: str) -> Measurement | str:
    prometheus = Prometheus(url, request_seconds=2)
    try:
        found = await measure(prometheus, [TRIAL, OTHER], window_seconds=90, matchers='namespace="x"')
        return found if isinstance(found, str) else found[TRIAL]
    finally:
        await prometheus.close()


async def test_a_measurement_is_read_from_prometheus(server: tuple[dict[str, object], str]) -> None:
    answers, url = server
    answers["pods_ready"] = [{"metric": {"pod": pod}, "value": [1, "1"]} for pod in ("m1", "q1")]
    tried, serving = {"twin": "dr-a", "version": "dr-a-b"}, {"twin": "dr-a", "version": "dr-a-a"}
    answers["requests_total"] = [
        {"metric": {**tried, "code": "200"}, "value": [1, "30"]},
        {"metric": {**tried, "code": "500"}, "value": [1, "2"]},
        {"metric": {"twin": "dr-z", "version": "dr-z-b", "code": "500"}, "value": [1, "999"]},
    ]
    answers["ratings_total"] = [
        {"metric": {"twin": "dr-a", "version": version, "rating": rating}, "value": [1, count]}
        for version, rating, count in (("dr-a-b", "4", "3"), ("dr-a-a", "5", "9"), ("dr-a-a", "none", "1"))
    ]
    answers["max_over_time(bettertherapy_miner_request_seconds"] = [{"metric": tried, "value": [1, "0.5"]}]
    answers["rate(bettertherapy_miner_request_seconds"] = [{"metric": serving, "value": [1, "NaN"]}]
    assert await asked(url) == Measurement(
        fresh_miners=frozenset({"m1", "q1"}),
        requests={"200": 30.0, "500": 2.0},
        canary_seconds=0.5,
        stable_seconds=None,
        canary_ratings={4: 3.0},
        stable_ratings={5: 9.0},
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "error", "error": "bad query"}, {}, [], {"status": "success", "data": {"result": [{"metric": {}}]}},
        {"status": "success", "data": {"result": [{"metric": None, "value": [1, "1"]}]}},
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_said(server: tuple[dict[str, object], str], answer: object) -> None:
    answers, url = server
    answers["pods_ready"] = web.json_response(answer)
    assert isinstance(await asked(url), str)


async def test_nobody_there_is_said() -> None:
    assert "doesn't answer" in str(await asked("http://127.0.0.1:9"))
    with pytest.raises(PrometheusError):
        await Prometheus("http://127.0.0.1:9", request_seconds=1).query("up")
