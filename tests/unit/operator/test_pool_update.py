"""When a pool's engines may be replaced: windows, turns, and how many adapters they keep at hand."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from bettertherapy_api.update_strategy import UpdateStrategy
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.samples import NAMESPACE
from twin_operator.domain.pool_update import (
    Cause,
    Pace,
    Rollout,
    Stage,
    turn_held,
    update_held,
    window_held,
)
from twin_operator.domain.reasons import Reason
from twin_operator.engine.resources import Key, Manifest
from twin_operator.settings import Images

NIGHT = {"schedule": "0 2 * * 0", "timeZone": "Asia/Kathmandu", "seconds": 7200}  # Sundays, 02:00 to 04:00


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def strategy(**window: Any) -> UpdateStrategy:
    return UpdateStrategy.model_validate({"maintenanceWindow": {**NIGHT, **window}})


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-01-03T20:14:59", False),
        ("2026-01-03T20:15:00", True),  # Sunday 02:00 in Kathmandu, 5:45 h ahead
        ("2026-01-03T22:14:59", True),
        ("2026-01-03T22:15:00", False),
    ],
)
def test_a_window_is_open_from_its_cron_time_for_its_seconds(moment: str, is_open: bool) -> None:
    assert (window_held(strategy(), at(moment)) is None) is is_open


def test_a_closed_window_says_when_it_opens() -> None:
    held = window_held(strategy(), at("2026-01-05T12:00:00"))
    assert held is not None
    assert held.reason == Reason.AWAITING_MAINTENANCE_WINDOW
    assert "2026-01-11 02:00" in held.message
    assert held.look_again == at("2026-01-10T20:15:00")


WRONG = [
    {"timeZone": "America"}, {"timeZone": "Mars/Base"}, {"timeZone": "../etc"}, {"schedule": "0 0 31 2 *"},
    {"schedule": "a b c d e"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_window_that_means_nothing_holds_and_says_so(wrong: dict[str, Any]) -> None:
    held = window_held(strategy(**wrong), at("2026-01-05T12:00:00"))
    assert held is not None
    assert held.reason == Reason.MAINTENANCE_WINDOW_INVALID
    assert next(iter(wrong.values())) in held.message


def test_without_a_window_updates_go_at_any_time() -> None:
    assert window_held(None, at("2026-01-05T12:00:00")) is None
    assert window_held(UpdateStrategy(), at("2026-01-05T12:00:00")) is None


NOW = at("2026-01-05T12:00:00")
WAITING, ROLLING, SETTLED = Stage.WAITING, Stage.ROLLING, Stage.SETTLED


def rollout(
    name: str, stage: Stage = WAITING, *, finished: int | None = None, broke: int | None = None, **more: Any
) -> Rollout:
    when, since = (None if ago is None else NOW - timedelta(seconds=ago) for ago in (finished, broke))
    return Rollout(namespace="clinic", name=name, stage=stage, finished=when, broke=since, **more)


def broken(name: str = "z", stage: Stage = SETTLED, *, finished: int, after: int | None = None) -> Rollout:
    """A pool that was complete with its update so many seconds ago, and whose engines broke some time after."""
    return rollout(name, stage, finished=finished, broke=None if after is None else finished - after, down=True)


def goes(pool: Rollout, *others: Rollout, pools: int = 1) -> bool:
    return turn_held(pool, others=others, pace=Pace(pools=pools, delay_seconds=60), now=NOW) is None


@pytest.mark.parametrize("pools", [1, 2, 3])
def test_of_those_that_wait_the_first_by_name_go_whatever_the_order_they_are_asked_in(pools: int) -> None:
    waiting = [rollout(name) for name in "abcd"]
    for order in permutations(waiting):
        going = {pool.name for pool in order if goes(pool, *(each for each in order if each is not pool), pools=pools)}
        assert going == set("abcd"[:pools])


@pytest.mark.parametrize(
    ("others", "pools", "may"),
    [
        ([], 1, True),
        ([rollout("z", ROLLING)], 1, False),
        ([rollout("z", ROLLING)], 2, True),
        ([rollout("a", SETTLED)], 1, True),
        ([rollout("a", SETTLED, finished=59)], 1, False),
        ([rollout("a", SETTLED, finished=60)], 1, True),
        ([rollout("a", SETTLED, finished=9000), rollout("z", SETTLED, finished=1)], 2, False),
    ],
)
def test_a_pool_waits_for_those_on_their_way_and_a_while_longer(others: list[Rollout], pools: int, may: bool) -> None:
    assert goes(rollout("m"), *others, pools=pools) is may


def test_a_pool_stuck_in_a_bad_update_takes_the_next_one_first() -> None:
    stuck = rollout("m", ROLLING, begun=True)
    assert goes(stuck, rollout("a", WAITING), rollout("b", SETTLED, finished=1))
    assert not goes(rollout("a", WAITING), stuck)


@pytest.mark.parametrize(
    ("pool", "may"),
    [
        (broken(finished=61, after=20), False),
        (broken(finished=86400, after=20), False),  # nobody has mended it yet
        (broken(finished=86400, after=7200), True),  # it had proven the release, and broke for reasons of its own
        (broken(finished=61), False),
        (broken(finished=3599), False),
        (broken(finished=3600), True),  # since when its engines are broken isn't known, and this is long enough
    ],
)
def test_a_pool_that_broke_before_it_had_proven_its_update_lets_no_other_follow(pool: Rollout, may: bool) -> None:
    assert goes(rollout("m"), pool) is may


def test_pools_stuck_in_a_bad_update_never_wait_for_each_other_when_a_good_one_comes() -> None:
    stuck = [
        rollout("a", ROLLING, begun=True), rollout("b", ROLLING, begun=True),
        broken("c", WAITING, finished=61, after=20), broken("d", WAITING, finished=61, after=20),
    ]  # fmt: skip
    waiting = rollout("0", WAITING)
    for pool in stuck:
        assert goes(pool, waiting, *(each for each in stuck if each is not pool))
    assert not goes(waiting, *stuck)


def test_a_pool_that_may_only_have_been_scaled_waits_for_those_on_their_way() -> None:
    assert not goes(rollout("a", ROLLING), rollout("m", ROLLING, begun=True))


def test_the_message_names_who_goes_first() -> None:
    others = [rollout(name, ROLLING) for name in "bcdef"]
    held = turn_held(rollout("m"), others=others, pace=Pace(), now=NOW)
    assert held is not None
    assert held.reason == Reason.UPDATE_HELD
    assert "clinic/b, clinic/c, clinic/d and 2 more" in held.message
    assert held.look_again > NOW


def test_a_pools_own_change_waits_for_nobody_but_its_window() -> None:
    busy = [rollout("a", ROLLING)]

    def held(cause: Cause, asked: UpdateStrategy | None) -> str | None:
        found = update_held(rollout("m"), strategy=asked, cause=cause, others=busy, pace=Pace(), now=NOW)
        return found.reason if found else None

    assert held(Cause.POOL, None) is None
    assert held(Cause.OPERATOR, None) == Reason.UPDATE_HELD
    assert held(Cause.POOL, strategy()) == Reason.AWAITING_MAINTENANCE_WINDOW
    assert held(Cause.OPERATOR, strategy()) == Reason.AWAITING_MAINTENANCE_WINDOW


def test_what_has_nothing_to_lose_waits_for_no_window_but_for_its_turn() -> None:
    def held(cause: Cause, *others: Rollout) -> str | None:
        found = update_held(
            rollout("m"), strategy=strategy(), cause=cause, others=others, pace=Pace(), now=NOW, any_time=True
        )
        return found.reason if found else None

    assert held(Cause.POOL, rollout("a", ROLLING)) is None
    assert held(Cause.OPERATOR) is None
    assert held(Cause.OPERATOR, rollout("a", ROLLING)) == Reason.UPDATE_HELD


# -- the whole operator


def engine_of(played: Played, pool: str) -> Manifest:
    return played.api.objects[Key("Deployment", NAMESPACE, f"{pool}-engine")]


def image_of(played: Played, pool: str) -> str:
    return str(engine_of(played, pool)["spec"]["template"]["spec"]["containers"][0]["image"])


def complete(played: Played, pool: str) -> None:
    """Let the engines' Deployment be done, long ago."""
    live = copy.deepcopy(engine_of(played, pool))
    done = {"type": "Progressing", "reason": "NewReplicaSetAvailable", "lastUpdateTime": "2026-01-01T00:00:00Z"}
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    live["status"] = {"observedGeneration": live["metadata"]["generation"], **counts, "conditions": [done]}
    played.api.put(live)


async def upgraded(*pools: str) -> tuple[Played, Played]:
    """Return an operator whose pools are done with its images, and one of the next release, which leads from now."""
    old = Played(images=Images(engine_cpu="e:1"))
    for name in pools:
        old.start_pool(name)
    await old.lead()
    await old.settle()
    for name in pools:
        complete(old, name)
    old.hears = False
    return old, Played(old.api, images=Images(engine_cpu="e:2"))


@pytest.mark.parametrize("status", [403, 422, 500])
async def test_a_pool_whose_update_is_refused_keeps_no_other_from_the_release(status: int) -> None:
    _, new = await upgraded("a", "b", "c")

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == Key("Deployment", NAMESPACE, "a-engine"):
            raise api_error(status, "policy: a-engine may not change")

    new.api.refuse = refuse
    for _ in range(2):
        await new.lead()
        await new.settle()
    assert [image_of(new, pool) for pool in "abc"] == ["e:1", "e:2", "e:1"]
    new.api.refuse = lambda verb, key, body: None
    complete(new, "b")
    await new.lead()
    await new.settle()
    assert [image_of(new, pool) for pool in "abc"] == ["e:2", "e:2", "e:1"]
