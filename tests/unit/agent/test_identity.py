"""Two twins of one name: what the pod holds for them while one replaces the other."""

from __future__ import annotations

from bettertherapy_api import names
from bettertherapy_api.routing import Adapter, TwinEntry
from neurons.agent.wanted import Wanted
from neurons.cluster import Put
from tests.unit.agent.pod import Pod

DIGESTS = {letter: "sha256:" + "0" * 8 + letter * 56 for letter in "ab"}
"""Two digests whose served names are the same."""


def entry(name: str, letter: str, *, rank: int = 8) -> TwinEntry:
    digest = DIGESTS[letter]
    adapter = Adapter(served_name=names.served_name(name, digest), digest=digest, uri="s3://b/x", rank=rank)
    return TwinEntry(name=name, adapters=(adapter,))


async def test_both_twins_adapters_are_held_until_the_older_goes(pod: Pod) -> None:
    old, new = pod.adapter("dr-x", content="old"), pod.adapter("dr-x", content="new")
    written = pod.tables.write(old)
    await pod.verified(old)
    other = {
        "metadata": {"name": names.routing_slice_name("pool", 1)}, "pool": written["pool"],
        "twins": {"uid-new": new.entry().to_dict()},
    }  # fmt: skip
    pod.tables.put(Put(other))
    await pod.verified(old, new)
    said = pod.agent.report().adapters
    assert (said[old.name].twin_uid, said[new.name].twin_uid) == ("uid-dr-x", "uid-new")
    pod.tables.put(Put({**written, "twins": {}}))
    await pod.gone(old)
    await pod.verified(new)


async def test_an_adapter_that_both_want_is_never_unloaded_and_is_the_newer_ones(pod: Pod) -> None:
    adapter = pod.adapter("dr-x")
    written = pod.tables.write(adapter)
    await pod.verified(adapter)
    loads = pod.engine.calls["POST /v1/load_lora_adapter"]
    name = names.routing_slice_name("pool", 1)
    twins = {"uid-new": adapter.entry().to_dict()}
    pod.tables.put(Put({"metadata": {"name": name}, "pool": written["pool"], "twins": twins}))
    pod.tables.put(Put({**written, "twins": {}}))
    second = pod.adapter("dr-y")
    twins["uid-y"] = second.entry().to_dict()
    pod.tables.put(Put({"metadata": {"name": name}, "pool": written["pool"], "twins": twins}))
    await pod.verified(adapter, second)
    said = pod.state(adapter)
    assert said is not None
    assert said.twin_uid == "uid-new"
    assert pod.engine.calls["POST /v1/load_lora_adapter"] == loads + 1
    assert pod.engine.calls["POST /v1/unload_lora_adapter"] == 0


def test_a_name_that_stands_for_two_contents_is_not_served() -> None:
    wanted = Wanted(lambda twin: twin.held_by("pod-uid"))
    twins = {"u1": entry("dr-x", "a")}
    (name,) = wanted.update(twins, twins)
    assert wanted.adapter(name) is not None
    twins["u2"] = entry("dr-x", "b")
    assert wanted.update(twins, {"u2"}) == {name}
    assert wanted.adapter(name) is None
    assert list(wanted) == []
    del twins["u1"]
    wanted.update(twins, {"u1"})
    found = wanted.adapter(name)
    assert found is not None
    assert (found.digest, found.twin_uid) == (DIGESTS["b"], "u2")
    wanted.update({}, {"u2"})
    assert wanted.adapter(name) is None


def test_a_pod_wants_what_is_placed_on_it_or_on_every_pod_and_nothing_else() -> None:
    wanted = Wanted(lambda twin: twin.held_by("pod-uid"))
    placed = {"placement": "Spread", "pods": ("other", "pod-uid")}
    twins = {
        "u1": entry("dr-x", "a"),
        "u2": entry("dr-y", "b").model_copy(update=placed),
        "u3": entry("dr-z", "a").model_copy(update={**placed, "pods": ("other",)}),
        "u4": entry("dr-w", "b").model_copy(update={"pods": ("other",)}),
    }
    wanted.update(twins, twins)
    assert {each.twin for each in wanted} == {"dr-x", "dr-y", "dr-w"}
    twins["u2"] = twins["u2"].model_copy(update={"pods": ("other",)})
    wanted.update(twins, {"u2"})
    assert {each.twin for each in wanted} == {"dr-x", "dr-w"}
