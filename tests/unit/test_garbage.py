"""The collector: what was set aside is not walked again, and goes all the same when nobody has it any more."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from neurons import garbage as of_neurons
from tests.unit.operator.played import Played
from twin_operator.engine import garbage as of_operator


class Thing:
    """What can be looked for."""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    callbacks = list(gc.callbacks)
    yield
    gc.callbacks[:] = callbacks
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def walked(what: object) -> bool:
    return any(each is what for each in gc.get_objects())


def test_what_the_operator_holds_is_not_walked_again_and_is_freed_when_it_is_dropped() -> None:
    held = [Thing()]
    assert walked(held)
    of_operator.collect_seldom()
    of_operator.set_aside()
    assert not walked(held)
    seen = weakref.ref(held[0])
    held.clear()
    assert seen() is None
    cycle = Thing()
    cycle.itself = cycle  # type: ignore[attr-defined]
    seen = weakref.ref(cycle)
    del cycle
    of_operator.set_aside()
    assert seen() is None


async def test_a_neuron_sets_aside_what_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_neurons, "_FIRST_SECONDS", 0.01)
    before = gc.get_threshold()
    async with of_neurons.set_aside():
        assert gc.get_threshold() != before
        held = [Thing()]
        async with asyncio.timeout(20):
            while walked(held):
                await asyncio.sleep(0.01)


def become_a_cycle(thing: Thing) -> weakref.ref[Thing]:
    """As a request does that breaks off: its error holds the frames that hold it."""
    thing.itself = thing  # type: ignore[attr-defined]
    return weakref.ref(thing)


async def test_what_became_a_cycle_after_the_operator_set_it_aside_goes_in_the_end() -> None:
    process, under_way = Played(resync_seconds=0.001).process, Thing()
    of_operator.set_aside()
    seen = become_a_cycle(under_way)
    del under_way
    resync = asyncio.create_task(process._resync())
    async with asyncio.timeout(20):
        while seen() is not None:
            await asyncio.sleep(0.01)
    resync.cancel()


async def test_what_became_a_cycle_after_a_neuron_set_it_aside_goes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_neurons, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(of_neurons, "_AGAIN_SECONDS", 0.001)
    under_way = Thing()
    async with of_neurons.set_aside():
        seen = become_a_cycle(under_way)
        del under_way
        async with asyncio.timeout(20):
            while seen() is not None:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("module", ["neurons.miner", "neurons.agent", "neurons.validator.gateway"])
def test_processes_that_patients_wait_for_do_it(module: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}.__main__ as it; print(it.set_aside.__module__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "neurons.garbage"


async def test_what_a_full_collection_has_left_is_walked_by_no_other() -> None:
    of_operator.collect_seldom()
    held = [Thing()]
    gc.collect(1)
    assert walked(held)
    gc.collect()
    assert not walked(held)
    gc.callbacks.clear()
    async with of_neurons.set_aside():
        held = [Thing()]
        gc.collect()
        assert not walked(held)
    held = [Thing()]
    gc.collect()
    assert walked(held)
