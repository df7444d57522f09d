"""What the engine lists: each of a thousand adapters is looked for in each listing."""

from __future__ import annotations

from neurons.agent.engine import Model
from neurons.agent.monitor import Listing
from tests.standin import BASE

ADAPTERS = 1000


def test_looking_for_each_adapter_costs_no_look_at_all_of_them() -> None:
    models = [Model(id=f"dr-{number}", root=f"/adapters/{number}", parent=BASE) for number in range(ADAPTERS)]
    twice = Model(id="dr-0", root="/elsewhere", parent=BASE)
    listing = Listing((*models, twice))
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    for number in range(ADAPTERS):
        assert listing.root(Name(f"dr-{number}")) == f"/adapters/{number}"
    assert compared <= 2 * ADAPTERS
    assert listing.root("dr-none") is None
