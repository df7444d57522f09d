"""Requests to the API server: plain dictionaries through `kubernetes.aio`'s client, with timeouts, counted writes and a
guard that stops them without leadership.

The guard is asked twice for a write: before anything is done, for how long the request may take; and once more when a
connection is there and the bytes are about to be sent, since opening one takes time in which leadership can end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from bettertherapy_api import names
from twin_operator.engine import metrics
from twin_operator.engine.resources import Manifest, Resource
from twin_operator.errors import ApiError

log = logging.getLogger(__name__)

LIST_CHUNK = 500
_LISTINGS = 3
"""How often a list is begun anew whose pages the API server no longer has."""
Listed = list[Manifest]
Guard = Callable[[], float]
"""Returns for how many seconds writes are allowed from now on; raises NotLeaderError when they aren't."""
_AT_SENDING: ContextVar[Guard | None] = ContextVar("at_sending", default=None)
_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


async def configuration_from_environment() -> Configuration:
    """Return how to reach the API server: the pod's service account, or $KUBECONFIG (default ~/.kube/config)."""
    configuration = cast("Configuration", type.__call__(Configuration))
    if _SERVICE_ACCOUNT_TOKEN.exists():  # noqa: ASYNC240  # one stat at start
        from kubernetes.aio.config.incluster_config import load_incluster_config  # noqa: PLC0415

        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        from kubernetes.aio.config.kube_config import load_kube_config  # noqa: PLC0415  # only outside a cluster

        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    # Else ~/.netrc is read for every request, in a thread that it waits for. kopf's connection does without, too.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


