"""What is made of a canary's metrics."""

from __future__ import annotations

import math
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


BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf)


def histogram(seconds: float, count: float) -> dict[float, float]:
    """Answers that all took so long."""
    return {bound: count if seconds <= bound else 0.0 for bound in BOUNDS}


def measured(
    *fresh: str, seconds: float = 0.3, serving: tuple[float, float] = (900, 0), serving_seconds: float = 0.3,
    **codes: float,
) -> Measurement:  # fmt: skip
    """`serving`: requests of the serving version, and how many of them failed."""
    count = sum(codes.values())
    return Measurement(
        fresh_miners=frozenset(fresh), requests={code.lstrip("c"): count for code, count in codes.items()},
        serving_requests={"200": serving[0] - serving[1], "503": serving[1]},
        canary_seconds=histogram(seconds, count) if count else {},
        serving_seconds=histogram(serving_seconds, serving[0]) if serving[0] else {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "outlook", "reason"),
    [
        ("Prometheus doesn't answer", Outlook.UNKNOWN, "MetricsUnavailable"),
        (measured(c200=100), Outlook.UNKNOWN, "MetricsStale"),
        (measured("m1"), Outlook.AWAITING, "AwaitingTraffic"),
        (measured("m1", c200=100), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=99, c500=1), Outlook.GOOD, "WithinLimits"),
        # Two of a hundred are above the limit, and what happens by chance when it is kept.
        (measured("m1", c200=98, c500=2), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=96, c500=4), Outlook.UNCLEAR, "ErrorRate"),
        (measured("m1", c200=90, c500=10), Outlook.WORSE, "ErrorRate"),
        (measured("m1", c200=90, broken=10), Outlook.WORSE, "ErrorRate"),
        (measured("m1", c200=50, c499=50), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=50, c404=50), Outlook.GOOD, "WithinLimits"),
        (measured("m1", c200=4, c503=1, serving=(45, 0)), Outlook.UNCLEAR, "ErrorRate"),
        (measured("m1", c503=4), Outlook.WORSE, "ErrorRate"),
        # An engine that is down fails the requests of both: that speaks against neither.
        (measured("m1", c200=50, c503=50, serving=(900, 450)), Outlook.GOOD, "WithinLimits"),
        # Nothing is known of the serving version: the limit alone counts.
        (measured("m1", c200=90, c500=10, serving=(0, 0)), Outlook.WORSE, "ErrorRate"),
        (measured("m1", c200=99, c500=1, serving=(0, 0)), Outlook.GOOD, "WithinLimits"),
        (measured("m1", seconds=2.0, c200=40), Outlook.WORSE, "Latency"),
        (measured("m1", seconds=2.0, c200=3), Outlook.UNCLEAR, "Latency"),
        (measured("m1", seconds=0.4, c200=400), Outlook.GOOD, "WithinLimits"),
        (measured("m1", seconds=9.0, serving=(0, 0), c200=20), Outlook.GOOD, "WithinLimits"),
    ],
)
def test_outlook(found: Measurement | str, outlook: Outlook, reason: str) -> None:
    analysis = assess(found, LIMITS, miners=MINERS)
    assert (analysis.outlook, analysis.reason) == (outlook, reason), analysis.message


def test_too_few_requests_prove_nothing_and_are_counted() -> None:
    wary = Rollout(min_requests=30)
    few = assess(measured("m1", c200=12), wary, miners=MINERS)
    assert (few.outlook, few.reason) == (Outlook.AWAITING, "AwaitingTraffic")
    assert few.message.startswith("12 of the 30 requests that rollout.minRequests asks for have reached it; 0 of 12")
    assert assess(measured("m1", c200=30), wary, miners=MINERS).outlook is Outlook.GOOD
    assert assess(measured("m1", c503=12), wary, miners=MINERS).outlook is Outlook.WORSE  # so few prove that


def test_steps_go_by_time_where_the_twin_says_so() -> None:
    said = assess(measured("m1"), Rollout(min_requests=0), miners=MINERS)
    assert (said.outlook, said.reason) == (Outlook.GOOD, "NoTraffic")


def test_a_few_slow_answers_are_allowed_however_surely_they_are_more() -> None:
    quick, slow = histogram(0.3, 9_600), histogram(4.0, 400)
    found = Measurement(
        fresh_miners=frozenset({"m1"}), requests={"200": 10_000}, serving_requests={"200": 10_000},
        canary_seconds={bound: quick[bound] + slow[bound] for bound in BOUNDS},
        serving_seconds=histogram(0.3, 10_000),
    )  # fmt: skip
    assert assess(found, LIMITS, miners=MINERS).outlook is Outlook.GOOD


def rated(canary: dict[int, float], stable: dict[int, float]) -> Measurement:
    return Measurement(
        fresh_miners=frozenset({"m1"}), requests={"200": 100}, canary_ratings=canary, stable_ratings=stable
    )


