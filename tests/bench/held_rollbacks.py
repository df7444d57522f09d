"""A rollback that a person asks for while a hundred canaries wait for a Prometheus that never answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from bettertherapy_api import names
from tests.api.operator_harness import until
from tests.bench.clinic import READY_SECONDS, Clinic, at_once, digest_of
from twin_operator.engine.times import timestamp
from twin_operator.kinds.resources import DOCTOR_TWIN, FINE_TUNE_RUN

CANARIES: Final = 100
ROLLBACKS: Final = 20
_ROLLOUT: Final = {"steps": [{"weightPercent": 10, "seconds": 3600}]}


class HangingPrometheus:
    """Takes every question and answers none."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = asyncio.Event()
        self.waiting = 0


@contextlib.asynccontextmanager
async def hanging_prometheus() -> AsyncIterator[HangingPrometheus]:
    """Serve one on a free port."""

    async def query(_: web.Request) -> web.Response:
        found.waiting += 1
        found.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            found.waiting -= 1
        raise AssertionError("it never answers")

    app = web.Application()
    app.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found = HangingPrometheus(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield found
    finally:
        await runner.cleanup()


async def rollback_ms(clinic: Clinic, prometheus: HangingPrometheus) -> list[float]:
    """Return how long after each of 20 rollbacks was asked for the twin's slice sends no more to the new version.

    Every twin of the clinic has a canary by then, and the operator is waiting for Prometheus.
    """
    clinic.spec["rollout"] = _ROLLOUT
    await clinic.furnish()
    await clinic.until_ready()
    await clinic.world.start_pod("pool-0-miner-0", component="miner", pool="pool-0")
    await at_once(_passed(clinic, name) for name in clinic.names)
    await clinic.say("pool-0", dict(_held(name, 1) for name in clinic.names))
    await until(
        lambda: _all_tried(clinic), seconds=READY_SECONDS, what="every twin's new version takes its share", every=1.0
    )
    await asyncio.wait_for(prometheus.asked.wait(), timeout=60)
    measured = []
    for name in clinic.names[:: CANARIES // ROLLBACKS]:
        await until(lambda: _true(prometheus.waiting > 0), seconds=60, what="Prometheus is being asked", every=0.02)
        measured.append(await _rolled_back_ms(clinic, name))
    return measured


async def _true(value: bool) -> bool:
    return value


def _held(twin: str, version: int) -> tuple[str, dict[str, Any]]:
    digest = digest_of(twin, version)
    return names.served_name(twin, digest), {"twin": twin, "digest": digest, "state": "Verified"}


async def _passed(clinic: Clinic, twin: str) -> None:
    """Make a fine-tune whose version has passed its gate, as the operator leaves it."""
    world, digest = clinic.world, digest_of(twin, 1)
    await world.api.create({
        "apiVersion": names.API_VERSION, "kind": FINE_TUNE_RUN.kind,
        "metadata": {"name": f"{twin}-tuned", "namespace": world.namespace},
        "spec": {
            "twinRef": {"name": twin}, "parentDigest": digest_of(twin, 0),
            "dataset": {"uri": f"pvc://adapters/store/{twin}/interactions"},
        },
    })  # fmt: skip
    now = timestamp(datetime.now(UTC))
    status = {
        "pool": clinic.pool_of(twin), "startTime": now, "completionTime": now, "stage": "Evaluated",
        "verdict": "Promote",
        "artifact": {"uri": f"pvc://adapters/store/{twin}/new", "digest": digest, "rank": 8, "bytes": 1},
        "eval": {"verdict": "Promote", "samples": 40, "message": "better"},
    }  # fmt: skip
    path = FINE_TUNE_RUN.path(namespace=world.namespace, name=f"{twin}-tuned", subresource="status")
    await world.api._request("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")


async def _all_tried(clinic: Clinic) -> bool:
    return await _weights(clinic) == {
        name: {digest_of(name, 0): 90, digest_of(name, 1): 10} for name in clinic.names
    }  # fmt: skip


async def _weights(clinic: Clinic) -> dict[str, dict[str, int]]:
    return {
        entry["name"]: {version["digest"]: version["weightPercent"] for version in entry["versions"]}
        for each in await clinic.slices()
        for entry in (each.get("twins") or {}).values()
    }


async def _rolled_back_ms(clinic: Clinic, twin: str) -> float:
    patch = {"metadata": {"annotations": {names.ROLLBACK_ANNOTATION: digest_of(twin, 0)}}}

    async def ask() -> None:
        await clinic.world.api.merge(DOCTOR_TWIN, namespace=clinic.world.namespace, name=twin, patch=patch)

    def is_off(entry: Any) -> bool:
        tried = {version["digest"]: version["weightPercent"] for version in entry["versions"]}
        return not tried.get(digest_of(twin, 1))

    return await clinic.seen_ms(twin, ask(), is_off)
