"""How engines are started for their adapters: what fits, when it takes effect, and that it comes to rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettertherapy_api.lora_targets import LoraTargets
from bettertherapy_api.miner_pool import LORA_RANKS, Engine, EngineTuning
from twin_operator.domain.reasons import Reason
from twin_operator.domain.tuning import (
    DWELL,
    INTERVAL,
    LEAST_SLOTS,
    MEASURED,
    MOST_SLOTS,
    REMEMBERED,
    Decision,
    Engines,
    Memory,
    Needs,
    decide,
    memory_of,
    tuning_finding,
    tuning_status,
)

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
AUTO = {"maxLoras": "Auto", "maxLoraRank": "Auto", "loraTargets": "Auto"}
ALL, ATTENTION = LoraTargets.ALL_LINEAR, LoraTargets.ATTENTION


def spec(**fields: Any) -> Engine:
    return Engine.model_validate(fields)


def holds(adapters: int, *, rank: int = 16, beyond: int | None = None, **more: Any) -> Needs:
    """Return the needs of a pod with an adapter a twin, which change all linear layers."""
    return Needs(
        adapters=adapters, twins=adapters, rank=rank if adapters else 0,
        beyond=adapters if beyond is None else beyond, **more,
    )  # fmt: skip


@dataclass
class Fleet:
    """A pool's engines through time, looked at every ten minutes as a resync does; what is decided is done at once."""

    spec: Engine = field(default_factory=spec)
    running: EngineTuning | None = None
    memory: Memory = field(default_factory=Memory)
    now: datetime = NOW
    generation: int = 1
    restarts: list[datetime] = field(default_factory=list)
    """For what they lacked."""
    last: Decision | None = None

    def look(self, needs: Needs, *, seconds: float = 600, **seen: bool) -> Decision:
        self.now += timedelta(seconds=seconds)
        made = decide(
            self.spec, needs, Engines(running=self.running, **seen), self.memory,
            generation=self.generation, now=self.now,
        )  # fmt: skip
        self.memory = made.memory
        if made.restarts and not seen.get("unready"):
            self.memory = replace(made.memory, restarted=self.now)
            self.restarts.append(self.now)
        # What is kept goes by way of the status.
        self.memory = memory_of(tuning_status(replace(made, memory=self.memory), said="…"))
        self.running, self.last = made.tuning, made
        return made


def started(needs: Needs, **fields: Any) -> EngineTuning:
    return Fleet(spec=spec(**fields)).look(needs).tuning


# -- what fits


@pytest.mark.parametrize(
    ("twins", "slots"), [(0, 8), (1, 8), (8, 8), (9, 16), (33, 64), (64, 64), (65, 64), (4000, 64)]
)
def test_slots_are_a_power_of_two_that_the_twins_fit_in(twins: int, slots: int) -> None:
    assert started(holds(twins)).max_loras == slots


def test_a_number_in_the_spec_counts_whatever_is_held() -> None:
    assert started(holds(64), maxLoras=5).max_loras == 5
    assert started(holds(64, rank=8), maxLoraRank=128).max_lora_rank == 128


def test_where_nothing_was_measured_slots_stay_eight() -> None:
    assert started(holds(64), device="CPU").max_loras == 8


def test_a_batch_holds_no_more_adapters_than_requests() -> None:
    assert started(holds(64), args=["--max-num-seqs=20"]).max_loras == 20
    assert started(holds(64), args=["--max-num-seqs=20", "--max_num_seqs=40"]).max_loras == 40
    assert started(holds(64), args=["--max-num-batched-tokens=32"]).max_loras == 32


@pytest.mark.parametrize(("adapters", "at_hand"), [(0, 64), (64, 64), (65, 128), (1000, 1024)])
def test_all_adapters_that_are_held_have_room_in_memory(adapters: int, at_hand: int) -> None:
    assert started(holds(adapters)).max_cpu_loras == at_hand


