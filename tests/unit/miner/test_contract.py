"""What the miner makes of slices and reports: whose weights answer, where pods are, and what one change costs."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettertherapy_api import names
from neurons.cluster import Gone, Listed, Put
from neurons.miner.metrics import Metrics
from neurons.miner.reports import ReportView
from neurons.miner.tables import Tables
from tests.unit.cluster.slices import digest, large_pool, pods_slice, prompts_slice, routing_slice, twin
from tests.unit.cluster.test_routing_view import EVENTS, JSON, TEXT
from tests.unit.miner.fake_agent import FakeAgent
from tests.unit.miner.running_miner import RunningMiner, report_object


def serve(miner: RunningMiner, *slices: Any, agents: list[FakeAgent]) -> None:
    pods = pods_slice({agent.uid: (agent.pod, agent.address) for agent in agents})
    miner.service.tables.take_routing(Listed([*slices, pods]))
    miner.service.tables.take_reports(Listed([report_object(agent) for agent in agents]))


def held(name: str, *letters: str) -> dict[str, str]:
    return {names.served_name(name, digest(letter)): digest(letter) for letter in letters}


async def test_a_twin_made_anew_under_its_name_never_answers_with_the_formers_weights(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held("dr-x", "a", "b")) as agent, RunningMiner(tmp_path) as miner:
        serve(miner, routing_slice(0, {"old": twin("dr-x", "a")}), routing_slice(1, {}), agents=[agent])
        assert (await miner.ask("dr-x"))[1][names.ADAPTER_DIGEST_HEADER] == digest("a")
        tables = miner.service.tables
        # Both at once: whose answer it would be can't be known.
        tables.take_routing(Put(routing_slice(1, {"new": twin("dr-x", "b")})))
        status, headers, document = await miner.ask("dr-x")
        assert (status, document["error"]["code"]) == (503, "twin_replaced")
        assert int(headers["Retry-After"]) > 0
        assert "is being replaced" in document["error"]["message"]
        assert len(agent.bodies) == 1
        tables.take_routing(Put(routing_slice(0, {})))
        status, headers, _ = await miner.ask("dr-x")
        assert (status, headers[names.ADAPTER_DIGEST_HEADER]) == (200, digest("b"))


async def test_a_twin_made_anew_without_a_version_is_not_answered(tmp_path: Path) -> None:
    async with FakeAgent(pod="a", holds=held("dr-x", "a")) as agent, RunningMiner(tmp_path) as miner:
        serve(miner, routing_slice(0, {"old": twin("dr-x", "a")}), agents=[agent])
        assert (await miner.ask("dr-x"))[0] == 200
        miner.service.tables.take_routing(Put(routing_slice(0, {"new": {"name": "dr-x"}})))
        assert (await miner.ask("dr-x"))[0] == 503
        assert len(agent.bodies) == 1


async def test_a_twin_is_not_answered_without_its_system_prompt(tmp_path: Path) -> None:
    prompt = "तपाईं डा. इन्द्र गुरुङको जुम्ल्याहा हुनुहुन्छ।"
    async with FakeAgent(pod="a", holds=held("dr-x", "a")) as agent, RunningMiner(tmp_path) as miner:
        serve(miner, routing_slice(0, {"u": twin("dr-x", prompt=prompt)}), agents=[agent])
        status, _, document = await miner.ask("dr-x")
        assert (status, document["error"]["code"]) == (503, "twin_not_ready")
        assert agent.bodies == []
        miner.service.tables.take_routing(Put(prompts_slice(prompt)))
        assert (await miner.ask("dr-x"))[0] == 200
        assert agent.bodies[-1]["messages"][0] == {"role": "system", "content": prompt}
        miner.service.tables.take_routing(Gone(prompts_slice(prompt)))
        assert (await miner.ask("dr-x"))[0] == 503


async def test_an_address_in_a_report_is_not_believed(tmp_path: Path) -> None:
    """A pod that says that it is elsewhere, or is another, gets and gives nothing by it."""
    async with (
        FakeAgent(pod="a", holds=held("dr-x", "a")) as right,
        FakeAgent(pod="a", holds=held("dr-x", "a")) as evil,
        RunningMiner(tmp_path, hold_seconds=0.1) as miner,
    ):
        serve(miner, routing_slice(0, {"u": twin("dr-x")}), agents=[right])
        forged = {**report_object(right), "address": evil.address}
        miner.service.tables.take_reports(Listed([forged]))
        assert (await miner.ask("dr-x"))[0] == 200
        assert (len(right.bodies), len(evil.bodies)) == (1, 0)
        for pod in ({"name": "a", "uid": "another"}, {"name": "b", "uid": right.uid}):
            stranger = {**report_object(right), "metadata": {"name": pod["name"]}, "pod": pod}
            miner.service.tables.take_reports(Listed([stranger]))
            assert (await miner.ask("dr-x"))[0] == 503


async def test_a_pod_that_the_operator_no_longer_names_is_not_asked(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held("dr-x", "a")) as agent,
        RunningMiner(tmp_path, hold_seconds=0.1) as miner,
    ):
        serve(miner, routing_slice(0, {"u": twin("dr-x")}), agents=[agent])
        assert (await miner.ask("dr-x"))[0] == 200
        miner.service.tables.take_routing(Put(pods_slice({})))
        assert (await miner.ask("dr-x"))[0] == 503
        miner.service.tables.take_routing(Put(pods_slice({agent.uid: ("a", agent.address)})))
        assert (await miner.ask("dr-x"))[0] == 200


async def test_an_adapter_in_a_state_that_this_miner_does_not_know_is_not_held(tmp_path: Path) -> None:
    async with (
        FakeAgent(pod="a", holds=held("dr-x", "a") | held("dr-y", "a")) as agent,
        RunningMiner(tmp_path, hold_seconds=0.1) as miner,
    ):
        serve(miner, routing_slice(0, {"u": twin("dr-x"), "v": twin("dr-y")}), agents=[agent])
        thing = report_object(agent)
        thing["adapters"][names.served_name("dr-x", digest("a"))]["state"] = "Newfangled"
        miner.service.tables.take_reports(Put(thing))
        assert [(await miner.ask(name))[0] for name in ("dr-x", "dr-y")] == [503, 200]


def _large() -> tuple[Tables, list[dict[str, Any]], dict[str, Any]]:
    tables = Tables(Metrics(), pool="pool")
    objects = large_pool()
    pods = {f"pod-uid-{n}": (f"pod-{n}", f"10.0.0.{n}:8080") for n in range(4)}
    tables.take_routing(Listed([*objects, pods_slice(pods)]))
    adapters = {
        one["servedName"]: {"twin": entry["name"], "digest": one["digest"], "state": "Verified"}
        for thing in objects for entry in thing.get("twins", {}).values() for one in entry["adapters"]
    }  # fmt: skip
    reports = [
        {"metadata": {"name": name}, "pod": {"name": name, "uid": uid}, "ready": True, "engine": {"live": True},
         "adapters": adapters} for uid, (name, _) in pods.items()
    ]  # fmt: skip
    tables.take_reports(Listed(copy.deepcopy(reports)))
    assert len(tables.snapshot.twins) == 1000
    assert all(tables.snapshot.can_answer(route) for route in tables.snapshot.twins.values())
    return tables, objects, reports[0]


def test_one_changed_twin_and_one_changed_adapter_of_1000_are_taken_in_well_under_5_ms() -> None:
    tables, objects, report = _large()
    routing, reporting = [], []
    for number in range(40):
        thing = json.loads(json.dumps(objects[1]))
        thing["twins"]["uid-7"]["doctor"] = str(number)
        began = time.thread_time()
        tables.take_routing(Put(thing))
        routing.append(time.thread_time() - began)
        thing = json.loads(json.dumps(report))
        thing["adapters"]["dr-7-aaaaaaaa"]["state"] = ("Loading", "Verified")[number % 2]
        began = time.thread_time()
        tables.take_reports(Put(thing))
        reporting.append(time.thread_time() - began)
    assert sorted(routing)[20] < 0.005
    assert sorted(reporting)[20] < 0.005


def test_what_a_change_does_not_concern_stays_the_same_object() -> None:
    tables, objects, _ = _large()
    before = tables.snapshot
    thing = copy.deepcopy(objects[1])
    thing["twins"]["uid-7"]["doctor"] = "another"
    tables.take_routing(Put(thing))
    after = tables.snapshot
    assert [name for name, route in after.twins.items() if route is not before.twins[name]] == ["dr-7"]
    assert after.holders is before.holders
    assert after.pods_for(after.twins["dr-9"].active[0]) is before.pods_for(before.twins["dr-9"].active[0])


ADAPTER = {"twin": "a", "digest": digest("a"), "state": "Verified"}
REPORT = JSON | st.fixed_dictionaries(
    {}, optional={
        "metadata": st.fixed_dictionaries({"name": st.sampled_from(["pod-0", "x"])}) | JSON,
        "pod": st.just({"name": "pod-0", "uid": "p0"}) | JSON, "ready": st.booleans() | JSON,
        "engine": st.just({"live": True}) | JSON,
        "adapters": st.dictionaries(TEXT, st.just(ADAPTER) | JSON) | JSON,
    },
)  # fmt: skip
REPORTS = st.lists(st.builds(Put, REPORT) | st.builds(Gone, REPORT) | st.builds(Listed, st.lists(REPORT, max_size=3)))


@settings(max_examples=100, deadline=None)
@given(EVENTS, REPORTS)
def test_nothing_raises_on_any_json(slices: list[Any], reports: list[Any]) -> None:
    tables = Tables(Metrics(), pool="pool")
    tables.take_routing(Put(pods_slice({"p0": ("pod-0", "10.0.0.1:80")})))
    for event in slices:
        tables.take_routing(event)
    for event in reports:
        tables.take_reports(event)
    for route in tables.snapshot.twins.values():
        tables.snapshot.can_answer(route)


@pytest.mark.parametrize("garbage", [None, 7, "x", [], {}, {"metadata": []}, {"metadata": {"name": 7}}])
def test_a_report_that_is_no_object_is_counted_and_nothing_else(garbage: Any) -> None:
    refused: list[None] = []
    view = ReportView(refused=lambda: refused.append(None))
    assert view.take(Put(garbage)) == set()
    assert len(refused) == 1
