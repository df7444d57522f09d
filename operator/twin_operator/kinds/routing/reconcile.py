"""Keeps a pool's RoutingSlices true. Patients wait for this: it runs before everything else and looks only at the twins
that a change concerns.

What is to be looked at is kept as a set of UIDs per pool; it is only a shortcut. A new leader, a resync, and whatever
concerns all twins of a pool look at all of them, and come to the same slices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from bettertherapy_api import names
from bettertherapy_api.miner_pool import SlowReplica
from bettertherapy_api.routing import PodEntry, PoolHeader, TwinEntry
from twin_operator.domain.activity import UNMEASURED, Activity
from twin_operator.domain.objects import Pool, PoolRef, Twin, Unreadable, parsed
from twin_operator.domain.reasons import Reason
from twin_operator.domain.routing import Candidate, Placed, header_of, plan_entry, refusal, verified_on, without
from twin_operator.domain.taken_back import taken_back
from twin_operator.domain.versions import wanted_version
from twin_operator.engine.api import Api
from twin_operator.engine.conditions import Finding, carried_over
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError, ApplyError, ChildConflictError, ConflictError
from twin_operator.kinds.resources import DOCTOR_TWIN, MINER_POOL, ROUTING_SLICE
from twin_operator.kinds.routing.placing import Placing, plan_placing
from twin_operator.kinds.routing.plan import (
    Changes,
    SlicePatch,
    is_prompt_published,
    places,
    plan_pods,
    plan_prompts,
    plan_second_entries,
    plan_twins,
    plan_unused_prompts,
    slice_number,
    with_published_prompt,
)
from twin_operator.kinds.routing.slices import SliceWriter
from twin_operator.kinds.routing.troubles import OF_FULL_LOOK, OF_POOL, Pass, Trouble
from twin_operator.kinds.world import Published, World

log = logging.getLogger(__name__)

ROUTING: Final = "Routing"
"""Kind of the queue's keys for this work; the name is the pool's, and behind a slash what of it is tried again."""
_AGAIN: Final = "/"
_LABELS: Final = "labels"


class RoutingReconciler:
    """Publishes what pools' agents hold and miners send where."""

    def __init__(
        self,
        *,
        api: Api,
        world: World,
        wake: Callable[[Key], None],
        busy: Callable[[Pool], Activity | None] = lambda pool: UNMEASURED,
        slow: Callable[[Pool], Iterable[SlowReplica] | None] = lambda pool: None,
    ) -> None:
        self._api = api
        self._world = world
        self._store = world.store
        self._wake = wake
        self._busy = busy
        self._slow = slow
        self._slices = SliceWriter(api=api, world=world)
        self._marked: dict[tuple[str, str], set[str] | None] = {}
        self._troubles: dict[tuple[str, str], dict[str, Trouble]] = {}
        self._unsettled: set[tuple[str, str]] = set()
        """Pools in which more twins are to be moved once those that move have moved."""

    def mark(self, namespace: str, pool: str, twin: str | None) -> None:
        """Have the twin of this UID looked at in the next pass over the pool; None: all."""
        marked = self._marked.get((namespace, pool), set())
        if twin is None or marked is None:
            self._marked[namespace, pool] = None
        else:
            marked.add(twin)
            self._marked[namespace, pool] = marked

    async def reconcile(self, key: Key) -> None:
        """Publish what changed for the pool; raises OperatorError to be called again."""
        name, again, what = key.name.partition(_AGAIN)
        place = (key.namespace, name)
        if again:
            self._try_again(place, what)
            return
        marked = self._marked.pop(place, set())
        pool = self._world.pool_ref(*place)
        if pool is None or pool.deleted:
            self._world.unpublished.pop(place, None)  # the garbage collector takes the slices
            self._troubles.pop(place, None)
            self._unsettled.discard(place)
            return
        try:
            done = await (self._publish(pool, marked) if isinstance(pool, Pool) else self._go_on(pool))
        except BaseException:
            for uid in marked if marked is not None else [None]:
                self.mark(*place, uid)
            raise
        self._finish(place, done)

    def _try_again(self, place: tuple[str, str], what: str) -> None:
        """Have looked at again what could not be written; raises as long as that is so, which makes the delay grow.

        It has a key of its own: the delay of what is refused must not be that of other twins' changes.
        """
        owed = {uid: trouble for uid, trouble in self._troubles.get(place, {}).items() if trouble.again == what}
        for uid in owed:
            self._mark_troubled(place, uid)
        if owed:
            self._wake(Key(ROUTING, *place))
            raise ApplyError(next(iter(owed.values())).why)

    def _mark_troubled(self, place: tuple[str, str], uid: str) -> None:
        if uid != OF_POOL:  # that is looked at in every pass
            self.mark(*place, None if uid == OF_FULL_LOOK else uid)

    def _finish(self, place: tuple[str, str], done: Pass) -> None:
        """Tell what could not be written and see to it that it is tried again."""
        self._troubles[place] = done.troubles
        self._note_refused(place, done.said())
        for what in sorted({trouble.again for trouble in done.troubles.values() if trouble.again is not None}):
            self._wake(Key(ROUTING, place[0], f"{place[1]}{_AGAIN}{what}"))
        for uid in done.conflicts:
            self._mark_troubled(place, uid)
        if done.conflicts:
            raise ConflictError("some RoutingSlices were changed meanwhile")

    async def _publish(self, pool: Pool, marked: set[str] | None) -> Pass:
        header = header_of(pool, miners_have_tokens=self._miners_have_tokens(pool))
        place, done = (pool.namespace, pool.name), Pass(pool=pool, header=header)
        if names.routing_slice_name(pool.name, 0) not in self._world.published(pool).slices:
            marked = None
        if marked is None:
            await self._restore(done)
        published = self._world.published(pool)
        uids = self._all(pool, published.entries()) if marked is None else marked
        where = places(pool.name, published, uids)
        if marked is not None:
            done.keep(self._troubles.get(place, {}), but=uids)
        formerly: dict[str, TwinEntry | None] = {}
        changes: dict[str, TwinEntry | None] = {}
        texts: dict[str, str] = {}
        locked = published.unreadable
        placing = plan_placing(
            self._world, pool, published, uids, whole=marked is None, busy=self._busy(pool),
            slow={each.uid for each in self._slow(pool) or ()},
        )  # fmt: skip
        for uid in sorted(uids):
            twin = self._world.twin_of(uid)
            if uid in locked and twin is not None:
                continue  # written by another release: what is published for it stays
            previous = formerly[uid] = published.slices[where[uid]].twins.get(uid) if uid in where else None
            try:
                wanted = self._wanted(pool, twin, previous, placing.of(uid))
            except Exception as error:  # one twin's defect must not stop the others; its entry stays
                log.exception("MinerPool %s/%s: nothing can be published for twin %s", *place, uid)
                done.odd(uid, error)
                continue
            if wanted != previous or (uid in locked and twin is None):
                changes[uid] = wanted
            if wanted is not None and wanted.prompt_digest is not None and isinstance(twin, Twin):
                texts[wanted.prompt_digest] = twin.spec.system_prompt or ""
                done.users.setdefault(wanted.prompt_digest, set()).add(uid)
        absent = {digest for digest in texts if not is_prompt_published(published, digest)}
        waiting = {uid: entry for uid, entry in changes.items() if entry is not None and entry.prompt_digest in absent}
        written = await self._write_twins(done, {uid: changes[uid] for uid in changes.keys() - waiting.keys()})
        for patch in plan_second_entries(pool.name, published, uids - locked):
            await self._write(done, patch)
        for patch in [*plan_pods(pool.name, published, self._pods(pool)), *plan_prompts(pool.name, published, texts)]:
            await self._write(done, patch)
        now = self._world.published(pool)
        late = {uid: with_published_prompt(entry, formerly[uid], now) for uid, entry in waiting.items()}
        written |= await self._write_twins(done, {uid: late[uid] for uid in late if late[uid] != formerly[uid]})
        for patch in _headers(header, published, written):
            await self._write(done, patch)
        if marked is None:
            await self._tidy(done, set(texts))
        self._go_on_placing(place, placing, whole=marked is None, arrived=_arrived(formerly, changes))
        return done

    def _go_on_placing(self, place: tuple[str, str], placing: Placing, *, whole: bool, arrived: bool) -> None:
        """See to it that the rest is moved, when what moves now has arrived."""
        if whole:
            (self._unsettled.discard if placing.settled else self._unsettled.add)(place)
        if place in self._unsettled and (placing.moved > 0 or arrived):
            self.mark(*place, None)
            self._wake(Key(ROUTING, *place))

    async def _go_on(self, pool: PoolRef) -> Pass:
        """Publish what needs no spec: where pods are, and that what must not answer does so no more.

        A twin that is gone must go here too: its name may be another doctor's by now.
        """
        done = Pass(pool=pool, header=None)
        await self._restore(done)
        published = self._world.published(pool)
        done.header = next(
            (each.header for _, each in sorted(published.slices.items()) if each.header is not None), None
        )
        changes: dict[str, TwinEntry | None] = {}
        where = places(pool.name, published)
        locked = published.unreadable
        for uid in published.entries():
            entry = published.slices[where[uid]].twins[uid]
            wanted = self._without_spec(pool, self._world.twin_of(uid), entry)
            if wanted != entry:
                changes[uid] = wanted
        changes.update(dict.fromkeys(uid for uid in locked if self._world.twin_of(uid) is None))
        await self._write_twins(done, changes)
        for patch in [
            *plan_second_entries(pool.name, published, where.keys() - locked),
            *plan_pods(pool.name, published, self._pods(pool)),
        ]:
            if done.header is not None or patch.name in published.slices:
                await self._write(done, patch)
        return done

    async def _restore(self, done: Pass) -> None:
        """Bring back what readers look for: the slices' labels, and the first slice."""
        for error in await self._slices.restore_all(done.pool):
            done.failed(error, [OF_FULL_LOOK], again=_LABELS)
        first = names.routing_slice_name(done.pool.name, 0)
        if done.header is not None and first not in self._world.published(done.pool).slices:
            await self._write(done, SlicePatch(name=first))

    async def _write_twins(self, done: Pass, changes: Changes) -> set[str]:
        """Write these entries; returns the names of the slices that are concerned."""
        first, then = plan_twins(done.pool.name, self._world.published(done.pool), changes)
        for patch in [*first, *then]:
            await self._write(done, patch)
        return {patch.name for patch in then}

    def _note_refused(self, place: tuple[str, str], refused: dict[str, str]) -> None:
        pool = self._world.pool_ref(*place)
        if place not in self._world.unpublished and pool is not None:
            self._wake_those_that_tell_of_before(pool)
        former = self._world.unpublished.get(place, {})
        self._world.unpublished[place] = refused
        if refused == former:
            return
        self._wake(Key(MINER_POOL.kind, *place))
        for uid in refused.keys() ^ former.keys():
            if isinstance(twin := self._world.twin_of(uid), Twin):
                self._wake(Key(DOCTOR_TWIN.kind, twin.namespace, twin.name))

    def _wake_those_that_tell_of_before(self, pool: PoolRef) -> None:
        """Wake those whose status says what the leader before met: it is looked at now."""
        pool_key = Key(MINER_POOL.kind, pool.namespace, pool.name)
        for key in [pool_key, *(entry.key for entry in self._world.twins_selecting(pool))]:
            status = (self._store.get(key) or {}).get("status")
            if carried_over(status, "Ready", Reason.ROUTING_REFUSED) is not None:
                self._wake(key)

    def _without_spec(
        self, pool: PoolRef, twin: Twin | Unreadable | None, previous: TwinEntry | None
    ) -> TwinEntry | None:
        """Return the entry where the spec of the pool or of the twin can't be read: nothing new, but less at need."""
        if isinstance(twin, Unreadable):
            return without(previous, twin.taken_back) if previous is not None else None
        if twin is None or twin.deleted or twin.namespace != pool.namespace or previous is None:
            return None
        return without(previous, taken_back(twin.status, twin.annotations))

    def _miners_have_tokens(self, pool: Pool) -> bool:
        """Tell whether the pool's agents may turn away whoever brings no token."""
        headers = (each.header for each in self._world.published(pool).slices.values() if each.header is not None)
        had = any(header.miners_have_tokens for header in headers)
        return self._world.facts(pool.namespace, pool.name).miners_have_tokens(had=had)

    def _all(self, pool: Pool, entries: Iterable[str]) -> set[str]:
        """Return the twins that the pool serves, should serve, or served by their own memory."""
        found = set(entries)
        found.update(entry.manifest["metadata"]["uid"] for entry in self._world.twins_selecting(pool))
        for entry in self._store.of_kind("DoctorTwin", namespace=pool.namespace):
            if isinstance(entry.value, Twin) and pool.name in (entry.value.status.pools or ()):
                found.add(entry.value.uid)
        return found

    def _wanted(
        self, pool: Pool, twin: Twin | Unreadable | None, previous: TwinEntry | None, placed: Placed
    ) -> TwinEntry | None:
        if not isinstance(twin, Twin):
            return self._without_spec(pool, twin, previous)
        if twin.namespace != pool.namespace:
            return None
        matches = twin.spec.pool_selector.matches(dict(pool.labels))
        if not matches and previous is None and pool.name not in (twin.status.pools or ()):
            return None
        refused = refusal(pool, twin, self._world.bounds) if matches else not_selected()
        elsewhere = refused is not None and served_by_other(self._world, twin, pool)
        candidate = Candidate(twin=twin, refused=refused, served_elsewhere=elsewhere)
        facts = self._world.facts(pool.namespace, pool.name)
        return plan_entry(pool, candidate, previous=previous, ready=facts.ready, placed=placed)

    def _pods(self, pool: PoolRef) -> dict[str, PodEntry]:
        """Return the engine pods with their agents' addresses, from what the API server says of them."""
        found: dict[str, PodEntry] = {}
        for pod in self._world.facts(pool.namespace, pool.name).engines:
            if pod.ip is None:
                continue
            host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
            entry = parsed(PodEntry, {"name": pod.name, "address": f"{host}:{names.AGENT_PORT}"})
            if isinstance(entry, str):
                log.warning("pod %s/%s can't be published: %s", pool.namespace, pod.name, entry)
            else:
                found[pod.uid] = entry
        return found

    async def _write(self, done: Pass, patch: SlicePatch, *, of: str = OF_POOL) -> None:
        """Write one patch; what can't be written is noted. What is refused is then sent one by one."""
        try:
            await self._slices.send(done.pool, patch, done.header)
        except (ApiError, ChildConflictError, ConflictError) as error:
            if isinstance(error, ApiError) and error.refused and len(patch.twins) + len(patch.prompts) > 1:
                for part in patch.parts():
                    await self._write(done, part, of=of)
                return
            done.not_written(patch, error, of=of)

    async def _tidy(self, done: Pass, used: set[str]) -> None:
        """Take away system prompts of no twin, and slices without content; the first one stays."""
        pool = done.pool
        published = self._world.published(pool)
        for each in published.slices.values():
            used |= {entry.prompt_digest for entry in each.twins.values() if entry.prompt_digest}
        if not published.unreadable:
            for patch in plan_unused_prompts(published, used):
                await self._write(done, patch, of=OF_FULL_LOOK)
        published = self._world.published(pool)
        for name, each in sorted(published.slices.items()):
            empty = not (each.twins or each.unreadable or each.prompts or each.pods)
            if not empty or slice_number(pool.name, name) == 0 or name == names.pods_slice_name(pool.name):
                continue
            live = self._store.get(published.keys[name])
            if live is not None:
                uid = live["metadata"]["uid"]
                try:
                    await self._api.delete(ROUTING_SLICE, namespace=pool.namespace, name=name, uid=uid)
                except ApiError as error:
                    done.failed(error, [OF_FULL_LOOK], again=name)


