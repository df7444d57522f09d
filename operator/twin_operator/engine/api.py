"""Requests to the API server: plain dictionaries through `kubernetes.aio`'s client, with timeouts, counted writes and a
guard that stops them without leadership."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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
    return configuration


class Api:
    """The API server. Every method raises ApiError; reads need no leadership, writes ask `guard` first.

    `resources` are the types by whose kinds manifests are told apart.
    """

    def __init__(
        self, client: ApiClient, *, request_seconds: float, resources: Mapping[str, Resource],
        guard: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._client = client
        self._resources = resources
        self._timeout = aiohttp.ClientTimeout(total=request_seconds)
        self._guard = guard

    def guarded_by(self, guard: Callable[[], None]) -> Api:
        """Return the same access whose writes call `guard` before anything is sent; it raises to refuse."""
        return Api(
            self._client, request_seconds=self._timeout.total or 0, resources=self._resources, guard=guard
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
        self, resource: Resource, *, namespace: str | None, selector: str | None = None
    ) -> tuple[list[Manifest], int]:
        """Return all objects, each with its kind filled in, and the list's resourceVersion."""
        items: list[Manifest] = []
        query: dict[str, str] = {"limit": str(LIST_CHUNK)}
        if selector is not None:
            query["labelSelector"] = selector
        while True:
            page = await self._request("GET", resource.path(namespace=namespace), query=query)
            for item in page.get("items") or []:
                items.append({"apiVersion": resource.api_version, "kind": resource.kind, **item})
            if not (following := page["metadata"].get("continue")):
                return items, int(page["metadata"]["resourceVersion"])
            query["continue"] = following

    async def apply(self, manifest: Manifest, *, subresource: str | None = None) -> Manifest:
        """Server-side apply with our field manager; we win conflicts, since the fields we state are ours."""
        metadata = manifest["metadata"]
        path = self._resources[manifest["kind"]].path(
            namespace=metadata["namespace"], name=metadata["name"], subresource=subresource
        )
        return await self._write(
            "apply", manifest["kind"], "PATCH", path,
            query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
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

    async def delete(self, resource: Resource, *, namespace: str, name: str, uid: str) -> None:
        """Delete exactly the object with this UID; one that is gone already is fine."""
        try:
            await self._write(
                "delete", resource.kind, "DELETE", resource.path(namespace=namespace, name=name), query={},
                body={"preconditions": {"uid": uid}, "propagationPolicy": "Background"},
            )  # fmt: skip
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _write(
        self, verb: str, kind: str, method: str, path: str, *, query: Mapping[str, str], body: Manifest,
        content_type: str = "application/json",
    ) -> Manifest:  # fmt: skip
        self._guard()
        status = 0
        try:
            answer = await self._request(method, path, query=query, body=body, content_type=content_type)
            status = 200
        except ApiError as error:
            status = error.status
            raise
        finally:
            metrics.API_WRITES.labels(verb=verb, kind=kind, status=str(status)).inc()
        return answer

    async def _request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:  # fmt: skip
        headers: dict[str, str] = {"Accept": "application/json", "Content-Type": content_type}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = await self._client.call_api(
                method, url, header_params=headers, body=body, _request_timeout=self._timeout
            )
            data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise ApiError(
                status=0, reason="Timeout", message=f"no answer from the API server within {self._timeout.total} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(status=0, reason="Unreachable", message=f"can't reach the API server: {error}") from error
        return _answer(response.status, data)


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
        )
    return cast("Manifest", answer)
