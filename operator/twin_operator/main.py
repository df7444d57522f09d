"""The operator's entry point: every trigger on one screen. What follows from them is in `process` and `kinds`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any

import kopf
import uvloop

from twin_operator.engine.api import LIST_CHUNK
from twin_operator.engine.garbage import collect_seldom, set_aside
from twin_operator.engine.health import serve_health
from twin_operator.engine.resources import Resource
from twin_operator.errors import TypesChangedError
from twin_operator.kinds.watched import WATCHED
from twin_operator.kopf_storage import NoDiffBase, NoProgress
from twin_operator.process import Process
from twin_operator.settings import Settings, from_environment

log = logging.getLogger(__name__)

FINALIZER = "bettertherapy.io/twin-operator"


def registry_for(process: Process) -> kopf.OperatorRegistry:
    """Register one event handler per watched type: raw events make kopf write nothing to the objects."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    for resource in (each.resource for each in WATCHED):
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)(
            handler_for(process, resource)
        )
    return registry


def handler_for(process: Process, resource: Resource) -> Any:
    """Return the handler of a type's events: update the cache, whose listener queues what the change concerns."""

    async def observed(event: kopf.RawEvent, **_: Any) -> None:
        process.observe(resource, event["type"], dict(event["object"]))

    return observed


async def login(settings: kopf.OperatorSettings, **kwargs: Any) -> kopf.ConnectionInfo | None:
    """Use the pod's service account, else the kubeconfig; kopf's own choice would import the synchronous client."""
    return kopf.login_with_service_account(settings=settings, **kwargs) or kopf.login_with_kubeconfig(
        settings=settings, **kwargs
    )


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Return how kopf runs: it only watches."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.posting.level = logging.WARNING
    chosen.persistence.finalizer = FINALIZER
    chosen.persistence.progress_storage = NoProgress()
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.scanning.disabled = True
    chosen.networking.request_timeout = settings.request_seconds * 3
    chosen.networking.connect_timeout = settings.request_seconds
    # A watch that says nothing is reopened long before anybody notices; bookmarks come about once a minute.
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = settings.request_seconds
    chosen.watching.chunk_size = LIST_CHUNK  # ten thousand objects at once, as they come, would double its memory
    chosen.queueing.worker_limit = 256
    # kopf keeps one worker per object until it has idled this long, and new objects wait for a free one.
    chosen.queueing.idle_timeout = 0.05
    chosen.queueing.exit_timeout = 0.5
    for each in WATCHED:
        if each.selector is not None:
            resource = each.resource
            chosen.watching.label_selectors[resource.group, resource.version, resource.plural] = each.selector
    return chosen


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, which kopf catches, or until a part fails."""
    collect_seldom()
    process = await Process.connect(settings)
    async with (
        serve_health(
            host=settings.http_host, port=settings.http_port, unhealthy=process.unhealthy, unready=process.unready
        ) as port,
        process,
    ):
        set_aside()
        log.info("%s serves /healthz, /readyz and /metrics on port %d", settings.identity, port)
        work = asyncio.create_task(process.run(), name="work")
        watch = asyncio.create_task(
            kopf.operator(
                registry=registry_for(process),
                settings=kopf_settings(settings),
                standalone=True,
                clusterwide=settings.namespace is None,
                namespaces=[settings.namespace] if settings.namespace else [],
            ),
            name="watch",
        )
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, watch):
            task.cancel()
        results = await asyncio.gather(work, watch, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


def main() -> None:
    """Run the operator; the exit status is 1 when a part of it failed or is to begin anew."""
    settings = from_environment(sys.argv[1:])
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of every event it hands on
    changed: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run(settings))
        except* TypesChangedError as group:
            changed = [str(error) for error in leaves(group)]
    if changed:
        log.error("%s", "; ".join(changed))
        sys.exit(1)


def leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """Iterate over the errors of a group and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
