"""Likelihood: the same choice as lm-evaluation-harness' arithmetic where one continuation is likelier, none where several are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurons.scoring.likelihood import Continuation, LikelihoodError, Norm, compare, is_right, likeliest

CONTINUATIONS = st.lists(
    st.builds(Continuation, text=st.text(min_size=1, max_size=40).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)),
              logprob=st.floats(-500, 0)),
    min_size=2, max_size=6,
)  # fmt: skip


def told(*pairs: tuple[str, float]) -> list[Continuation]:
    return [Continuation(text=text, logprob=logprob) for text, logprob in pairs]


@given(CONTINUATIONS)
def test_the_choice_is_that_of_the_published_arithmetic(continuations: list[Continuation]) -> None:
    sums = np.array([each.logprob for each in continuations])
    for norm, lengths in (
        (Norm.SUM, [1.0 for _ in continuations]),
        (Norm.CHARACTERS, [float(len(each.text)) for each in continuations]),
        (Norm.BYTES, [float(len(each.text.encode("utf-8"))) for each in continuations]),
    ):
        values = sums / np.array(lengths)
        chosen = likeliest(continuations, norm)
        assert chosen == (int(np.argmax(values)) if np.count_nonzero(values == values.max()) == 1 else None)


def test_length_is_what_the_norms_differ_in() -> None:
    choices = told(("no", -4.0), ("एम्बुलेन्स बोलाउनुहोस्", -22.0), ("call an ambulance now", -20.0))

    assert likeliest(choices, Norm.SUM) == 0
    assert likeliest(choices, Norm.CHARACTERS) == 2
    assert likeliest(choices, Norm.BYTES) == 1
    assert is_right(choices, 1, Norm.BYTES)


def test_nobody_wins_among_equals_wherever_the_right_one_stands() -> None:
    equal = told(("safe", -3.0), ("risk", -3.0))

    assert likeliest(equal, Norm.BYTES) is None
    assert not is_right(equal, 0, Norm.BYTES)
    assert not is_right(equal, 1, Norm.BYTES)
    preference = compare(equal[:1], equal[1:])
    assert (preference.share, preference.margin, preference.passed) == (0.5, 0.0, False)


def test_the_likeliest_wording_decides_and_the_share_tells_of_all() -> None:
    preference = compare(told(("call now", -4.0), ("ring 112", -40.0)), told(("sleep it", -16.0), ("wait a b", -8.0)))

    assert preference.passed
    assert preference.margin == pytest.approx((-4 + 8) / 8)
    assert preference.share == 0.5
    assert not compare(told(("call now", -9.0)), told(("sleep it", -16.0), ("wait a b", -8.0))).passed


def test_what_cant_be_said_is_less_likely_than_anything() -> None:
    assert likeliest(told(("a", -math.inf), ("b", -900.0)), Norm.BYTES) == 1
    never = told(("a", -math.inf), ("b", -math.inf))
    assert likeliest(never, Norm.BYTES) is None
    assert not compare(never[:1], never[1:]).passed


@pytest.mark.parametrize("broken", [
    lambda: Continuation(text="", logprob=-1.0), lambda: Continuation(text="a", logprob=math.nan),
    lambda: Continuation(text="a", logprob=0.5), lambda: Continuation(text="a", logprob=math.inf),
    lambda: likeliest(told(("a", -1.0)), Norm.SUM), lambda: likeliest([], Norm.SUM),
    lambda: is_right(told(("a", -1.0), ("b", -2.0)), 2, Norm.SUM), lambda: is_right(told(("a", -1.0), ("b", -2.0)), -1, Norm.SUM),
    lambda: compare([], told(("a", -1.0))), lambda: compare(told(("a", -1.0)), []),
])  # fmt: skip
def test_nothing_is_concluded_from_what_is_no_measurement(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(LikelihoodError):
        broken()


def test_half_a_sign_is_refused_in_words() -> None:
    with pytest.raises(LikelihoodError, match="half of a sign"):
        Continuation(text="rest \ud83d", logprob=-1.0)