def test_memory_is_never_for_fewer_than_the_slots() -> None:
    assert started(holds(1), maxLoras=200).max_cpu_loras == 256


def test_the_users_own_room_in_memory_bounds_the_slots() -> None:
    found = started(holds(64), args=["--max_cpu_loras=32"])
    assert (found.max_cpu_loras, found.max_loras) == (32, 32)


@pytest.mark.parametrize(("rank", "started_for"), [(0, 16), (4, 16), (16, 16), (17, 32), (128, 128), (200, 256)])
def test_an_automatic_rank_is_the_next_that_engines_know(rank: int, started_for: int) -> None:
    assert started(holds(1, rank=rank), maxLoraRank="Auto").max_lora_rank == started_for


def test_kernels_are_sized_by_the_batch_where_there_are_cuda_graphs() -> None:
    assert started(holds(1)).specialize_active_lora
    assert not started(holds(1), device="CPU").specialize_active_lora
    assert not started(holds(1), args=["--enforce_eager"]).specialize_active_lora
    assert started(holds(1), args=["--no-enforce-eager"]).specialize_active_lora


@pytest.mark.parametrize(
    ("choice", "needs", "wrapped"),
    [
        ("AllLinear", holds(4, beyond=0), ALL),
        ("Attention", holds(4, beyond=4), ATTENTION),
        ("Auto", holds(4, beyond=0), ATTENTION),
        ("Auto", holds(4, beyond=1), ALL),
        ("Auto", holds(4, beyond=0, unread=1), ALL),
        ("Auto", holds(0), ALL),
    ],
)
def test_only_what_all_adapters_are_known_to_leave_alone_is_not_wrapped(
    choice: str, needs: Needs, wrapped: LoraTargets
) -> None:
    assert started(needs, loraTargets=choice).lora_targets is wrapped


# -- when it takes effect


def test_slots_that_lack_restart_the_engines_after_a_while_and_once_a_day() -> None:
    fleet = Fleet()
    fleet.look(holds(8))
    made = fleet.look(holds(30))
    assert (made.tuning.max_loras, made.wanted.max_loras, made.due) == (8, 32, fleet.now + DWELL)
    assert "30 twins share 8 LoRA slots, 32 would do" in made.lacks
    made = fleet.look(holds(30))
    assert (made.tuning.max_loras, made.restarts) == (32, True)
    first = fleet.now
    made = fleet.look(holds(60))
    assert (made.tuning.max_loras, made.due) == (32, first + INTERVAL)
    fleet.look(holds(60), seconds=INTERVAL.total_seconds())
    assert fleet.running is not None
    assert fleet.running.max_loras == 64
    assert len(fleet.restarts) == 2


def test_what_lacks_only_for_a_moment_restarts_nothing() -> None:
    fleet = Fleet()
    fleet.look(holds(8))
    for number in range(200):
        fleet.look(holds(8 if number % 2 else 9), seconds=300)
    assert not fleet.restarts


def test_where_no_engine_is_ready_nothing_is_waited_for_nor_counted() -> None:
    fleet = Fleet()
    fleet.look(holds(0))
    assert fleet.look(holds(40), seconds=1, unready=True).tuning.max_loras == 64
    assert not fleet.restarts
    assert fleet.memory.restarted is None


def test_what_is_more_than_is_needed_waits_for_a_replacement() -> None:
    fleet = Fleet(spec=spec(**AUTO))
    fleet.look(holds(64, rank=64))
    for _ in range(500):
        made = fleet.look(holds(4, beyond=0))
        assert not made.restarts
    assert made.tuning == EngineTuning(
        max_loras=64, max_cpu_loras=64, max_lora_rank=64, lora_targets=ALL, specialize_active_lora=True
    )
    assert fleet.look(holds(4, beyond=0), replaced=True).tuning == EngineTuning(
        max_loras=8, max_cpu_loras=64, max_lora_rank=16, lora_targets=ATTENTION, specialize_active_lora=True
    )


