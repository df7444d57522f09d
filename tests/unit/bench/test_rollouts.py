"""When all traffic had left a version, by the answers; and which answers came too early."""

from __future__ import annotations

from tests.bench.clients import Answer
from tests.bench.rollouts import Change, Kind, RolloutRun

OLD, NEW = "sha256:old", "sha256:new"


def answers(*found: tuple[float, str]) -> list[Answer]:
    return [Answer(sent, sent + 0.5, f"dr-{digest[7:]}", digest, "p1") for sent, digest in found]


def rollback(decided: float) -> Change:
    return Change(kind=Kind.ASKED, leaves=NEW, stays=OLD, decided=decided, trained=0.0, said=decided)


def test_traffic_has_left_with_the_first_request_after_the_last_one_on_it() -> None:
    seen = answers((1.0, NEW), (1.1, OLD), (2.1, NEW), (2.2, OLD), (2.3, NEW), (2.4, OLD), (2.5, OLD))
    assert rollback(2.0).traffic_at(seen) == 2.4


def test_it_is_never_before_the_decision_and_unknown_without_requests() -> None:
    seen = answers((1.0, NEW), (1.1, OLD), (2.2, OLD))
    assert rollback(2.0).traffic_at(seen) == 2.2
    assert rollback(3.0).traffic_at(seen) is None


def test_a_promotion_ends_after_its_last_step() -> None:
    change = Change(
        kind=Kind.PROMOTED, leaves=OLD, stays=NEW, decided=1.0, trained=0.5, steps=(1.2, 1.9, 3.1), said=3.2
    )  # fmt: skip
    seen = answers((1.3, OLD), (1.4, NEW), (3.0, NEW), (3.3, NEW))
    assert change.traffic_at(seen) == 3.3
    assert round(change.spent_in_steps(), 6) == 1.7  # 0.7 of the first second, 1.0 of the 1.2 that the second took


def test_an_answer_is_unverified_until_its_pod_has_said_so() -> None:
    run = RolloutRun("engine", answers=answers((1.0, NEW), (2.0, NEW), (1.0, OLD)))
    run.verified = {("p1", "dr-new"): 1.8, ("p1", "dr-old"): 0.1}
    assert run.unverified() == 1
    run.verified.pop(("p1", "dr-old"))
    assert run.unverified() == 2
