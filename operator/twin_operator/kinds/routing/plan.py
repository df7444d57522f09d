"""What to write to a pool's RoutingSlices: a pure function from what is published and what should be to patches.

A patch carries only the entries that differ, so a twin's change costs one small write to one slice. A twin stays in its
slice; a new one goes to the first with room.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.routing import PodEntry, PoolHeader, TwinEntry
from twin_operator.domain.routing import slice_for
from twin_operator.kinds.world import Published

PROMPT_BYTES: Final = 256 * 1024
"""UTF-8 bytes of system prompts in one slice; an object may have a megabyte and a half."""
PROMPTS: Final = 512

Changes = Mapping[str, TwinEntry | None]
"""By the twins' UIDs; None takes the entry away."""


@dataclass(kw_only=True)
class SlicePatch:
    """What changes in one slice, by key: the new content, or None to take it away."""

    name: str
    twins: dict[str, TwinEntry | None] = field(default_factory=dict)
    pods: dict[str, PodEntry | None] = field(default_factory=dict)
    prompts: dict[str, str | None] = field(default_factory=dict)
    header: PoolHeader | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON merge patch; absent fields are null, since a patch merges into what is there."""
        body: dict[str, Any] = {}
        if self.header is not None:
            body["pool"] = header_document(self.header)
        if self.twins:
            body["twins"] = {uid: entry_document(entry) if entry else None for uid, entry in self.twins.items()}
        if self.pods:
            body["pods"] = {uid: pod.model_dump(mode="json") if pod else None for uid, pod in self.pods.items()}
        if self.prompts:
            body["prompts"] = dict(self.prompts)
        return body

    def parts(self) -> list[SlicePatch]:
        """Return the same change as one patch per twin and per prompt: one that is refused holds back no other."""
        rest = SlicePatch(name=self.name, pods=self.pods, header=self.header)
        texts = [SlicePatch(name=self.name, prompts={digest: text}) for digest, text in self.prompts.items()]
        alone = [SlicePatch(name=self.name, twins={uid: entry}) for uid, entry in self.twins.items()]
        return [*([rest] if rest.body() else []), *texts, *alone]


def header_document(header: PoolHeader) -> dict[str, Any]:
    """Return the header with its absent fields null."""
    return header.model_dump(mode="json", by_alias=True)


def entry_document(entry: TwinEntry) -> dict[str, Any]:
    """Return an entry for a merge patch: its own absent fields null, those inside its lists left out."""
    whole = entry.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"doctor": None, "promptDigest": None, "placement": None, "pods": None, **whole}


def places(pool: str, published: Published, uids: Collection[str] | None = None) -> dict[str, str]:
    """Return which slice holds each twin's entry, by UID; of `uids` alone, if given, without a look at all others.

    There should be one. Of several (a former leader's late write, a backup), the one counts that lets something answer,
    and of those the one in the first slice.
    """
    numbers = {name: slice_number(pool, name) for name in published.slices}
    found: dict[str, tuple[bool, float, str]] = {}
    for name, each in published.slices.items():
        number = numbers[name]
        rank = math.inf if number is None else number
        for uid in each.twins if uids is None else uids:
            if (entry := each.twins.get(uid)) is None:
                continue
            mine = (not entry.versions, rank, name)
            if uid not in found or mine < found[uid]:
                found[uid] = mine
    where = {
        uid: name for name, each in published.slices.items() for uid in each.unreadable if uids is None or uid in uids
    }
    return where | {uid: name for uid, (_, _, name) in found.items()}


def plan_second_entries(pool: str, published: Published, uids: Collection[str]) -> list[SlicePatch]:
    """Return patches that leave these twins one entry each."""
    where, ordered = places(pool, published, uids), sorted(uids)
    patches = []
    for name, each in sorted(published.slices.items()):
        twice = {uid: None for uid in ordered if uid in each.twins and where[uid] != name}
        if twice:
            patches.append(SlicePatch(name=name, twins=dict(twice)))
    return patches


def plan_twins(pool: str, published: Published, changes: Changes) -> tuple[list[SlicePatch], list[SlicePatch]]:
    """Return patches that must come first, and those that follow.

    What comes first takes away the entry of a twin that is gone, where another twin of the same name gets one in
    another slice: at no moment are there two.
    """
    where = places(pool, published, changes.keys())
    counts = {
        number: len(each.twins) + len(each.unreadable)
        for name, each in published.slices.items()
        if (number := slice_number(pool, name)) is not None
    }
    patches: dict[str, SlicePatch] = {}
    for uid, entry in changes.items():
        if entry is None and uid in where:
            patches.setdefault(where[uid], SlicePatch(name=where[uid])).twins[uid] = None
            if (number := slice_number(pool, where[uid])) is not None:
                counts[number] -= 1
    kept = [(entry.name, uid, entry) for uid, entry in changes.items() if entry is not None]
    for _, uid, entry in sorted(kept, key=lambda each: each[:2]):  # the same twins always come into the same slices
        name = where.get(uid)
        if name is None:
            number = slice_for(counts)
            counts[number] = counts.get(number, 0) + 1
            name = names.routing_slice_name(pool, number)
        patches.setdefault(name, SlicePatch(name=name)).twins[uid] = entry
    return _first_away(published, patches), [patch for _, patch in sorted(patches.items()) if patch.twins]


def _first_away(published: Published, patches: dict[str, SlicePatch]) -> list[SlicePatch]:
    """Split off removals whose name comes back in another slice."""
    added = {entry.name: name for name, patch in patches.items() for entry in patch.twins.values() if entry is not None}
    first = []
    for name, patch in sorted(patches.items()):
        known = published.slices[name].twins if name in published.slices else {}
        early = {
            uid: None
            for uid, entry in patch.twins.items()
            if entry is None and uid in known and added.get(known[uid].name, name) != name
        }
        if early:
            first.append(SlicePatch(name=name, twins=dict(early)))
            for uid in early:
                del patch.twins[uid]
    return first


def is_prompt_published(published: Published, digest: str) -> bool:
    """Tell whether the system prompt of this digest is published."""
    return any(digest in each.prompts for each in published.slices.values())


def with_published_prompt(entry: TwinEntry, previous: TwinEntry | None, published: Published) -> TwinEntry:
    """Return the entry with the system prompt that the twin answers with, until its new one is published.

    A twin that answers nobody yet waits for its own: nobody must hear it without.
    """
    if previous is None or not previous.versions:
        return entry
    if entry.prompt_digest is not None and is_prompt_published(published, entry.prompt_digest):
        return entry
    if previous.prompt_digest is not None and not is_prompt_published(published, previous.prompt_digest):
        return entry
    return entry.model_copy(update={"prompt_digest": previous.prompt_digest})


def plan_prompts(pool: str, published: Published, texts: Mapping[str, str]) -> list[SlicePatch]:
    """Return patches that add these system prompts, by digest, where they are not published yet."""
    sizes = {
        name: (each.prompt_bytes, len(each.prompts))
        for name, each in published.slices.items()
        if _PROMPTS_NAME.search(name)
    }
    patches: dict[str, SlicePatch] = {}
    for digest, text in sorted(texts.items()):
        if is_prompt_published(published, digest):
            continue
        size = len(text.encode(errors="replace"))
        number = 0
        while True:
            name = names.prompts_slice_name(pool, number)
            taken, count = sizes.get(name, (0, 0))
            if count == 0 or (taken + size <= PROMPT_BYTES and count < PROMPTS):
                break
            number += 1
        sizes[name] = (taken + size, count + 1)
        patches.setdefault(name, SlicePatch(name=name)).prompts[digest] = text
    return [patch for _, patch in sorted(patches.items())]


def plan_unused_prompts(published: Published, used: Collection[str]) -> list[SlicePatch]:
    """Return patches that take away system prompts of no twin any more."""
    return [
        SlicePatch(name=name, prompts=dict.fromkeys(sorted(each.prompts - set(used))))
        for name, each in sorted(published.slices.items())
        if each.prompts - set(used)
    ]


def plan_pods(pool: str, published: Published, pods: Mapping[str, PodEntry]) -> list[SlicePatch]:
    """Return the patch that brings the addresses of the engine pods up to date."""
    name = names.pods_slice_name(pool)
    known = published.slices[name].pods if name in published.slices else {}
    changed: dict[str, PodEntry | None] = {uid: pod for uid, pod in pods.items() if known.get(uid) != pod}
    changed.update(dict.fromkeys(known.keys() - pods.keys()))
    return [SlicePatch(name=name, pods=changed)] if changed else []


_SLICE_NAME: Final = re.compile(r"-routing-([0-9]{1,5})$")
_PROMPTS_NAME: Final = re.compile(r"-routing-prompts-[0-9]{1,5}$")


def slice_number(pool: str, name: str) -> int | None:
    """Return the number of a slice with twins; None for the others."""
    if not name.startswith(f"{pool}-routing-"):
        return None
    match = _SLICE_NAME.search(name)
    return int(match[1]) if match and name == names.routing_slice_name(pool, int(match[1])) else None
