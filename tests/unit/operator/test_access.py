"""The Secret with the clients' tokens: made, found, and looked at again while it may be another pool's."""

from __future__ import annotations

import pytest

from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.played import Played, api_error
from tests.unit.operator.samples import NAMESPACE, pool, pool_object
from twin_operator.domain.pool_checks import no_tokens
from twin_operator.engine.apply import Owner
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError, ApplyError
from twin_operator.kinds.miner_pool.access import FOUND_AGAIN_SECONDS, AccessSecrets, AccessState
from twin_operator.kinds.miner_pool.reconcile import MinerPoolReconciler

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
        return found.state, found.look_again is not None


async def test_one_that_was_made_for_this_pool_is_not_asked_after_soon() -> None:
    world = World()
    assert await world.look() == (AccessState.PRESENT, False)
    assert SECRET in world.api.objects


async def test_one_that_was_there_is_looked_at_again_and_made_when_the_former_pools_is_gone() -> None:
    world = World()
    world.put_by_others()
    assert await world.look() == (AccessState.PRESENT, True)
    world.api.drop(SECRET)  # the garbage collector comes for the former pool's children
    world.now += FOUND_AGAIN_SECONDS
    assert await world.look() == (AccessState.PRESENT, False)
    assert SECRET in world.api.objects


async def test_one_that_stays_is_left_alone_after_a_while() -> None:
    world = World()
    world.put_by_others()
    looks = 0
    for _ in range(60):
        looks += (await world.look())[1]
        world.now += FOUND_AGAIN_SECONDS
    assert 0 < looks < 20


@pytest.mark.parametrize("status", [500, 429, 0])
async def test_a_failure_to_ask_silences_no_pool_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    played = Played()

    async def fails(manifest: Manifest) -> bool:
        raise ApiError(status=status, reason="InternalError", message="failed calling webhook on secrets")

    def refuse(verb: str, key: Key, body: Manifest) -> None:
        if key == Key("Deployment", NAMESPACE, "p-miner"):
            raise api_error(403, "exceeded quota")

    with monkeypatch.context() as patched:
        patched.setattr(played.api, "would_create", fails)
        played.api.refuse = refuse
        played.start_pool()
        await played.lead()
        await played.settle()
        assert played.condition("Ready", played.pool())[1] == "ChildrenRefused"
        assert isinstance(played.problems[-1], ApplyError)
        assert "Secret" in str(played.problems[-1])
    await played.lead()
    await played.settle()
    assert SECRET in played.api.objects


async def test_a_failure_to_ask_takes_nothing_back_that_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()

    async def missing(manifest: Manifest) -> bool:
        return True

    async def fails(manifest: Manifest) -> bool:
        raise api_error(500)

    monkeypatch.setattr(played.api, "would_create", missing)
    played.start_pool(miner={"accessSecretRef": {"name": "mine"}})
    await played.lead()
    await played.settle()
    assert played.process.world.access_missing == {(NAMESPACE, "p"): no_tokens("mine")}
    monkeypatch.setattr(played.api, "would_create", fails)
    monkeypatch.setattr("twin_operator.kinds.miner_pool.access._fresh_seconds", lambda known: 0)
    await played.lead()
    await played.settle()
    assert played.problems
    assert played.process.world.access_missing == {(NAMESPACE, "p"): no_tokens("mine")}


async def test_nothing_is_remembered_of_a_pool_that_is_gone() -> None:
    """Else an operator that runs for a year knows every pool that ever was."""
    played = Played()
    played.start_pool()
    await played.lead()
    await played.settle()
    pools = played.process._kinds["MinerPool"]
    assert isinstance(pools, MinerPoolReconciler)
    assert pools._access._known
    played.api.drop(Key("MinerPool", NAMESPACE, "p"))
    await played.settle()
    assert (pools._access._known, pools._access._since, pools._blocked) == ({}, {}, set())
    assert (played.process.world.access_missing, played.process.world.unpublished) == ({}, {})
