"""Starting a fine-tune and following it: what is asked, what is waited for, and every way it may not work."""

from __future__ import annotations

import pytest

from bettertherapy_api import names
from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import follow, new_token, start, to_follow
from kubectl_twin.runs import progress_text

from .fake_api import MemoryApi
from .objects import condition, judged, run, training, tuned_twin, version

RUN = names.asked_run_name("dr-gurung", "t1")


def begin(api: MemoryApi) -> str:
    return start(api, namespace="clinic", name="dr-gurung", token="t1", clock=api.clock)


def obliging(api: MemoryApi) -> None:
    if names.FINETUNE_NOW_ANNOTATION in api.asked and api.time >= 1:
        api.put(run(RUN))


def test_the_run_is_the_one_that_the_operator_makes_for_this_token() -> None:
    api = MemoryApi(tuned_twin(), react=obliging)
    assert begin(api) == RUN
    assert api.asked == {names.FINETUNE_NOW_ANNOTATION: "t1"}


def test_tokens_differ_and_fit() -> None:
    assert new_token() != new_token()
    assert len(new_token()) <= names.TOKEN_LENGTH


def test_a_run_under_way_is_told_and_nothing_is_asked() -> None:
    api = MemoryApi(tuned_twin(), training())
    with pytest.raises(TwinCliError, match=r"dr-gurung-3 has not ended \(training · 40%.*Follow it"):
        begin(api)
    assert api.patches == []


def test_a_version_on_trial_is_told_and_nothing_is_asked() -> None:
    api = MemoryApi(tuned_twin(canaryVersion=version("e")))
    with pytest.raises(TwinCliError, match="dr-gurung-eeeeeeee is on trial"):
        begin(api)
    assert api.patches == []


def test_an_obstacle_is_told_in_the_operators_words_and_the_request_is_taken_back() -> None:
    said = "MinerPool p has no spec.store; the next fine-tune waits: set it"
    twin = tuned_twin(conditions=[condition("GatePassed", "False", "Reject", f"r1: worse; {said}; and so on")])
    twin["status"]["fineTuneObstacle"] = {"reason": "NoStore", "message": said}
    api = MemoryApi(twin)
    with pytest.raises(TwinCliError) as told:
        begin(api)
    assert str(told.value) == f"Nothing was started: {said}."
    assert names.FINETUNE_NOW_ANNOTATION not in api.asked


def test_an_operator_that_does_not_react_is_told_and_how_to_take_the_request_back() -> None:
    api = MemoryApi(tuned_twin())
    with pytest.raises(TwinCliError, match="has not reacted within 30 s"):
        begin(api)
    assert names.FINETUNE_NOW_ANNOTATION in api.asked


def test_following_tells_what_changes_and_ends_with_the_run() -> None:
    steps = iter([training(), training(), judged()])

    def react(api: MemoryApi) -> None:
        if (following := next(steps, None)) is not None:
            api.put(following)

    api = MemoryApi(training(), react=react)
    told: list[str] = []
    found = follow(
        api, namespace="clinic", run="dr-gurung-3", clock=api.clock, on_change=lambda r: told.append(progress_text(r))
    )
    assert found["status"]["verdict"] == "Promote"
    assert told[0] == "training · 40% · step 4 of 10 · loss 0.900 · about 5 min left"
    assert len(told) == 2, "what stays the same is not told again"


def test_a_run_that_is_deleted_meanwhile_is_told() -> None:
    api = MemoryApi(tuned_twin())
    with pytest.raises(TwinCliError, match="deleted before it ended"):
        follow(api, namespace="clinic", run="gone", clock=api.clock, on_change=lambda _run: None)


def test_an_api_server_that_is_away_for_a_moment_does_not_end_the_following() -> None:
    def react(api: MemoryApi) -> None:
        api.down = 5 < api.time < 60
        if api.time > 60:
            api.put(judged())

    api = MemoryApi(training(), react=react)
    follow(api, namespace="clinic", run="dr-gurung-3", clock=api.clock, on_change=lambda _run: None)
    assert api.time > 60


def test_what_has_started_is_followed_rather_than_what_waits() -> None:
    api = MemoryApi(tuned_twin(), training(), run("dr-gurung-4"))
    assert to_follow(api, namespace="clinic", name="dr-gurung") == "dr-gurung-3"
    assert to_follow(MemoryApi(tuned_twin(), judged()), namespace="clinic", name="dr-gurung") is None
