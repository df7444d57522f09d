"""The routing table: which version answers, and when a new one takes over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api.configmaps import PodReport, RoutingTable
from bettertherapy_api.report import AdapterState, FailureReason
from tests.unit.operator.samples import BASE, adapter_report, digest, pool, report, twin
from twin_operator.domain.routing import Candidate, plan_routing, read_table, refusal


def plan(
    *candidates: Candidate,
    previous: RoutingTable | None = None,
    ready: dict[str, PodReport | None] | None = None,
    **kw: Any,
) -> RoutingTable:
    return plan_routing(pool(), candidates=candidates, previous=previous, ready=ready or {}, **kw)


def held(table: RoutingTable) -> set[str]:
    return {adapter.served_name for adapter in table.adapters}


def answering(table: RoutingTable, name: str = "dr-a") -> list[str]:
    return [version.served_name for version in table.twins[name].versions]


def serving(letter: str = "a", **kw: Any) -> RoutingTable:
    """A table in which version `letter` of dr-a answers."""
    return plan(Candidate(twin=twin(adapter=letter, **kw)), ready={"e1": report("e1", adapter_report(letter=letter))})


def test_a_new_twin_is_held_but_does_not_answer_before_it_is_verified() -> None:
    table = plan(Candidate(twin=twin()), ready={"e1": report("e1")})
    assert held(table) == {"dr-a-aaaaaaaa"}
    assert answering(table) == []


@pytest.mark.parametrize("state", [state for state in AdapterState if state is not AdapterState.VERIFIED])
def test_no_state_but_verified_lets_a_version_answer(state: AdapterState) -> None:
    assert answering(plan(Candidate(twin=twin()), ready={"e1": report("e1", adapter_report(state=state))})) == []


def test_a_report_of_another_digest_under_the_served_name_does_not_count() -> None:
    other = adapter_report()["dr-a-aaaaaaaa"].model_copy(update={"digest": digest("b")})
    assert answering(plan(Candidate(twin=twin()), ready={"e1": report("e1", {"dr-a-aaaaaaaa": other})})) == []


def test_the_first_version_answers_as_soon_as_one_pod_verified_it() -> None:
    table = plan(Candidate(twin=twin()), ready={"e1": report("e1", adapter_report()), "e2": report("e2")})
    assert answering(table) == ["dr-a-aaaaaaaa"]


def test_a_new_version_waits_until_every_ready_pod_verified_it() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    table = plan(
        Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both, "e2": report("e2", adapter_report())}
    )
    assert answering(table) == ["dr-a-aaaaaaaa"]
    assert held(table) == {"dr-a-aaaaaaaa", "dr-a-bbbbbbbb"}


def test_a_ready_pod_that_has_not_reported_holds_a_new_version_up() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    table = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both, "e2": None})
    assert answering(table) == ["dr-a-aaaaaaaa"]


def test_without_any_ready_pod_nothing_takes_over() -> None:
    assert answering(plan(Candidate(twin=twin(adapter="b")), previous=serving())) == ["dr-a-aaaaaaaa"]


def test_once_verified_everywhere_the_new_version_takes_over_and_the_old_is_let_go() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    table = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both})
    assert answering(table) == ["dr-a-bbbbbbbb"]
    assert held(table) == {"dr-a-bbbbbbbb"}


def test_a_failed_new_version_leaves_the_old_one_answering() -> None:
    failed = adapter_report(letter="b", state=AdapterState.FAILED, reason=FailureReason.DIGEST_MISMATCH)
    ready: dict[str, PodReport | None] = {"e1": report("e1", adapter_report(), failed)}
    assert answering(plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready=ready)) == ["dr-a-aaaaaaaa"]


def test_a_version_that_answers_stays_when_a_pod_forgets_it() -> None:
    assert answering(plan(Candidate(twin=twin()), previous=serving(), ready={"e1": report("e1")})) == ["dr-a-aaaaaaaa"]


def test_going_back_to_the_version_that_answers_drops_the_other() -> None:
    between = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": report("e1", adapter_report())})
    back = plan(Candidate(twin=twin(adapter="a")), previous=between, ready={"e1": report("e1", adapter_report())})
    assert (answering(back), held(back)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa"})


def test_a_third_version_replaces_the_second_that_was_on_its_way() -> None:
    between = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": report("e1", adapter_report())})
    table = plan(Candidate(twin=twin(adapter="c")), previous=between, ready={"e1": report("e1", adapter_report())})
    assert held(table) == {"dr-a-aaaaaaaa", "dr-a-cccccccc"}


def test_a_changed_uri_of_the_same_content_is_followed() -> None:
    moved = twin()
    spec = moved.spec.model_copy(update={"adapter": moved.spec.adapter.model_copy(update={"uri": "s3://b/x"})})  # type: ignore[union-attr]
    table = plan(Candidate(twin=twin()), previous=serving())
    table = plan(Candidate(twin=_with(moved, spec)), previous=table)
    assert [adapter.uri for adapter in table.adapters] == ["s3://b/x"]
    assert answering(table) == ["dr-a-aaaaaaaa"]


def _with(made: Any, spec: Any) -> Any:
    from dataclasses import replace

    return replace(made, spec=spec)


def test_a_twin_without_adapter_answers_as_the_base_model_with_its_prompt() -> None:
    table = plan(Candidate(twin=twin(adapter=None, systemPrompt="Be brief.")))
    assert answering(table) == [BASE]
    assert held(table) == set()
    assert table.twins["dr-a"].system_prompt == "Be brief."
    assert table.twins["dr-a"].versions[0].digest is None


def test_an_adapter_replaces_the_base_model_only_once_verified() -> None:
    before = plan(Candidate(twin=twin(adapter=None)))
    between = plan(Candidate(twin=twin()), previous=before, ready={"e1": report("e1")})
    assert answering(between) == [BASE]
    after = plan(Candidate(twin=twin()), previous=between, ready={"e1": report("e1", adapter_report())})
    assert answering(after) == ["dr-a-aaaaaaaa"]


def test_a_deleted_twin_drops_out_of_the_table() -> None:
    from dataclasses import replace

    table = plan(Candidate(twin=replace(twin(), deleted=True)), previous=serving())
    assert (table.twins, table.adapters) == ({}, ())


def test_a_twin_that_is_gone_drops_out_of_the_table() -> None:
    assert plan(previous=serving()).twins == {}


def test_a_refused_spec_leaves_the_last_version_answering() -> None:
    table = plan(Candidate(twin=twin(adapter="b"), refused=("RankTooHigh", "…")), previous=serving())
    assert (answering(table), held(table)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa"})


def test_a_refused_twin_that_never_answered_is_not_in_the_table() -> None:
    assert plan(Candidate(twin=twin(), refused=("RankTooHigh", "…"))).twins == {}


def test_a_pool_lets_a_twin_go_once_another_pool_answers_for_it() -> None:
    moved = Candidate(twin=twin(), refused=("NoPoolMatches", "…"), served_elsewhere=True)
    assert plan(moved, previous=serving()).twins == {}


def test_an_unreadable_twin_keeps_what_it_has() -> None:
    table = plan(previous=serving(), unreadable={"dr-a"})
    assert (answering(table), held(table)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa"})


def test_a_lost_table_is_rebuilt_from_the_status() -> None:
    active = {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "uri": "pvc://x/y", "rank": 8}
    known = twin(adapter="b", status={"activeVersion": active, "pools": ["p"]})
    table = plan(Candidate(twin=known), ready={"e1": report("e1", adapter_report())})
    assert (answering(table), held(table)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa", "dr-a-bbbbbbbb"})


def test_digests_that_share_a_served_name_are_never_held_together() -> None:
    other = twin()
    near = digest("a")[:-1] + "b"
    spec = other.spec.model_copy(update={"adapter": other.spec.adapter.model_copy(update={"digest": near})})  # type: ignore[union-attr]
    table = plan(Candidate(twin=_with(other, spec)), previous=serving())
    assert [adapter.digest for adapter in table.adapters] == [digest("a")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"baseModel": {"name": "other"}}, "BaseModelMismatch"),
        ({"baseModel": {"name": BASE, "revision": "r2"}}, "BaseModelMismatch"),
        ({"rank": 32}, "RankTooHigh"),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str | None) -> None:
    found = refusal(pool(), twin(**fields))
    assert (found[0] if found else None) == reason


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pool": 1}'])
def test_a_table_that_does_not_parse_counts_as_none(text: str) -> None:
    assert read_table({"data": {"routing.json": text}}) is None


STATES = st.sampled_from([None, *AdapterState])


@given(
    wanted=st.sampled_from("abc"),
    pods=st.lists(st.dictionaries(st.sampled_from("abc"), STATES), max_size=3),
    start=st.sampled_from([None, "a", "b"]),
)
def test_what_answers_was_answering_before_or_is_verified_and_is_always_held(
    wanted: str, pods: list[dict[str, AdapterState | None]], start: str | None
) -> None:
    ready: dict[str, PodReport | None] = {
        f"e{number}": report(f"e{number}", *(adapter_report(letter=k, state=s) for k, s in states.items() if s))
        for number, states in enumerate(pods)
    }
    table = plan(Candidate(twin=twin(adapter=wanted)), previous=serving(start) if start else None, ready=ready)
    for version in table.twins["dr-a"].versions:
        letter = version.served_name[-1]
        proven = any(states.get(letter) is AdapterState.VERIFIED for states in pods)
        assert letter == start or proven
        assert version.served_name in held(table)
    assert f"dr-a-{wanted * 8}" in held(table)
    if start is not None:
        assert table.twins["dr-a"].versions


@given(wanted=st.sampled_from("ab"), states=STATES)
def test_planning_twice_changes_nothing(wanted: str, states: AdapterState | None) -> None:
    ready: dict[str, PodReport | None] = {
        "e1": report("e1", *([adapter_report(letter=wanted, state=states)] if states else []))
    }
    once = plan(Candidate(twin=twin(adapter=wanted)), previous=serving("a"), ready=ready)
    assert plan(Candidate(twin=twin(adapter=wanted)), previous=once, ready=ready) == once