def test_slots_are_taken_back_only_where_a_quarter_of_them_would_do() -> None:
    fleet = Fleet()
    fleet.look(holds(64))
    assert fleet.look(holds(17), replaced=True).tuning.max_loras == 64
    assert fleet.look(holds(16), replaced=True).tuning.max_loras == 16


def test_a_change_of_what_the_spec_fixes_is_never_held_back() -> None:
    fleet = Fleet(spec=spec(maxLoras=4))
    fleet.look(holds(8))
    fleet.spec = spec(maxLoras=6, maxLoraRank=64, loraTargets="Attention")
    made = fleet.look(holds(8))
    assert (made.tuning.max_loras, made.tuning.max_lora_rank, made.tuning.lora_targets) == (6, 64, ATTENTION)
    assert not made.restarts


def test_more_slots_that_the_spec_asks_for_never_outnumber_the_room_in_memory() -> None:
    fleet = Fleet(spec=spec(maxLoras=4))
    fleet.look(holds(8))
    fleet.spec = spec(maxLoras=100)
    assert fleet.look(holds(8)).tuning.max_cpu_loras >= 100


def test_an_adapter_beyond_what_the_engines_wrap_widens_them_in_turn() -> None:
    fleet = Fleet(spec=spec(loraTargets="Auto"))
    fleet.look(holds(4, beyond=0))
    made = fleet.look(holds(5, beyond=0, unread=1))
    assert not made.lacks  # it isn't known yet
    made = fleet.look(holds(5, beyond=1))
    assert made.lacks == ("1 adapter changes other modules than attention's, which is all that the engines wrap",)
    assert fleet.look(holds(5, beyond=1)).tuning.lora_targets is ALL


def test_what_the_pool_refuses_to_wrap_restarts_nothing() -> None:
    fleet = Fleet(spec=spec(loraTargets="Attention"))
    fleet.look(holds(4, beyond=4))
    assert not fleet.look(holds(4, beyond=4)).lacks


def test_a_higher_rank_is_waited_for_only_where_the_rank_is_automatic() -> None:
    fleet = Fleet(spec=spec(maxLoraRank="Auto"))
    fleet.look(holds(4))
    assert fleet.look(holds(5, rank=64)).lacks == ("an adapter has rank 64, the engines were started for 16",)
    fixed = Fleet()
    fixed.look(holds(4))
    assert not fixed.look(holds(5, rank=64)).lacks


def test_room_in_memory_is_worth_a_restart_only_where_half_is_read_from_disk() -> None:
    fleet = Fleet(spec=spec(maxLoras=8))
    fleet.look(holds(64))
    assert not fleet.look(holds(128)).lacks
    assert fleet.look(holds(129)).lacks
    assert fleet.look(holds(129)).tuning.max_cpu_loras == 256


# -- twins in use


def test_fewer_twins_in_use_than_are_held_count_after_a_day() -> None:
    fleet = Fleet()
    assert fleet.look(holds(60, in_use=3)).tuning.max_loras == 64
    assert fleet.look(holds(60, in_use=5), replaced=True).tuning.max_loras == 64
    made = fleet.look(holds(60, in_use=1), seconds=MEASURED.total_seconds(), replaced=True)
    assert made.tuning.max_loras == 8
    assert "of which 5 were in use at once" in made.why


def test_a_quiet_night_takes_no_slots_from_the_day() -> None:
    fleet = Fleet()
    fleet.look(holds(60, in_use=40))
    for _ in range(5):
        fleet.look(holds(60, in_use=0), seconds=86400)
    assert fleet.look(holds(60, in_use=0), replaced=True).tuning.max_loras == 64
    fleet.look(holds(60, in_use=2), seconds=REMEMBERED.total_seconds())
    assert fleet.look(holds(60, in_use=2), replaced=True).tuning.max_loras == 8


def test_a_steady_pool_writes_what_is_in_use_once_a_day() -> None:
    fleet = Fleet()
    fleet.look(holds(10, in_use=10))
    seen = {fleet.look(holds(10, in_use=10)).memory.in_use_at for _ in range(144 * 3)}
    assert len(seen) <= 4