class Api:
    """The API server. Every method raises ApiError; reads need no leadership, writes ask `guard` first.

    `resources` are the types by whose kinds manifests are told apart.
    """

    def __init__(
        self, client: ApiClient, *, request_seconds: float, resources: Mapping[str, Resource],
        guard: Guard = lambda: math.inf, user_agent: str = "twin-operator",
    ) -> None:  # fmt: skip
        self._client = client
        self._resources = resources
        self._seconds = request_seconds
        self._guard = guard
        self._user_agent = user_agent
        if getattr(client.configuration, "trace_configs", None) is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_headers_sent.append(_ask_again)
            client.configuration.trace_configs = [tracing]  # its session is made with the first request

    def guarded_by(self, guard: Guard) -> Api:
        """Return the same access whose writes are refused and bounded by `guard`."""
        return Api(
            self._client, request_seconds=self._seconds, resources=self._resources, guard=guard,
            user_agent=self._user_agent,
        )  # fmt: skip

    def resource_of(self, kind: str) -> Resource:
        """Return the type that a manifest's `kind` names."""
        return self._resources[kind]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, *, namespace: str, name: str) -> Manifest | None:
        """Return one object, or None when there is none."""
        try:
            return await self._request("GET", resource.path(namespace=namespace, name=name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, *, namespace: str | None, selector: str | None = None,
        keep: Callable[[Manifest], Manifest] = lambda thing: thing,
    ) -> tuple[list[Manifest], int]:  # fmt: skip
        """Return all objects, each with its kind filled in, and the list's resourceVersion.

        `keep`: what to keep of each, asked page by page, so that not all of them are there as they came.
        """
        for _ in range(_LISTINGS - 1):
            try:
                return await self._pages(resource, namespace=namespace, selector=selector, keep=keep)
            except ApiError as error:
                if error.status != 410:  # the API server forgot the list between two pages
                    raise
        return await self._pages(resource, namespace=namespace, selector=selector, keep=keep)

    async def _pages(
        self, resource: Resource, *, namespace: str | None, selector: str | None, keep: Callable[[Manifest], Manifest]
    ) -> tuple[Listed, int]:
        items: Listed = []
        query: dict[str, str] = {"limit": str(LIST_CHUNK)}
        if selector is not None:
            query["labelSelector"] = selector
        while True:
            page = await self._request("GET", resource.path(namespace=namespace), query=query)
            for item in page.get("items") or []:
                item["metadata"].pop("managedFields", None)  # half of its bytes, and nobody reads them
                items.append(keep({"apiVersion": resource.api_version, "kind": resource.kind, **item}))
            if not (following := page["metadata"].get("continue")):
                return items, int(page["metadata"]["resourceVersion"])
            query["continue"] = following

    async def apply(
        self, manifest: Manifest, *, subresource: str | None = None, manager: str = names.FIELD_MANAGER
    ) -> Manifest:
        """Server-side apply with our field manager; we win conflicts over fields, since those we state are ours.

        A manifest with `metadata.resourceVersion` is refused with 409 when the object has changed since.
        """
        metadata = manifest["metadata"]
        path = self._resources[manifest["kind"]].path(
            namespace=metadata["namespace"], name=metadata["name"], subresource=subresource
        )
        return await self._write(
            "apply", manifest["kind"], "PATCH", path, query={"fieldManager": manager, "force": "true"},
            body=manifest, content_type="application/apply-patch+yaml",
        )  # fmt: skip

    async def merge(self, resource: Resource, *, namespace: str, name: str, patch: Manifest) -> Manifest:
        """JSON merge patch."""
        return await self._write(
            "patch", resource.kind, "PATCH", resource.path(namespace=namespace, name=name),
            query={"fieldManager": names.FIELD_MANAGER}, body=patch, content_type="application/merge-patch+json",
        )  # fmt: skip

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; ApiError 409 when it exists."""
        path = self._resources[manifest["kind"]].path(namespace=manifest["metadata"]["namespace"])
        return await self._write(
            "create", manifest["kind"], "POST", path, query={"fieldManager": names.FIELD_MANAGER}, body=manifest
        )

    async def would_create(self, manifest: Manifest) -> bool:
        """Tell whether `create` would make an object, without making it: False means that one of its name exists.

        It needs the right to create and none to read, so it tells of a Secret no more than that it is there.
        """
        path = self._resources[manifest["kind"]].path(namespace=manifest["metadata"]["namespace"])
        try:
            await self._request(
                "POST", path, query={"fieldManager": names.FIELD_MANAGER, "dryRun": "All"}, body=manifest
            )
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return False
            raise
        return True

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object; ApiError 409 when it changed since it was read."""
        metadata = manifest["metadata"]
        path = self._resources[manifest["kind"]].path(namespace=metadata["namespace"], name=metadata["name"])
        return await self._write(
            "update", manifest["kind"], "PUT", path, query={"fieldManager": names.FIELD_MANAGER}, body=manifest
        )

    async def delete(
        self, resource: Resource, *, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        """Delete exactly the object with this UID; one that is gone already is fine.

        With `version` (a resourceVersion), ApiError 409 when the object has changed since.
        """
        conditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        try:
            await self._write(
                "delete", resource.kind, "DELETE", resource.path(namespace=namespace, name=name), query={},
                body={"preconditions": conditions, "propagationPolicy": "Background"},
            )  # fmt: skip
        except ApiError as error:
            if error.status != 404 and not (error.status == 409 and version is None):
                raise

    async def _write(
        self, verb: str, kind: str, method: str, path: str, *, query: Mapping[str, str], body: Manifest,
        content_type: str = "application/json",
    ) -> Manifest:  # fmt: skip
        seconds = min(self._seconds, self._guard())
        status = 0
        asked = _AT_SENDING.set(self._guard)
        try:
            answer = await self._request(
                method, path, query=query, body=body, content_type=content_type, seconds=seconds
            )
            status = 200
        except ApiError as error:
            status = error.status
            raise
        finally:
            _AT_SENDING.reset(asked)
            metrics.API_WRITES.labels(verb=verb, kind=kind, status=str(status)).inc()
            metrics.API_WRITTEN_BYTES.labels(kind=kind).inc(len(orjson.dumps(body)))
        return answer

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Manifest | None = None,
        content_type: str = "application/json", seconds: float | None = None,
    ) -> Manifest:  # fmt: skip
        seconds = self._seconds if seconds is None else seconds
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": self._user_agent}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = await self._client.call_api(
                method, url, header_params=headers, body=body, _request_timeout=aiohttp.ClientTimeout(total=seconds)
            )
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise ApiError(
                status=0, reason="Timeout", message=f"no answer from the API server within {seconds:.1f} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(status=0, reason="Unreachable", message=f"can't reach the API server: {error}") from error
        return _answer(response.status, data)


async def _ask_again(*_: object) -> None:
    """Called with the headers ready and nothing sent: raises NotLeaderError when leadership ended meanwhile."""
    guard = _AT_SENDING.get()
    if guard is not None:
        guard()


def _answer(status: int, data: bytes) -> Manifest:
    try:
        answer: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        answer = None
    if status >= 300 or not isinstance(answer, dict):
        details = answer if isinstance(answer, dict) else {}
        raise ApiError(
            status=status,
            reason=str(details.get("reason") or "BadAnswer"),
            message=str(details.get("message") or data[:200].decode(errors="replace")),
            causes=[str(cause.get("reason")) for cause in (details.get("details") or {}).get("causes") or []],
        )
    return cast("Manifest", answer)
