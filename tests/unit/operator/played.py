"""The whole operator over an API server in memory: every reconciler, trigger and index is the real one."""

from __future__ import annotations

import asyncio
from typing import Any

from bettertherapy_api import names
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.samples import NAMESPACE, digest, pool_object, twin_object
from twin_operator.engine.resources import Key, Manifest
from twin_operator.errors import ApiError, OperatorError
from twin_operator.kinds.resources import BY_KIND, POD_REPORT
from twin_operator.kinds.watched import WATCHED
from twin_operator.process import Process
from twin_operator.settings import Settings

WATCHED_BY_KIND = {each.resource.kind: each for each in WATCHED}


class Played:
    """Use inside a running loop. `settle` works until nothing is left to do."""

    def __init__(self, api: FakeApi | None = None, **settings: Any) -> None:
        self.api = api or FakeApi()
        self.process = Process(
            Settings(**{"identity": "op", "lease_namespace": "system", **settings}),
            self.api,  # type: ignore[arg-type]
        )
        self.process.queue.spacing.clear()  # test_queue tells of that; here it would be waited for
        self.hears = True
        self.api.listeners.append(self._heard)
        self.problems: list[Exception] = []

    def _heard(self, event: str, thing: Manifest) -> None:
        watched = WATCHED_BY_KIND.get(thing["kind"])
        if not self.hears or watched is None:
            return
        if watched.selector is not None and watched.selector not in (thing["metadata"].get("labels") or {}):
            event = "DELETED"  # so says a watch with a selector of what lost its label
        self.process.observe(watched.resource, event, thing)

    async def lead(self) -> None:
        """Begin as a new leader does."""
        self.process.queue.clear()
        await self.process.relist()
        self.process._gained()

    async def settle(self, *, rounds: int = 2000) -> None:
        """Reconcile until no key waits and no timer is about to add one."""
        queue = self.process.queue
        for _ in range(rounds):
            if len(queue) == 0:
                soon = [when for when, _ in queue._timers.values() if when - asyncio.get_running_loop().time() < 2]
                if not soon:
                    return
                await asyncio.sleep(0.005)
                continue
            key = await queue.take()
            try:
                await self.process._reconcile(key)
            except OperatorError as error:
                self.problems.append(error)
                queue.failed(key)
            else:
                queue.done(key)
        raise AssertionError(f"it does not come to rest: {[str(key) for key in queue.started_at]}")

    # --- what is there

    def twin(self, name: str = "dr-a") -> Manifest:
        return self.api.objects[Key("DoctorTwin", NAMESPACE, name)]

    def pool(self, name: str = "p") -> Manifest:
        return self.api.objects[Key("MinerPool", NAMESPACE, name)]

    def entries(self) -> dict[str, Manifest]:
        """Return all published entries by UID."""
        found: dict[str, Manifest] = {}
        for each in self.api.kinds("RoutingSlice").values():
            found.update(each.get("twins") or {})
        return found

    def answering(self, name: str = "dr-a") -> list[tuple[str, int]]:
        """Return the digests that answer under a twin's name, with their weights."""
        return [
            (version.get("digest", ""), version["weightPercent"])
            for entry in self.entries().values()
            if entry["name"] == name
            for version in entry["versions"]
        ]

    def condition(self, kind: str, thing: Manifest) -> tuple[str, str, str]:
        for each in (thing.get("status") or {}).get("conditions") or []:
            if each["type"] == kind:
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    # --- what others do

    def start_pool(self, name: str = "p", **spec: Any) -> None:
        self.api.put(without_server_fields(pool_object(name, **spec)))

    def start_twin(self, name: str = "dr-a", **fields: Any) -> Manifest:
        return self.api.put(without_server_fields(twin_object(name, **fields)))

    def start_pod(
        self, name: str = "e1", *, pool: str = "p", component: str = "engine", ip: str = "10.0.0.1"
    ) -> Manifest:
        return self.api.put({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": {names.LABEL_POOL: pool, names.LABEL_COMPONENT: component},
            },
            "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        })  # fmt: skip

    def report(self, pod: str = "e1", *letters: tuple[str, str], pool: str = "p", **more: Any) -> None:
        """Say that the pod holds these versions, each (twin, letter), verified."""
        uid = self.api.objects[Key("Pod", NAMESPACE, pod)]["metadata"]["uid"]
        adapters = {
            names.served_name(twin, digest(letter)): {"twin": twin, "digest": digest(letter), "state": "Verified"}
            for twin, letter in letters
        }
        key = Key(POD_REPORT.kind, NAMESPACE, pod)
        if key in self.api.objects:
            known = self.api.objects[key].get("adapters") or {}
            adapters = {**dict.fromkeys(known.keys() - adapters.keys()), **adapters}  # type: ignore[arg-type]
        self.api.put({
            "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
            "metadata": {
                "name": pod, "namespace": NAMESPACE,
                "labels": {names.LABEL_POOL: pool, names.LABEL_COMPONENT: "report"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}],
            },
            "pod": {"name": pod, "uid": uid}, "ready": True, "engine": {"live": True}, "adapters": adapters, **more,
        })  # fmt: skip

    def drop_twin(self, name: str = "dr-a") -> None:
        self.api.drop(Key("DoctorTwin", NAMESPACE, name))

    def annotate(self, name: str, **annotations: str) -> None:
        self.api.put({
            **{part: self.twin(name)[part] for part in ("apiVersion", "kind")},
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        })  # fmt: skip


async def serving() -> Played:
    """A pool with one pod, in which version `a` of dr-a answers."""
    world = Played()
    world.start_pool()
    world.start_pod()
    world.report()
    world.start_twin()
    await world.lead()
    await world.settle()
    world.report("e1", ("dr-a", "a"))
    await world.settle()
    assert world.answering() == [(digest("a"), 100)]
    return world


def without_server_fields(thing: Manifest) -> Manifest:
    """Return it as a user writes it."""
    metadata = {
        name: value for name, value in thing["metadata"].items() if name not in ("uid", "resourceVersion", "generation")
    }
    made = {**thing, "metadata": metadata}
    if not made.get("status"):
        made.pop("status", None)
    return made


def api_error(status: int, message: str = "no") -> ApiError:
    return ApiError(status=status, reason="Refused", message=message)


def resource_kinds() -> set[str]:
    return set(BY_KIND)