# -- engines that don't come up


def test_engines_that_end_by_themselves_get_fewer_slots_until_the_spec_changes() -> None:
    fleet = Fleet()
    assert fleet.look(holds(64)).tuning.max_loras == 64
    assert fleet.look(holds(64), unready=True, broken=True).tuning.max_loras == 32
    made = fleet.look(holds(64), unready=True, broken=True)
    assert made.tuning.max_loras == 16
    for _ in range(300):
        made = fleet.look(holds(64))
        assert (made.tuning.max_loras, made.lacks) == (16, ())
    assert "engines with more than 16 slots ended before they were ready" in made.why
    assert not fleet.restarts
    fleet.generation = 2
    assert fleet.look(holds(64)).lacks


def test_engines_that_end_with_the_least_slots_are_left_as_they_are() -> None:
    fleet = Fleet()
    fleet.look(holds(4))
    assert not fleet.look(holds(4), unready=True, broken=True).restarts
    assert fleet.memory.most_slots is None


# -- what is said


def test_the_condition_says_what_lacks_and_when_it_comes() -> None:
    fleet = Fleet()
    fleet.look(holds(8))
    found, fits = tuning_finding(fleet.look(holds(30)), held=None)
    assert (found.reason, fits) == (Reason.TUNING_AWAITED, False)
    assert found.message == (
        "30 twins share 8 LoRA slots, 32 would do; they are restarted for it at 2026-01-05T12:30:00Z, or when they are "
        "replaced before"
    )
    found, _ = tuning_finding(fleet.look(holds(30)), held="the engines' maintenance window opens on Sunday")
    assert found.message.endswith("the restart waits: the engines' maintenance window opens on Sunday")


def test_the_condition_says_with_what_engines_are_started_and_what_comes_later() -> None:
    fleet = Fleet()
    fleet.look(holds(64))
    found, fits = tuning_finding(fleet.look(holds(4)), held=None)
    assert (found.reason, fits) == (Reason.TUNED, True)
    assert found.message == (
        "engines are started with max-loras 64, max-cpu-loras 64, max-lora-rank 16, LoRA on all linear layers, "
        "specialize-active-lora on: a pod holds up to 4 adapters of rank 16 at most, of 4 twins; from the next restart "
        "on max-loras 8 instead of 64"
    )


# -- it comes to rest

NOISY = st.builds(
    Needs,
    adapters=st.integers(0, 5000), twins=st.integers(0, 2000), in_use=st.none() | st.integers(0, 300),
    rank=st.integers(0, 256), beyond=st.integers(0, 3), unread=st.integers(0, 3),
)  # fmt: skip
SPECS = st.builds(
    spec,
    device=st.sampled_from(["GPU", "CPU"]), maxLoras=st.sampled_from(["Auto", 4, 100]),
    maxLoraRank=st.sampled_from(["Auto", 16, 256]), loraTargets=st.sampled_from(["Auto", "Attention", "AllLinear"]),
    args=st.sampled_from([[], ["--max-num-seqs=20"], ["--max-cpu-loras=40"]]),
)  # fmt: skip
SEEN = st.fixed_dictionaries({"unready": st.booleans(), "broken": st.booleans(), "replaced": st.booleans()})
# Slots 8 → 16 → 32 → 64; room in memory 64 → 128 … 8192; ranks 16 … 256; modules once.
MOST_RESTARTS = 3 + 7 + len(LORA_RANKS) + 1


@given(SPECS, NOISY, st.lists(SEEN, max_size=4))
def test_the_same_needs_come_to_rest(engine: Engine, needs: Needs, first: list[dict[str, bool]]) -> None:
    fleet = Fleet(spec=engine)
    for seen in first:
        fleet.look(needs, **seen)
    days = 8  # what was in use before is forgotten by then
    for _ in range(days * 4):
        fleet.look(needs, seconds=6 * 3600)
    rested, restarts = fleet.running, len(fleet.restarts)
    for _ in range(20):
        made = fleet.look(needs, seconds=6 * 3600)
        assert made.tuning == rested
        assert made.lacks == ()
    assert len(fleet.restarts) == restarts
    assert fleet.look(needs, replaced=True).tuning == fleet.look(needs, replaced=True).tuning


