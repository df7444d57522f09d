"""A pool's slices merged: who is in, who has gone, what stays when something can't be read."""

from __future__ import annotations

import copy
import gc
import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettertherapy_api import names
from bettertherapy_api.routing import TwinEntry
from neurons.cluster import Change, Gone, Listed, Put, RoutingView
from neurons.cluster import routing_view as module
from tests.unit.cluster.slices import POOL, large_pool, pods_slice, pool, prompts_slice, routing_slice, twin

NEPALI = "तपाईं डा. इन्द्र गुरुङको जुम्ल्याहा हुनुहुन्छ।"


def view(*objects: Any) -> RoutingView:
    made = RoutingView(POOL)
    made.take(Listed(list(objects)))
    return made


def test_slices_are_merged() -> None:
    seen = view(
        routing_slice(0, {"u1": twin("dr-a", prompt=NEPALI)}),
        routing_slice(1, {"u2": twin("dr-b")}),
        pods_slice({"p1": ("pool-engine-1", "10.0.0.1:8080"), "p2": ("pool-engine-2", "[fd00::2]:8080")}),
        prompts_slice(NEPALI),
    )
    assert {uid: entry.name for uid, entry in seen.twins.items()} == {"u1": "dr-a", "u2": "dr-b"}
    assert {entry.address for entry in seen.pods.values()} == {"10.0.0.1:8080", "[fd00::2]:8080"}
    assert seen.prompts == {names.prompt_digest(NEPALI): NEPALI}
    assert seen.header is not None
    assert (seen.header.generation, seen.uids("dr-a"), seen.uids("nobody")) == (1, ("u1",), ())


def test_a_change_names_only_what_changed() -> None:
    seen = view(routing_slice(0, {"u1": twin("dr-a"), "u2": twin("dr-b")}))
    change = seen.put(routing_slice(0, {"u1": twin("dr-a"), "u2": twin("dr-b", "c")}))
    assert change == Change(twins=frozenset({"u2"}), names=frozenset({"dr-b"}))
    assert not seen.put(routing_slice(0, {"u1": twin("dr-a"), "u2": twin("dr-b", "c")}, version=9))


def test_only_the_entry_that_changed_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = large_pool()
    seen = view(*objects)
    parsed: list[str] = []

    def counted(uid: str, raw: Any) -> TwinEntry:
        parsed.append(uid)
        return TwinEntry.model_validate(raw)

    monkeypatch.setattr(seen._twins, "_parse", counted)
    changed = copy.deepcopy(objects[1])
    changed["twins"]["uid-7"] = twin("dr-7", "b")
    seen.put(changed)
    assert parsed == ["uid-7"]
    assert len(seen.twins) == 1000


def test_two_twins_of_one_name_are_both_known_until_the_older_goes() -> None:
    seen = view(routing_slice(0, {"old": twin("dr-a")}), routing_slice(1, {}))
    seen.put(routing_slice(1, {"new": twin("dr-a", "b")}))
    assert seen.uids("dr-a") == ("old", "new")
    change = seen.put(routing_slice(0, {}))
    assert seen.uids("dr-a") == ("new",)
    assert change.names == {"dr-a"}


def test_a_twin_under_another_name_leaves_its_old_one() -> None:
    seen = view(routing_slice(0, {"u1": twin("dr-a")}))
    change = seen.put(routing_slice(0, {"u1": twin("dr-b")}))
    assert (seen.uids("dr-a"), seen.uids("dr-b")) == ((), ("u1",))
    assert change.names == {"dr-a", "dr-b"}


def test_a_deleted_slice_takes_its_entries_away() -> None:
    first, second = routing_slice(0, {"u1": twin("dr-a")}), routing_slice(1, {"u2": twin("dr-b")})
    seen = view(first, second)
    assert seen.take(Gone(second)).twins == {"u2"}
    assert set(seen.twins) == {"u1"}


def test_a_list_after_a_broken_watch_drops_what_is_gone() -> None:
    seen = view(
        routing_slice(0, {"u1": twin("dr-a"), "u2": twin("dr-b")}), routing_slice(1, {"u3": twin("dr-c")}),
        prompts_slice("old"), pods_slice({"p1": ("pod", "10.0.0.1:80")}),
    )  # fmt: skip
    change = seen.take(Listed([routing_slice(0, {"u1": twin("dr-a")}, version=7)]))
    assert (set(seen.twins), dict(seen.pods), dict(seen.prompts)) == ({"u1"}, {}, {})
    assert change.twins == {"u2", "u3"}


