"""Whose weights they are, decided from numbers alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bettertherapy_api.manifest import Fingerprint, Probe
from neurons.agent.fingerprint import ROUNDS, Evidence, Opinion, Recorded, judge, leaning, mean_difference, rounds
from neurons.agent.known_answers import Calibration, is_spoilt
from tests.bench.fingerprint_verdicts import FORMATS, decide, pairs_of

PLACES = 48
PAIRS: Final = Path(__file__).parent / "data" / "fingerprint_pairs.json.gz"
"""Measured by `tests.bench.fingerprints` on a GPU: 4 doctors, 3 nights each."""


def recorded(*, margin: float, seed: int = 0) -> list[Recorded]:
    """What a trainer records: the child is sure, parent and base are less so by about `margin` and a nat."""
    draw = random.Random(seed)
    entries = []
    for i in range(PLACES):
        child = -0.5 * draw.random()
        parent = child - margin * (0.5 + draw.random())
        entries.append(Recorded(((1, i), 2), child, parent, child - 0.5 - draw.random()))
    return entries


def measured(values: Sequence[float], *, shift: Sequence[float], own: float = 0.01) -> tuple[float, ...]:
    """What a pool says of weights with these values: the base's shift in part, and noise of its own."""
    draw = random.Random(7)
    return tuple(v + 0.5 * s + draw.gauss(0, own) for v, s in zip(values, shift, strict=True))


def evidence(entries: Sequence[Recorded], values: Sequence[float], *, quantized: float) -> Evidence:
    draw = random.Random(3)
    shift = [draw.gauss(0, quantized) for _ in entries]
    bare = [(e.base or 0.0) + s for e, s in zip(entries, shift, strict=True)]
    return Evidence(entries, measured(values, shift=shift), bare, noise=0.01)


