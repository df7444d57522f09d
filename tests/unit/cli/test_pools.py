"""What a twin's pools are told, what their pods say, and what proves it."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_twin.pools import (
    PodLine,
    PoolLine,
    PoolObjects,
    is_good,
    pod_text,
    pool_lines,
    routing_text,
    state_text,
)

from .objects import DIGEST, Json, addresses, engine_pod, held, pod_report, routing_slice, told, twin

NAME = "dr-gurung-ab12ab12"
TWIN = twin()


def pool(*reports: Json, pods: list[Json] | None = None, slices: list[Json] | None = None) -> PoolLine:
    names = [report["metadata"]["name"] for report in reports]
    made = PoolObjects(
        name="pool-a", reports=reports, pods=[engine_pod(name) for name in names] if pods is None else pods,
        slices=[told(), addresses(*names)] if slices is None else slices,
    )  # fmt: skip
    return pool_lines(TWIN, [made])[0]


def pod(*reports: Json, **objects: Any) -> PodLine:
    (line,) = pool(*reports, **objects).pods
    return line


def test_only_the_twins_own_adapters_are_listed() -> None:
    line = pod(pod_report(adapters={NAME: held(), "dr-okafor-ab12ab12": held("dr-okafor")}))
    assert [each.served_name for each in line.adapters] == [NAME]


def test_the_adapter_of_a_deleted_twin_of_the_same_name_is_not_the_twins() -> None:
    line = pod(pod_report(adapters={"dr-gurung-00000000": held() | {"twinUID": "another"}}), slices=[])
    assert line.adapters == ()


def test_a_report_of_a_pod_that_is_gone_or_was_made_anew_is_not_shown() -> None:
    line = pool(
        pod_report("pod-1", {NAME: held()}, uid="the-one-before"), pod_report("pod-2", {NAME: held()}),
        pods=[engine_pod("pod-1")],
    )  # fmt: skip
    assert [(each.name, pod_text(each), each.adapters) for each in line.pods] == [("pod-1", "has not reported yet", ())]


def test_only_engine_pods_that_have_not_ended_are_listed() -> None:
    miner = engine_pod("pod-1")
    miner["metadata"]["labels"]["bettertherapy.io/component"] = "miner"
    assert pool(pods=[miner, engine_pod("pod-2", phase="Failed")]).pods == ()


def test_what_a_pod_is_told_to_hold_and_has_not_named_is_not_held_yet() -> None:
    (adapter,) = pod(pod_report()).adapters
    assert (adapter.served_name, state_text(adapter), is_good(adapter)) == (NAME, "not held yet", None)


def test_a_report_that_does_not_parse_hides_no_other() -> None:
    broken = pod_report("pod-1") | {"engine": "?"}
    first, second = pool(broken, pod_report("pod-2", {NAME: held()})).pods
    assert "can't be read" in pod_text(first)
    assert pod_text(second) == "live, vLLM 0.32.0"


def test_a_report_without_a_pod_hides_no_other() -> None:
    broken = pod_report("pod-1") | {"pod": None}
    first, second = pool(broken, pod_report("pod-2")).pods
    assert (pod_text(first), pod_text(second)) == ("has not reported yet", "live, vLLM 0.32.0")


def test_a_pod_that_miners_are_not_told_of_says_so() -> None:
    assert pod_text(pod(pod_report(), slices=[told()])) == "live, vLLM 0.32.0, miners are not told of it"


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"draining": True}, "live, vLLM 0.32.0, draining"), ({"ready": False}, "live, vLLM 0.32.0, not ready"),
        ({"ready": False, "engine": {"live": False, "message": "no answer"}}, "not live, not ready: no answer"),
    ],
)  # fmt: skip
def test_how_a_pod_is_in_words(extra: Json, text: str) -> None:
    assert pod_text(pod(pod_report(**extra))) == text


@pytest.mark.parametrize(
    ("slices", "text"),
    [
        ([], "is not told of this twin yet"), ([told(uid="another")], "is not told of this twin yet"),
        ([told(weight=None)], "no version answers yet"), ([told(weight=100)], f"answers with {NAME} (100%)"),
        ([routing_slice(0, twins={"uid-dr-gurung": {"name": 7}})], "is not told of this twin yet"),
        ([routing_slice(0, twins={}), told() | {"pods": None}], f"answers with {NAME} (100%)"),
    ],
)  # fmt: skip
def test_what_a_pool_is_told_in_words(slices: list[Json], text: str) -> None:
    assert routing_text(pool(pod_report(), slices=slices)) == text


@pytest.mark.parametrize(
    ("fields", "words", "good"),
    [
        (
            {"proof": "Fingerprint", "fingerprintMilliNats": 52},
            "it answers as recorded when it was trained, 0.052",
            True,
        ),
        ({"fingerprintMilliNats": 52}, "it answers as recorded when it was trained", True),
        ({"proof": "FirstLoad"}, "it answers as at its first load", True),
        ({"proof": "Unproven", "fingerprintMilliNats": 52, "message": "too little"}, "answer: too little", None),
        ({}, "nothing proves whose weights answer: nothing was measured", None),
        ({"state": "Loading"}, "Loading", None),
        ({"state": "Failed", "reason": "NoSpace", "message": "full", "retryable": True}, "it is tried again", False),
    ],
)
def test_what_proves_an_adapter_in_words(fields: Json, words: str, good: bool | None) -> None:
    (adapter,) = pod(pod_report(adapters={NAME: held(**fields)})).adapters
    assert words in state_text(adapter)
    assert is_good(adapter) is good


def test_an_adapter_that_pods_are_no_longer_told_to_hold_says_so() -> None:
    old = {"dr-gurung-00000000": held() | {"digest": DIGEST}}
    first, second = pod(pod_report(adapters=old)).adapters
    assert state_text(first).startswith("Verified, no longer wanted: ")
    assert state_text(second) == "not held yet"
