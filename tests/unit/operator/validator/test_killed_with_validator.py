"""Killed after any of its writes for a validator, a successor comes to the same end, and makes nothing twice."""

from __future__ import annotations

from tests.unit.operator.kill_points import KilledError, MortalApi, plain
from tests.unit.operator.played import Played, without_server_fields
from tests.unit.operator.samples import NAMESPACE
from tests.unit.operator.validator.validators import POSTGRES, validator_object


async def ending(kill_at: int) -> tuple[dict[str, object], dict[str, int], int]:
    """Return what is there in the end, what was made how often, and how many writes there were."""
    api = MortalApi(kill_after=lambda number: number == kill_at)
    for name in ("hotkey", "pg"):
        api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}})
    first = Played(api)
    first.start_twin("dr-a")
    api.put(without_server_fields(validator_object(**POSTGRES)))
    await first.lead()
    try:
        await first.settle()
    except KilledError:
        first.hears = False
        second = Played(api)
        await second.lead()
        await second.settle()
    state = {
        f"{key.kind} {key.name}": plain({**thing, "data": "drawn"} if key.kind == "Secret" else thing, api.identities)
        for key, thing in api.objects.items()
    }
    made = {f"{key.kind} {key.name}": count for key, count in api.made.items()}
    return state, made, len(api.writes)


async def test_killed_after_a_write_it_ends_the_same() -> None:
    state, made, writes = await ending(0)
    assert writes >= 10
    assert set(made.values()) == {1}
    for number in range(1, writes + 1):
        again, made_then, _ = await ending(number)
        assert (again, made_then) == (state, made), f"killed after write {number}"