@pytest.mark.parametrize(
    ("found", "outlook", "said"),
    [
        (rated({}, {}), Outlook.GOOD, "0 of 100 requests failed"),
        (
            rated({1: 2}, {5: 400}),
            Outlook.WORSE,
            "rated 1.0 of 5 by 2 against 5.0 by 400, 2 and 0 of them gave 1 or less",
        ),
        (
            rated({1: 1}, {5: 5, 3: 5}),
            Outlook.UNCLEAR,
            "rated 1.0 of 5 by 1 against 4.0 by 10, 1 and 0 of them gave 1 or",
        ),
        (rated({1: 40}, {}), Outlook.GOOD, "rated 1.0 of 5 by 40, the serving version by nobody"),
        (rated({3: 10, 4: 10}, {4: 200, 5: 200}), Outlook.WORSE, "10 and 0 of them gave 3 or less"),
        (rated({4: 12, 5: 8}, {4: 200, 5: 200}), Outlook.GOOD, "rated 4.4 of 5 by 20 against 4.5 by 400"),
        (rated({5: 30}, {1: 400}), Outlook.GOOD, "rated 5.0 of 5 by 30 against 1.0 by 400"),
        (rated({4: 30}, {5: 400}), Outlook.WORSE, "rated 4.0 of 5 by 30 against 5.0 by 400"),
    ],
)
def test_patients_ratings_count(found: Measurement, outlook: Outlook, said: str) -> None:
    analysis = assess(found, LIMITS, miners=MINERS)
    assert analysis.outlook is outlook
    assert said in analysis.message
    assert analysis.reason == ("WithinLimits" if outlook is Outlook.GOOD else "Rating")


def test_chance_alone_seldom_makes_a_canary_worse() -> None:
    draw = random.Random(3)
    scale, weights = (1, 2, 3, 4, 5), (1, 1, 3, 8, 12)
    taken_back = 0
    for _ in range(300):
        canary, stable = (Counter(draw.choices(scale, weights, k=count)) for count in (40, 400))
        taken_back += assess(rated(dict(canary), dict(stable)), LIMITS, miners=MINERS).outlook is Outlook.WORSE
    assert taken_back <= 3


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
    return {
        "fresh": fresh,
        "requests": [],
        "serving": [],
        "before": [],
        "canary_seconds": [],
        "serving_seconds": [],
        "ratings": [],
        **parts,
    }


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
            fresh=odd, canary_seconds=[of_canary(1e308, le="+Inf"), of_canary(3, le="1"), of_canary(4, le="soon")],
            serving=[Sample(labels={"twin": 1, "version": {}}, value=1)],  # type: ignore[dict-item]
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
    found = measured("m1", seconds=2.0, serving=(500, 1), c200=99, c500=1)
    said = assess(found, LIMITS, miners=MINERS)
    assert (
        "1 of 100 requests failed (1.00%; of the serving version's 500 since about its start 0.20%; allowed 1%)"
        in said.message
    )
    assert (
        "95% answered within 2.42 s against 0.49 s (allowed 150%): 100 of 100 answers took longer than 1 s"
        in said.message
    )
    assert re.search(r"evidence more than a million to 1 that it is worse, 250 to 1 takes it back", said.message)


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
    answers["ratings_total"] = [
        {"metric": {"twin": "dr-a", "version": version, "rating": rating}, "value": [1, count]}
        for version, rating, count in (("dr-a-b", "4", "3"), ("dr-a-a", "5", "9"), ("dr-a-a", "none", "1"))
    ]
    answers[" offset 90s"] = [{"metric": {**serving, "code": "503"}, "value": [1, "12"]}]
    answers["increase(bettertherapy_miner_requests"] = [{"metric": {**serving, "code": "200"}, "value": [1, "270.3"]}]
    answers["max_over_time(bettertherapy_miner_request_seconds"] = [
        {"metric": {**tried, "le": bound}, "value": [1, count]} for bound, count in (("0.5", "20"), ("+Inf", "32"))
    ]
    answers["increase(bettertherapy_miner_request_seconds"] = [
        {"metric": {**serving, "le": bound}, "value": [1, count]}
        for bound, count in (("+Inf", "270"), ("0.5", "270.4"))
    ]
    answers["max_over_time(bettertherapy_miner_requests"] = [
        {"metric": {**tried, "code": "200"}, "value": [1, "30"]},
        {"metric": {**tried, "code": "500"}, "value": [1, "2"]},
        {"metric": {"twin": "dr-z", "version": "dr-z-b", "code": "500"}, "value": [1, "999"]},
    ]
    assert await asked(url) == Measurement(
        fresh_miners=frozenset({"m1", "q1"}),
        requests={"200": 30.0, "500": 2.0},
        serving_requests={"200": 270.3},
        serving_before={"503": 12.0},
        canary_seconds={0.5: 20.0, math.inf: 32.0},
        serving_seconds={0.5: 270.4, math.inf: 270.4},
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