def test_a_pool_without_any_slice_keeps_what_the_last_ones_said_until_one_comes() -> None:
    """Somebody deleted them all: patients are answered while the operator writes them again."""
    seen = view(routing_slice(0, {"u1": twin("dr-a")}), routing_slice(1, {"u2": twin("dr-b")}))
    assert not seen.take(Listed([]))
    assert set(seen.twins) == {"u1", "u2"}
    assert seen.put(routing_slice(0, {"u3": twin("dr-c")})).twins == {"u1", "u2", "u3"}
    assert set(seen.twins) == {"u3"}
    seen.delete(routing_slice(0))
    assert set(seen.twins) == {"u3"}
    seen.put(routing_slice(1, {"u4": twin("dr-d")}))
    assert set(seen.twins) == {"u4"}


BAD_TWINS: list[Any] = [
    None, 7, "x", [], {}, {"name": "UPPER"}, {"name": "dr-a", "versions": "x"},
    {"name": "dr-a", "versions": [{"servedName": "x", "weightPercent": 101}]},
    {"name": "dr-a", "adapters": [{"servedName": "x", "digest": "garbage", "uri": "u", "rank": 1}]},
    {"name": "dr-a", "promptDigest": "garbage"}, {"name": "a" * 55},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_TWINS)
def test_an_unreadable_entry_hurts_nobody_else_and_its_last_good_one_stays(bad: Any) -> None:
    refused: list[None] = []
    seen = RoutingView(POOL, refused=lambda: refused.append(None))
    seen.put(routing_slice(0, {"u1": twin("dr-a"), "u2": twin("dr-b")}))
    change = seen.put(routing_slice(0, {"u1": bad, "u2": twin("dr-b", "c"), "u3": bad, "u4": twin("dr-d")}))
    assert change.twins == {"u2", "u4"}
    assert {uid: entry.name for uid, entry in seen.twins.items()} == {"u1": "dr-a", "u2": "dr-b", "u4": "dr-d"}
    assert len(refused) == 2
    seen.put(routing_slice(0, {"u1": bad, "u2": twin("dr-b"), "u3": bad, "u4": twin("dr-d")}))
    assert len(refused) == 2  # said once
    seen.put(routing_slice(0, {"u2": twin("dr-b"), "u4": twin("dr-d")}))
    assert "u1" not in seen.twins


def test_a_bad_section_or_header_leaves_the_rest() -> None:
    seen = view(routing_slice(0, {"u1": twin("dr-a")}, prompts={}))
    bad: dict[str, Any]
    for bad in ({"twins": []}, {"twins": 7}, {"pool": None}, {"pool": {"name": 7}}, {"pods": "x"}):
        seen.put({**routing_slice(0, {"u1": twin("dr-a")}), **bad})
        assert set(seen.twins) == {"u1"}
    seen.put({**routing_slice(0, {"u1": twin("dr-a", "b")}), "pool": 7})
    assert seen.twins["u1"].versions[0].digest == "sha256:" + "b" * 64
    assert seen.header is not None


def test_a_slice_of_another_pool_is_not_taken() -> None:
    seen = view(routing_slice(0, {"u1": twin("dr-a")}))
    assert not seen.put(routing_slice(1, {"u2": twin("dr-b")}, header=pool(name="another")))
    assert set(seen.twins) == {"u1"}


def test_a_prompt_under_another_texts_digest_is_not_taken() -> None:
    seen = view(prompts_slice("right"))
    seen.put(routing_slice(name="pool-routing-prompts-1", prompts={names.prompt_digest("right"): "wrong"}))
    assert seen.prompts == {names.prompt_digest("right"): "right"}


@pytest.mark.parametrize("address", ["evil.example.org:80", "10.0.0.1", "10.0.0.1:80/x", "10.0.0.1:80@evil", "[::1:80"])
def test_an_address_is_an_ip_and_a_port(address: str) -> None:
    assert not view(pods_slice({"p1": ("pod", address)})).pods


def test_a_twin_that_moves_between_slices_never_leaves() -> None:
    seen = view(routing_slice(0, {"u1": twin("dr-a")}), routing_slice(1, {}))
    seen.put(routing_slice(1, {"u1": twin("dr-a", "b")}, version=2))
    assert seen.twins["u1"].versions[0].digest == "sha256:" + "b" * 64
    assert not seen.put(routing_slice(0, {}, version=3))
    assert set(seen.twins) == {"u1"}


@pytest.mark.parametrize("newest_first", [True, False])
def test_of_a_twin_in_two_listed_slices_the_one_written_later_counts(newest_first: bool) -> None:
    old = routing_slice(0, {"u1": twin("dr-a", "a")}, version=99)
    new = routing_slice(1, {"u1": twin("dr-a", "b")}, version=100)
    seen = view(*([new, old] if newest_first else [old, new]))
    assert seen.twins["u1"].versions[0].digest == "sha256:" + "b" * 64


