"""What counts as a training that has come apart. None of it waits for a processor's arithmetic to overflow."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest

from neurons.trainer.divergence import Watch, risen
from neurons.trainer.errors import Diverged

NOT_FINITE = [math.nan, math.inf, -math.inf]


def watch(*first_lines: float) -> Watch:
    """A training whose first lines have these losses, each time they are looked at."""
    values: Iterator[float] = itertools.chain(first_lines, itertools.repeat(first_lines[-1]))
    return Watch(of=30, loss_of_first_lines=lambda: next(values))


def test_an_honest_step_is_let_through() -> None:
    watch(4.5).step(1, losses=[4.4], gradient_norm=3.0)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_loss_that_is_no_finite_number(value: float) -> None:
    with pytest.raises(Diverged, match=r"the loss is .* at step 7 of 30"):
        watch(4.5).step(7, losses=[4.4, value], gradient_norm=1.0)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_gradient_that_is_no_finite_number(value: float) -> None:
    with pytest.raises(Diverged, match=r"gradient .* at step 7 of 30"):
        watch(4.5).step(7, losses=[4.4], gradient_norm=value)


def test_first_lines_that_became_much_less_probable_by_learning_them() -> None:
    with pytest.raises(Diverged, match=r"rose from 4\.50 to 7\.10 nats at step 30 of 30"):
        watch(4.5, 7.1).compare(30)


def test_first_lines_that_became_a_little_less_probable_are_no_divergence() -> None:
    watch(0.4, 1.9).compare(30)


def test_losses_that_rise_and_stay_up_are_found_out_before_the_end() -> None:
    ruined = watch(2.0, 9.0)
    losses = [2.0, 1.9]
    for number in range(3, 5):
        losses.append(9.0)
        ruined.step(number, losses=losses, gradient_norm=1.0)
    losses += [9.0, 9.0]
    with pytest.raises(Diverged, match="at step 6 of 30"):
        ruined.step(6, losses=losses, gradient_norm=1.0)


def test_harder_lines_after_easy_ones_are_no_divergence() -> None:
    """The first batch was easy: all later losses are higher, and the first lines have become more probable."""
    honest = watch(0.5, 0.2)
    losses: list[float] = []
    for number in range(1, 31):
        losses.append(0.5 if number == 1 else 4.5)
        honest.step(number, losses=losses, gradient_norm=1.0)
    honest.compare(30)


def outliers(draw: random.Random) -> Sequence[float]:
    """A falling loss with a fifth of the batches far off."""
    return [4.0 * 0.95**step + (6.0 if step and draw.random() < 0.2 else 0.0) for step in range(40)]


def test_single_batches_that_are_far_off_raise_no_suspicion() -> None:
    draw = random.Random(3)
    suspected = sum(risen(outliers(draw)[:count]) for _ in range(50) for count in range(1, 41))
    assert suspected < 0.1 * 50 * 40
    assert not any(risen([4.0, 4.0, 4.0, 4.0, 11.0, 11.0][:count]) for count in range(1, 7))
