"""The Secret with the clients' tokens: made, found, and looked at again while it may be another pool's."""

from __future__ import annotations

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.samples import NAMESPACE, pool, pool_object
from twin_operator.engine.apply import Owner
from twin_operator.engine.resources import Key
from twin_operator.kinds.miner_pool.access import AGAIN_SECONDS, AccessSecrets, AccessState

SECRET = Key("Secret", NAMESPACE, "p-access")


class World:
    """One pool's tokens at a time of the test's own."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.now = 0.0
        self.pool = pool()
        self.secrets = AccessSecrets(self.api, clock=lambda: self.now)  # type: ignore[arg-type]

    def put_by_others(self) -> None:
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET.name, "namespace": NAMESPACE}})

    async def look(self) -> tuple[AccessState, bool]:
        found = await self.secrets.ensure(self.pool, Owner.of(pool_object()))
        return found.state, found.look_again


async def test_one_that_was_made_for_this_pool_is_not_asked_after_soon() -> None:
    world = World()
    assert await world.look() == (AccessState.PRESENT, False)
    assert SECRET in world.api.objects


async def test_one_that_was_there_is_looked_at_again_and_made_when_the_former_pools_is_gone() -> None:
    world = World()
    world.put_by_others()
    assert await world.look() == (AccessState.PRESENT, True)
    world.api.drop(SECRET)  # the garbage collector comes for the former pool's children
    world.now += AGAIN_SECONDS
    assert await world.look() == (AccessState.PRESENT, False)
    assert SECRET in world.api.objects


async def test_one_that_stays_is_left_alone_after_a_while() -> None:
    world = World()
    world.put_by_others()
    looks = 0
    for _ in range(60):
        looks += (await world.look())[1]
        world.now += AGAIN_SECONDS
    assert 0 < looks < 20