@pytest.mark.parametrize("quantized", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("margin", [0.3, 0.6, 1.2])
def test_child_parent_and_base_are_told_apart(margin: float, quantized: float) -> None:
    entries = recorded(margin=margin)
    for opinion, values in (
        (Opinion.CHILD, [e.child for e in entries]),
        (Opinion.PARENT, [e.parent or 0.0 for e in entries]),
    ):
        found = judge(evidence(entries, values, quantized=quantized))
        assert found is opinion or (margin <= quantized and found is Opinion.UNSURE)
    base = evidence(entries, [e.child for e in entries], quantized=quantized)
    assert judge(Evidence(entries, base.bare, base.bare, noise=0.01)) is Opinion.BASE


@pytest.mark.parametrize("how", FORMATS)
def test_real_weights_on_real_and_quantized_bases(how: str) -> None:
    """SmolLM2 with 12 trained adapters, measured: right weights are never blamed, no relative passes where it shows."""
    for pair in pairs_of(PAIRS):
        opinions = {who: decide(pair, how, who)[0] for who in pair["measured"][how]}
        assert opinions["child"] in ((Opinion.CHILD, Opinion.UNSURE) if how == "int4" else (Opinion.CHILD,))
        assert opinions["base"] is Opinion.BASE
        assert opinions.get("parent", Opinion.PARENT) in (Opinion.PARENT, Opinion.UNSURE)
        if how == "bf16":
            assert list(opinions.values()).count(Opinion.CHILD) == 1


def test_somebody_elses_weights_are_nobodys_that_we_know() -> None:
    entries = recorded(margin=0.5)
    draw = random.Random(1)
    values = [-6 * draw.random() for _ in entries]
    assert judge(evidence(entries, values, quantized=0.01)) is Opinion.OTHER


@pytest.mark.parametrize("left", [0.1, 0.3, 0.5, 0.7])
def test_weights_that_do_a_part_of_what_was_trained_are_not_the_childs(left: float) -> None:
    """As of an adapter of a smaller base model, which vLLM 0.26 puts into a corner of its own matrices."""
    for pair in pairs_of(PAIRS):
        measured = pair["measured"]["bf16"]
        part = [b + left * (c - b) for b, c in zip(measured["base"], measured["child"], strict=True)]
        opinion, _ = decide({**pair, "measured": {"bf16": {"base": measured["base"], "part": part}}}, "bf16", "part")
        effect = mean_difference(pair["recorded"]["child"], pair["recorded"]["base"])
        doubted = (Opinion.OTHER, Opinion.PARENT, Opinion.BASE)
        assert opinion in (doubted if effect > 0.3 else (*doubted, Opinion.UNSURE))


def test_nobody_is_blamed_by_a_few_places() -> None:
    entries = recorded(margin=0.5)[:4]
    values = [-6.0 for _ in entries]
    few = evidence(entries, values, quantized=0.01)
    assert judge(replace(few, complete=False)) is Opinion.UNSURE
    assert judge(few) is Opinion.OTHER


def test_a_parent_that_is_the_childs_twin_leaves_a_doubt() -> None:
    entries = recorded(margin=0.0001)
    assert judge(evidence(entries, [e.child for e in entries], quantized=0.1)) is Opinion.UNSURE


def test_without_a_parent_the_base_is_the_only_rival() -> None:
    entries = [Recorded(e.position, e.child, None, e.base) for e in recorded(margin=0.5)]
    assert judge(evidence(entries, [e.child for e in entries], quantized=0.1)) is Opinion.CHILD


def test_the_places_that_tell_most_are_asked_first() -> None:
    probe = Probe(token_ids=tuple(range(40)), start=20, child=(-0.1,) * 20, parent=(-0.2,) * 20,
                  base=tuple(-0.2 - i / 10 for i in range(20)))  # fmt: skip
    far = Probe(token_ids=tuple(range(50, 70)), start=8, child=(-0.1,) * 12, parent=(-3.0,) * 12, base=(-3.0,) * 12)
    fingerprint = Fingerprint(token_ids=(1, 2), logprobs=(0.0,), probes=(probe, far))
    first, second, rest = rounds(fingerprint)
    assert (len(first), len(second)) == (ROUNDS[0], ROUNDS[1] - ROUNDS[0])
    assert {entry.position[1] for entry in (*first, *second)} == set(range(58, 70))
    assert len(rest) == 20
    assert first[0].position[0] == tuple(range(50, first[0].position[1]))


def test_an_older_fingerprint_is_asked_from_its_beginning() -> None:
    fingerprint = Fingerprint(token_ids=tuple(range(60)), logprobs=(-1.0,) * 59)
    first, rest = rounds(fingerprint)
    assert [len(entry.position[0]) for entry in first] == list(range(1, 9))
    assert len(rest) == 24


@pytest.mark.parametrize(
    ("values", "spoilt"),
    [((-1.0, -2.0), False), ((-1.1, -2.1), False), ((-4.0, -5.0), True), ((math.nan, -2.0), True)],
)
def test_known_answers(values: tuple[float, ...], *, spoilt: bool) -> None:
    assert is_spoilt(Calibration(1, (-1.0, -2.0, -3.0), 0.01), values) is spoilt


def test_a_noisy_pool_is_allowed_its_noise() -> None:
    assert not is_spoilt(Calibration(1, (-1.0, -2.0), 0.2), (-2.0, -3.0))


def test_a_difference_of_unequal_lengths_or_no_numbers_is_infinite() -> None:
    assert mean_difference((1.0,), ()) == math.inf
    assert mean_difference((math.nan,), (1.0,)) == math.inf
    assert mean_difference((-math.inf,), (-1.0,)) == 100.0


def test_rounding_takes_nothing_towards_the_record() -> None:
    recorded = [Recorded(((1,), place), child=-1.0, base=-3.0 + place % 3) for place in range(48)]
    draw = random.Random(1)
    bare = [-2.5 + place % 3 for place in range(48)]
    rounded = [value + draw.uniform(-1, 1) for value in bare]
    assert abs(leaning(recorded, rounded, bare)) < 0.2
    loaded = [b + 0.6 * (e.child - (e.base or 0.0)) + draw.uniform(-1, 1) for e, b in zip(recorded, bare, strict=True)]
    assert leaning(recorded, loaded, bare) > 0.4
    assert leaning(recorded[:1], [-1.0], [-1.0]) == 0.0