@given(SPECS, st.lists(st.tuples(NOISY, st.integers(1, 90_000)), min_size=1, max_size=60))
def test_whatever_the_needs_are_restarts_are_few_and_far_between(
    engine: Engine, looks: list[tuple[Needs, int]]
) -> None:
    fleet = Fleet(spec=engine)
    for needs, seconds in looks:
        fleet.look(needs, seconds=seconds)
    apart = [later - earlier for earlier, later in zip(fleet.restarts, fleet.restarts[1:], strict=False)]
    assert all(each >= INTERVAL - timedelta(seconds=1) for each in apart)  # statuses know whole seconds
    assert len(fleet.restarts) <= MOST_RESTARTS


@given(SPECS, st.lists(NOISY, min_size=2, max_size=60))
def test_a_restart_for_what_lacks_takes_nothing_away(engine: Engine, looks: list[Needs]) -> None:
    fleet = Fleet(spec=engine)
    for needs in looks:
        before = fleet.running
        made = fleet.look(needs, seconds=20_000)
        if before is None:
            continue
        after = made.tuning
        assert after.max_loras >= before.max_loras
        assert after.max_cpu_loras >= before.max_cpu_loras
        assert after.max_lora_rank >= before.max_lora_rank
        assert after.lora_targets is ALL or before.lora_targets is ATTENTION


def test_a_restart_for_a_higher_rank_keeps_slots_that_are_more_than_needed() -> None:
    fleet = Fleet(spec=spec(maxLoraRank="Auto"))
    fleet.look(holds(64))
    fleet.look(holds(4, rank=64))
    made = fleet.look(holds(4, rank=64))
    assert made.restarts
    assert (made.tuning.max_lora_rank, made.tuning.max_loras, made.wanted.max_loras) == (64, 64, 8)


def test_a_restart_for_slots_keeps_all_linear_layers_wrapped() -> None:
    fleet = Fleet(spec=spec(loraTargets="Auto"))
    fleet.look(holds(4))
    fleet.look(holds(20, beyond=0))
    made = fleet.look(holds(20, beyond=0))
    assert made.restarts
    assert (made.tuning.lora_targets, made.wanted.lora_targets) == (ALL, ATTENTION)


@given(SPECS, st.lists(st.tuples(NOISY, SEEN), max_size=30))
def test_engines_are_always_started_as_vllm_takes_it(
    engine: Engine, looks: list[tuple[Needs, dict[str, bool]]]
) -> None:
    fleet = Fleet(spec=engine)
    for needs, seen in looks:
        made = fleet.look(needs, **seen).tuning
        assert made.max_lora_rank in LORA_RANKS
        fixed = engine.max_loras != "Auto"
        assert fixed or LEAST_SLOTS <= made.max_loras <= MOST_SLOTS
        assert made.max_cpu_loras >= made.max_loras or (fixed and made.max_cpu_loras == 40)  # the user's own


@given(st.integers(9, 60), st.lists(st.integers(-1, 1), min_size=100, max_size=100))
def test_slow_noise_around_any_number_of_twins_comes_to_rest(middle: int, noise: list[int]) -> None:
    fleet = Fleet()
    for step in noise:
        fleet.look(holds(middle + step), seconds=4 * 3600)
    restarts = len(fleet.restarts)
    assert restarts <= 1
    assert all(each <= NOW + timedelta(hours=4 * 100) for each in fleet.restarts)
    for step in noise:
        fleet.look(holds(middle + step), seconds=4 * 3600, replaced=step > 0)
    assert len(fleet.restarts) <= restarts + 1
