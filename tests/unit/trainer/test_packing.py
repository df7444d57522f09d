"""Batches as numbers: their order, and the few shapes that they are filled up to."""

from __future__ import annotations

import random

import pytest

from neurons.trainer.packing import IGNORED, Batch, Example, common_size, pack, pack_to_common_shape


def example(length: int, *, learned: int, first: int = 10) -> Example:
    tokens = tuple(range(first, first + length))
    return Example(token_ids=tokens, labels=(*[IGNORED] * (length - learned), *tokens[length - learned :]))


def parts(batch: Batch) -> tuple[tuple[int, ...], ...]:
    found, start = [], 0
    for size in (batch.length, batch.length, batch.examples + 1, batch.kept, batch.kept):
        found.append(batch.numbers[start : start + size])
        start += size
    assert start == len(batch.numbers)
    return tuple(found)


def test_examples_follow_one_another_and_positions_begin_anew() -> None:
    tokens, positions, bounds, kept, targets = parts(pack([example(3, learned=1), example(4, learned=2, first=50)]))
    assert tokens == (10, 11, 12, 50, 51, 52, 53)
    assert positions == (0, 1, 2, 0, 1, 2, 3)
    assert bounds == (0, 3, 7)
    assert kept == (1, 4, 5)  # each predicts the token after it
    assert targets == (12, 52, 53)


def test_what_fills_up_is_an_example_of_its_own_of_which_nothing_is_learned() -> None:
    batch = pack_to_common_shape([example(100, learned=60)])
    tokens, positions, bounds, kept, targets = parts(batch)
    assert (batch.examples, batch.length, batch.longest, batch.kept) == (2, 128, 128, 64)
    assert (tokens[100:], positions[100:], bounds) == ((0,) * 28, tuple(range(28)), (0, 100, 128))
    assert kept[60:] == (0,) * 4
    assert targets[60:] == (IGNORED,) * 4


def test_a_batch_that_has_a_common_length_gets_an_example_without_tokens() -> None:
    tokens, _, bounds, *_ = parts(pack_to_common_shape([example(128, learned=96)]))
    assert (len(tokens), bounds) == (128, (0, 128, 128))


def test_batches_of_one_length_have_one_shape_whatever_is_in_them() -> None:
    one = pack_to_common_shape([example(600, learned=330), example(100, learned=90)])
    other = pack_to_common_shape([example(350, learned=300), example(400, learned=380)])
    assert one.shape == other.shape
    assert one.longest >= 600


@pytest.mark.parametrize(("tokens", "length"), [(1, 128), (129, 256), (1024, 1024), (1025, 1152), (2049, 2304)])
def test_lengths_are_few(tokens: int, length: int) -> None:
    assert pack_to_common_shape([example(tokens, learned=1)]).length == length


def test_little_is_filled_up_and_everything_learned_is_kept() -> None:
    draw = random.Random(7)
    for _ in range(200):
        size, learned = draw.randint(1024, 20_000), draw.randint(1, 1000)
        exact, common = pack([example(size, learned=learned)]), pack_to_common_shape([example(size, learned=learned)])
        assert exact.length <= common.length <= exact.length * 9 / 8
        *_, targets = parts(common)
        assert [target for target in targets if target != IGNORED] == list(parts(exact)[4])


def test_the_size_that_a_batch_will_have_is_known_without_packing_it() -> None:
    draw = random.Random(7)
    for _ in range(200):
        sizes = [draw.randint(1, 2000) for _ in range(draw.randint(1, 8))]
        batch = [example(size, learned=draw.randint(0, size - 1)) for size in sizes]
        packed = pack_to_common_shape(batch)
        assert common_size(batch) == (packed.length, packed.kept)
