"""What Prometheus answers about a pool's load is checked at the door: what can't be was not measured."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twin_operator.domain.scaling_signals import Look, Place, looks, queries
from twin_operator.engine.prometheus import Sample

PLACE = Place(
    engines=frozenset({"e1", "e2"}), miners=frozenset({"m1"}), expected=frozenset({"e1", "e2", "m1"}), base="smollm2"
)
PARTS = tuple(queries(""))


def answers(**parts: list[tuple[Any, float]]) -> dict[str, list[Sample]]:
    """All parts; those that are not named have a figure for each pod."""
    usual: dict[str, list[tuple[Any, float]]] = {
        "running": [("e1", 3.0), ("e2", 2.0)], "waiting": [("e1", 1.0), ("e2", 0.0)],
        "kv": [("e1", 0.5), ("e2", 0.25)], "held": [("m1", 2.0)], "asked": [("m1", 40.0)],
        "in_flight": [({"pod": "m1", "twin": "dr-a", "version": "dr-a-aaaaaaaa"}, 2.0)],
        "sampled": [("e1", 100.0), ("e2", 101.0), ("m1", 99.0)],
    }  # fmt: skip
    return {
        part: [
            Sample(labels={"pod": pod} if isinstance(pod, str) else pod, value=value)
            for pod, value in (parts.get(part, figures))
        ]
        for part, figures in usual.items()
    }


def look(**parts: list[tuple[Any, float]]) -> Look | None:
    return looks(answers(**parts), {"p": PLACE})["p"]


def test_a_look_is_the_sum_over_the_pools_pods() -> None:
    assert look() == Look(
        sampled_at=101.0, waiting=3.0, held=2.0, running=5.0, kv_percent=75.0, kv_fullest=50.0, adapters=1,
        asked={"m1": 40.0}, measured=2, missing=(),
    )  # fmt: skip


def test_pods_that_are_gone_or_anothers_count_for_nothing() -> None:
    found = look(running=[("e1", 3.0), ("e2", 2.0), ("e0-gone", 90.0)], held=[("m1", 2.0), ("other-miner", 70.0)])
    assert found is not None
    assert (found.running, found.held) == (5.0, 2.0)


def test_a_figure_that_cannot_be_was_not_measured_and_its_pod_is_missing() -> None:
    for odd in (-1.0, 1e300):
        found = look(waiting=[("e1", odd), ("e2", 0.0)])
        assert found is not None
        assert (found.measured, found.missing, found.running) == (1, ("e1",), 2.0)


def test_a_cache_that_is_more_than_full_is_none() -> None:
    found = look(kv=[("e1", 70.0), ("e2", 0.25)])
    assert found is not None
    assert (found.kv_percent, found.kv_fullest, found.missing) == (25.0, 25.0, ("e1",))


def test_an_engine_that_knows_no_cache_is_not_missed_where_none_does() -> None:
    found = look(kv=[])
    assert found is not None
    assert (found.kv_fullest, found.missing) == (None, ())


def test_a_counter_that_is_not_there_is_not_zero() -> None:
    found = look(asked=[("m1", -1.0)])
    assert found is not None
    assert found.asked == {}


def test_of_several_figures_of_one_pod_the_highest_counts() -> None:
    found = look(running=[("e1", 9.0), ("e1", 3.0), ("e2", 2.0)])
    assert found is not None
    assert found.running == 11.0


def test_the_base_model_takes_no_slot_and_two_versions_of_a_twin_take_two() -> None:
    labels = [("dr-a", "dr-a-aaaaaaaa"), ("dr-a", "dr-a-bbbbbbbb"), ("dr-b", "smollm2")]
    flying = [({"pod": "m1", "twin": twin, "version": version}, 1.0) for twin, version in labels]
    found = look(in_flight=[*flying, ({"pod": 7, "version": []}, 1.0)])
    assert found is not None
    assert found.adapters == 2


def test_without_any_sample_nothing_is_known() -> None:
    assert looks({part: [] for part in PARTS}, {"p": PLACE}) == {"p": None}


def test_a_pool_that_sleeps_is_known_by_its_miners() -> None:
    asleep = Place(engines=frozenset(), miners=frozenset({"m1"}), expected=frozenset({"m1"}))
    found = looks(answers(), {"p": asleep})["p"]
    assert found is not None
    assert (found.waiting, found.held, found.running, found.missing) == (2.0, 2.0, 0.0, ())


def test_one_set_of_questions_is_for_all_pools_and_asks_for_fresh_samples_only() -> None:
    asked = queries('namespace="clinic"')
    assert len(asked) == 7
    for part, promql in asked.items():
        assert 'namespace="clinic"' in promql
        assert part == "sampled" or "time() - timestamp" in promql


samples = st.lists(
    st.builds(
        Sample,
        labels=st.dictionaries(
            st.sampled_from(["pod", "twin", "version", "x"]),
            st.one_of(st.sampled_from(["e1", "m1", "e9", ""]), st.integers(), st.none()),  # type: ignore[arg-type]
        ),
        value=st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=6,
)


@given(found=st.fixed_dictionaries(dict.fromkeys(PARTS, samples)))
def test_whatever_is_answered_makes_a_sound_look_or_none(found: dict[str, list[Sample]]) -> None:
    made = looks(found, {"p": PLACE})["p"]
    if made is not None:
        assert min(made.waiting, made.held, made.running, made.kv_percent, made.adapters, made.sampled_at) >= 0
        assert made.kv_fullest is None or made.kv_fullest <= 100
        assert set(made.missing) <= PLACE.expected