def test_the_header_is_the_highest_generation_of_the_pool_that_wrote_last() -> None:
    seen = view(
        routing_slice(0, header=pool(9, uid="former"), version=1),
        routing_slice(1, header=pool(2), version=20),
        routing_slice(2, header=pool(1), version=30),
    )
    assert seen.header is not None
    assert (seen.header.uid, seen.header.generation) == ("pool-uid", 2)


def test_what_is_saved_is_read_again() -> None:
    seen = view(*large_pool(200))
    again = RoutingView(POOL)
    again.put(orjson.loads(orjson.dumps(seen.saved())))
    assert (dict(again.twins), again.header) == (dict(seen.twins), seen.header)
    assert again.take(Listed([routing_slice(0, {"u1": twin("dr-a")}, version=3)]))
    assert set(again.twins) == {"u1"}


def test_nothing_of_an_entry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = RoutingView(POOL)
    for key in ("sha256:0", names.prompt_digest("x")):
        seen.put(routing_slice(0, {"u1": {"name": "SECRET!"}}, prompts={key: "SECRET"}, pods={"p": "SECRET"}))
    assert caplog.records
    assert "SECRET" not in caplog.text


def test_memory_is_flat_over_5000_changes_of_1000_twins() -> None:
    objects = large_pool()
    seen = view(*objects)
    texts = [orjson.dumps(thing) for thing in objects if "twins" in thing]

    def change(number: int) -> None:
        thing = orjson.loads(texts[number % 10])
        uid = f"uid-{(number % 10) * 100 + number // 10 % 100}"
        thing["twins"][uid] = {**thing["twins"][uid], "doctor": f"{number:08}"}
        seen.put(thing)

    for number in range(1000):
        change(number)
    gc.collect()
    objects_before, bytes_before = len(gc.get_objects()), _resident()
    for number in range(1000, 6000):
        change(number)
    gc.collect()
    assert len(gc.get_objects()) - objects_before < 2000  # each revision kept would be over 1,000
    assert _resident() - bytes_before < 16 * 1024 * 1024  # and 5,000 of them over 500 MB


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_one_changed_twin_of_1000_is_taken_in_well_under_5_ms() -> None:
    objects = large_pool()
    seen = view(*objects)
    times = []
    for number in range(50):
        thing = copy.deepcopy(objects[1])
        thing["twins"]["uid-7"]["doctor"] = str(number)
        began = time.thread_time()
        seen.put(thing)
        times.append(time.thread_time() - began)
    assert sorted(times)[25] < 0.005


# A few characters that have something special: hypothesis takes minutes to work out all of Unicode on a busy machine.
TEXT = st.text(st.sampled_from("a0-:\0é\u0924\ud800"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
KEYS = (
    "name", "uid", "generation", "baseModel", "maxLoras", "maxLoraRank", "versions", "adapters", "servedName", "digest",
    "weightPercent", "address", "promptDigest", "rank", "uri", "doctor",
)  # fmt: skip
ENTRY = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6) | JSON
SECTION = st.dictionaries(TEXT | st.sampled_from(["u1", "u2"]), ENTRY, max_size=3) | JSON
METADATA = st.fixed_dictionaries({}, optional={"name": st.sampled_from(["a", "b"]) | JSON, "resourceVersion": JSON})
OBJECT = JSON | st.fixed_dictionaries(
    {}, optional={
        "metadata": METADATA | JSON, "pool": st.just(pool()) | ENTRY, "twins": SECTION, "pods": SECTION,
        "prompts": SECTION,
    },
)  # fmt: skip
EVENTS = st.lists(
    st.builds(Put, OBJECT) | st.builds(Gone, OBJECT) | st.builds(Listed, st.lists(OBJECT, max_size=3)), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_nothing_raises_on_any_json_and_what_is_right_is_read_afterwards(events: list[Any]) -> None:
    seen = RoutingView(POOL)
    for event in events:
        seen.take(event)
        assert set(seen._names) == set(seen.twins)
        assert all(uid in seen.uids(entry.name) for uid, entry in seen.twins.items())
    seen.take(Listed([routing_slice(0, {"u1": twin("dr-a")}, version=10**18)]))
    assert {uid: entry.name for uid, entry in seen.twins.items()} == {"u1": "dr-a"}
    assert seen.uids("dr-a") == ("u1",)
    json.dumps(seen.saved())


def test_json_nested_beyond_what_can_be_compared_is_no_end() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    other: Any = []
    for _ in range(5000):
        other = [other]
    seen = RoutingView(POOL)
    for nested in (deep, other):
        seen.put({**routing_slice(0, {"u1": nested, "u2": twin("dr-b")}), "pool": pool()})
    assert set(seen.twins) == {"u2"}
    assert module.reason(UnicodeEncodeError("utf-8", "SECRET", 0, 1, "x")) == "text that is not UTF-8"