def _arrived(formerly: Changes, changes: Changes) -> bool:
    """Tell whether a twin has left a pod."""
    pairs = [(formerly.get(uid), entry) for uid, entry in changes.items()]
    return any(
        old is not None and new is not None and new.placement is not None and len(new.pods or ()) < len(old.pods or ())
        for old, new in pairs
    )


def _headers(header: PoolHeader, published: Published, written: set[str]) -> list[SlicePatch]:
    """Return patches for the slices that say something else of their pool, and are not written anyway."""
    return [
        SlicePatch(name=name, header=header)
        for name, each in sorted(published.slices.items())
        if each.header != header and name not in written
    ]


def not_selected() -> Finding:
    """Return why a pool doesn't serve a twin that still answers from it."""
    return Finding(Reason.NO_POOL_MATCHES, "spec.poolSelector doesn't match the pool")


def served_by_other(world: World, twin: Twin, pool: Pool) -> bool:
    """Tell whether another pool, one that matches and can serve the twin, answers with the wanted version.

    What it publishes answers nobody until one of its ready pods holds it.
    """
    version = wanted_version(twin)
    wanted = version.served_name
    for other in world.pools(pool.namespace):
        if other.name == pool.name or other.deleted:
            continue
        if not twin.spec.pool_selector.matches(dict(other.labels)) or refusal(other, twin, world.bounds) is not None:
            continue
        entry = world.published(other).entry(twin.uid)
        if entry is None or all(each.served_name != wanted for each in entry.versions):
            continue
        ready = world.facts(other.namespace, other.name).ready
        reports = [report for report in ready.values() if report is not None]
        if ready and (version.digest is None or verified_on(wanted, version.digest, reports)):
            return True
    return False
