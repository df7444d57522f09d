"""Whether a twin's answers changed is judged against its own noise, and silence never counts as unchanged."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from neurons.agent.engine import EngineClient
from tests.gpu.likelihoods import Asked, Likelihoods, compare, figures, medians
from tests.standin import BASE, StandIn, write_adapter

USUAL = [
    {"dr-one": (-1.0, -2.0), "dr-two": (-0.5, -3.0)},
    {"dr-one": (-1.0, -2.0), "dr-two": (-0.5, -3.0)},
    {"dr-one": (-1.02, -2.0), "dr-two": (-0.5, -3.0)},
    {"dr-one": (-1.0, -2.0), "dr-two": (-0.5, -3.04)},
]


def test_the_second_half_of_what_was_before_says_what_is_noise() -> None:
    found = compare(USUAL, USUAL)
    assert max(found.before) == pytest.approx(0.02)
    assert found.bound == pytest.approx(0.04)
    assert found.before_place == pytest.approx(0.04)
    assert not found.changed
    assert found.unanswered == 0


def test_a_twin_beyond_twice_the_noise_has_changed() -> None:
    found = compare(USUAL, [{"dr-one": (-1.0, -2.0), "dr-two": (-0.5, -3.09)}])
    assert [twin for twin, _ in found.changed] == ["dr-two"]
    assert compare(USUAL, [{"dr-one": (-1.0, -2.0), "dr-two": (-0.5, -3.07)}]).changed == ()


def test_no_answer_is_counted_and_never_passes_for_an_unchanged_one() -> None:
    found = compare(USUAL, [{"dr-one": (-1.0, math.nan), "dr-two": (-0.5, -3.0)}])
    assert found.unanswered == 1
    assert len(found.later) == 1
    rows = list(figures("here", found, USUAL[0], medians(USUAL[:2])))
    assert [row.met for row in rows if "without an answer" in row.figure] == [False]


def test_without_enough_rounds_or_with_gaps_in_them_nothing_is_usual() -> None:
    with pytest.raises(ValueError, match="rounds"):
        compare(USUAL[:3], USUAL)
    with pytest.raises(ValueError, match="dr-one"):
        compare([{**USUAL[0], "dr-one": (math.nan, -2.0)}, *USUAL[1:]], USUAL)


async def test_a_real_server_is_asked_each_twin_by_its_own_name(tmp_path: Path) -> None:
    places = (((1, 2), 3), ((1, 2, 3), 4))
    socket = tmp_path / "vllm.sock"
    async with StandIn(socket=socket):
        adapter = write_adapter(tmp_path / "store", "dr-one")
        async with EngineClient(socket=socket, poll_seconds=5, load_seconds=5, request_seconds=5) as client:
            await client.load("dr-one-1", adapter.folder)
        async with Likelihoods(socket, {"dr-one": Asked("dr-one-1", places)}) as asking:
            found = await asking.rounds(over=lambda: True, least=2)
            base = await asking.round(BASE)
            assert not asking.errors
        async with Likelihoods(socket, {"dr-two": Asked("dr-two-1", places)}) as asking:
            (missing,) = await asking.rounds(over=lambda: True, least=1)
            assert asking.errors
    assert found[0] == found[1]
    assert found[0]["dr-one"] != base["dr-one"]
    assert all(math.isnan(value) for value in missing["dr-two"])
