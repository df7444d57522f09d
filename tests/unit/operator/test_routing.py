"""A twin's entry in the routing: which version answers, and when a new one takes over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api import names
from bettertherapy_api.report import AdapterState, FailureReason, PodReport
from bettertherapy_api.routing import TWINS_PER_SLICE, TwinEntry
from tests.unit.operator.samples import BASE, adapter_report, digest, pool, report, twin
from twin_operator.domain.bounds import Bounds
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import Candidate, header_of, plan_entry, refusal, slice_for
from twin_operator.engine.conditions import Finding


def plan(
    candidate: Candidate,
    *,
    previous: TwinEntry | None = None,
    ready: dict[str, PodReport | None] | None = None,
) -> TwinEntry | None:
    return plan_entry(pool(), candidate, previous=previous, ready=ready or {})


def held(entry: TwinEntry | None) -> set[str]:
    return {adapter.served_name for adapter in entry.adapters} if entry else set()


def answering(entry: TwinEntry | None) -> list[str]:
    return [version.served_name for version in entry.versions] if entry else []


def serving(letter: str = "a", **kw: Any) -> TwinEntry:
    """The entry in which version `letter` of dr-a answers."""
    found = plan(Candidate(twin=twin(adapter=letter, **kw)), ready={"e1": report("e1", adapter_report(letter=letter))})
    assert found is not None
    return found


def test_a_new_twin_is_held_but_does_not_answer_before_it_is_verified() -> None:
    entry = plan(Candidate(twin=twin()), ready={"e1": report("e1")})
    assert held(entry) == {"dr-a-aaaaaaaa"}
    assert answering(entry) == []


@pytest.mark.parametrize("state", [state for state in AdapterState if state is not AdapterState.VERIFIED])
def test_no_state_but_verified_lets_a_version_answer(state: AdapterState) -> None:
    assert answering(plan(Candidate(twin=twin()), ready={"e1": report("e1", adapter_report(state=state))})) == []


def test_a_report_of_another_digest_under_the_served_name_does_not_count() -> None:
    other = adapter_report()["dr-a-aaaaaaaa"].model_copy(update={"digest": digest("b")})
    assert answering(plan(Candidate(twin=twin()), ready={"e1": report("e1", {"dr-a-aaaaaaaa": other})})) == []


def test_the_first_version_answers_as_soon_as_one_pod_verified_it() -> None:
    entry = plan(Candidate(twin=twin()), ready={"e1": report("e1", adapter_report()), "e2": report("e2")})
    assert answering(entry) == ["dr-a-aaaaaaaa"]


def test_a_new_version_waits_until_every_ready_pod_verified_it() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    entry = plan(
        Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both, "e2": report("e2", adapter_report())}
    )
    assert answering(entry) == ["dr-a-aaaaaaaa"]
    assert held(entry) == {"dr-a-aaaaaaaa", "dr-a-bbbbbbbb"}


def test_a_ready_pod_that_has_not_reported_holds_a_new_version_up() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    entry = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both, "e2": None})
    assert answering(entry) == ["dr-a-aaaaaaaa"]


def test_without_any_ready_pod_nothing_takes_over() -> None:
    assert answering(plan(Candidate(twin=twin(adapter="b")), previous=serving())) == ["dr-a-aaaaaaaa"]


def test_once_verified_everywhere_the_new_version_takes_over_and_the_old_is_let_go() -> None:
    both = report("e1", adapter_report(), adapter_report(letter="b"))
    entry = plan(Candidate(twin=twin(adapter="b")), previous=serving(), ready={"e1": both})
    assert answering(entry) == ["dr-a-bbbbbbbb"]
    assert held(entry) == {"dr-a-bbbbbbbb"}


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
    entry = plan(Candidate(twin=twin(adapter="c")), previous=between, ready={"e1": report("e1", adapter_report())})
    assert held(entry) == {"dr-a-aaaaaaaa", "dr-a-cccccccc"}


def test_a_changed_uri_of_the_same_content_is_followed() -> None:
    moved = twin()
    spec = moved.spec.model_copy(update={"adapter": moved.spec.adapter.model_copy(update={"uri": "s3://b/x"})})  # type: ignore[union-attr]
    entry = plan(Candidate(twin=twin()), previous=serving())
    entry = plan(Candidate(twin=_with(moved, spec)), previous=entry)
    assert entry is not None
    assert [adapter.uri for adapter in entry.adapters] == ["s3://b/x"]
    assert answering(entry) == ["dr-a-aaaaaaaa"]


def _with(made: Any, spec: Any) -> Any:
    from dataclasses import replace

    return replace(made, spec=spec)


def test_a_twin_without_adapter_answers_as_the_base_model_with_its_prompt() -> None:
    entry = plan(Candidate(twin=twin(adapter=None, systemPrompt="Be brief.")))
    assert answering(entry) == [BASE]
    assert held(entry) == set()
    assert entry is not None
    assert entry.prompt_digest == names.prompt_digest("Be brief.")
    assert entry.versions[0].digest is None


def test_an_adapter_replaces_the_base_model_only_once_verified() -> None:
    before = plan(Candidate(twin=twin(adapter=None)))
    between = plan(Candidate(twin=twin()), previous=before, ready={"e1": report("e1")})
    assert answering(between) == [BASE]
    after = plan(Candidate(twin=twin()), previous=between, ready={"e1": report("e1", adapter_report())})
    assert answering(after) == ["dr-a-aaaaaaaa"]


def test_a_deleted_twin_has_no_entry() -> None:
    from dataclasses import replace

    assert plan(Candidate(twin=replace(twin(), deleted=True)), previous=serving()) is None


def test_a_refused_spec_leaves_the_last_version_answering() -> None:
    entry = plan(Candidate(twin=twin(adapter="b"), refused=Finding(Reason.RANK_TOO_HIGH, "…")), previous=serving())
    assert (answering(entry), held(entry)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa"})


def test_a_refused_twin_that_never_answered_has_no_entry() -> None:
    assert plan(Candidate(twin=twin(), refused=Finding(Reason.RANK_TOO_HIGH, "…"))) is None


def test_a_pool_lets_a_twin_go_once_another_pool_answers_for_it() -> None:
    moved = Candidate(twin=twin(), refused=Finding(Reason.NO_POOL_MATCHES, "…"), served_elsewhere=True)
    assert plan(moved, previous=serving()) is None


def test_a_lost_entry_is_rebuilt_from_the_status() -> None:
    active = {"digest": digest("a"), "servedName": "dr-a-aaaaaaaa", "uri": "pvc://x/y", "rank": 8}
    known = twin(adapter="b", status={"activeVersion": active, "pools": ["p"]})
    entry = plan(Candidate(twin=known), ready={"e1": report("e1", adapter_report())})
    assert (answering(entry), held(entry)) == (["dr-a-aaaaaaaa"], {"dr-a-aaaaaaaa", "dr-a-bbbbbbbb"})


def test_digests_that_share_a_served_name_are_never_held_together() -> None:
    other = twin()
    near = digest("a")[:-1] + "b"
    spec = other.spec.model_copy(update={"adapter": other.spec.adapter.model_copy(update={"digest": near})})  # type: ignore[union-attr]
    entry = plan(Candidate(twin=_with(other, spec)), previous=serving())
    assert entry is not None
    assert [adapter.digest for adapter in entry.adapters] == [digest("a")]


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
    found = refusal(pool(), twin(**fields), Bounds())
    assert (found.reason if found else None) == reason


def test_a_new_twin_goes_to_the_first_slice_with_room() -> None:
    full = TWINS_PER_SLICE
    assert [slice_for(counts) for counts in ({}, {0: 5}, {0: full}, {0: full, 1: full - 1}, {0: full, 2: 3})] == [
        0, 0, 1, 1, 1,
    ]  # fmt: skip


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
    entry = plan(Candidate(twin=twin(adapter=wanted)), previous=serving(start) if start else None, ready=ready)
    assert entry is not None
    for version in entry.versions:
        letter = version.served_name[-1]
        proven = any(states.get(letter) is AdapterState.VERIFIED for states in pods)
        assert letter == start or proven
        assert version.served_name in held(entry)
    assert f"dr-a-{wanted * 8}" in held(entry)
    if start is not None:
        assert entry.versions


@given(wanted=st.sampled_from("ab"), states=STATES)
def test_planning_twice_changes_nothing(wanted: str, states: AdapterState | None) -> None:
    ready: dict[str, PodReport | None] = {
        "e1": report("e1", *([adapter_report(letter=wanted, state=states)] if states else []))
    }
    once = plan(Candidate(twin=twin(adapter=wanted)), previous=serving("a"), ready=ready)
    assert plan(Candidate(twin=twin(adapter=wanted)), previous=once, ready=ready) == once


@pytest.mark.parametrize(
    ("engine", "runs"),
    [
        ({}, 256),
        ({"device": "CPU"}, 128),
        ({"args": ["--max-num-seqs=64"]}, 64),
        ({"args": ["--max_num_seqs=64", "--max-num-seqs=32"]}, 32),
        ({"args": ["--max-num-seqs=64", "--data-parallel-size=2"]}, 128),
        ({"args": ["--max-num-batched-tokens=64"]}, 64),
        ({"args": ["--max-num-batched-tokens=2k"]}, 256),
        ({"args": ["--max-num-seqs=64", "--max-num-active-seqs=16"]}, 16),
        ({"args": ["--max-num-active-seqs=512"]}, 512),
        ({"args": ["--max-num-seqs=none"]}, 256),
        ({"args": ["--max-num-seqs=999999999"]}, 65_536),
        ({"endpoint": "http://elsewhere:8000"}, None),
    ],
)
def test_miners_are_told_what_an_engine_runs_at_once(engine: dict[str, Any], runs: int | None) -> None:
    assert header_of(pool(engine=engine)).max_running == runs
