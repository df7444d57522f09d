"""The API server, reached as kubectl reaches it: by the kubeconfig and its current context.

Objects are plain JSON. The `kubernetes` package is imported when a command first needs it: it takes a second, and
`--help` should not.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote

from bettertherapy_api.names import API_VERSION
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.forward import Forward

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = dict[str, Any]

FIELD_MANAGER = "kubectl-twin"
_TIMEOUT_S = 20.0
_FORWARD_TIMEOUT_S = 20.0
_NOT_FOUND = 404


def twins_path(namespace: str | None, name: str | None = None) -> str:
    """Return the path of one twin, of a namespace's twins, or with namespace None of all."""
    return _path(f"/apis/{API_VERSION}", "doctortwins", namespace, name)


def pool_path(namespace: str, name: str) -> str:
    """Return the path of a MinerPool."""
    return _path(f"/apis/{API_VERSION}", "minerpools", namespace, name)


def pools_path(namespace: str) -> str:
    """Return the path of a namespace's MinerPools."""
    return _path(f"/apis/{API_VERSION}", "minerpools", namespace, None)


def validator_path(namespace: str, name: str) -> str:
    """Return the path of a Validator."""
    return _path(f"/apis/{API_VERSION}", "validators", namespace, name)


def runs_path(namespace: str, name: str | None = None) -> str:
    """Return the path of a FineTuneRun, or of all in a namespace."""
    return _path(f"/apis/{API_VERSION}", "finetuneruns", namespace, name)


def rounds_path(namespace: str, name: str | None = None) -> str:
    """Return the path of a ValidatorRound, or of all in a namespace."""
    return _path(f"/apis/{API_VERSION}", "validatorrounds", namespace, name)


def slices_path(namespace: str) -> str:
    """Return the path of a namespace's RoutingSlices."""
    return _path(f"/apis/{API_VERSION}", "routingslices", namespace, None)


def reports_path(namespace: str) -> str:
    """Return the path of a namespace's PodReports."""
    return _path(f"/apis/{API_VERSION}", "podreports", namespace, None)


def core_path(resource: str, namespace: str, name: str | None = None) -> str:
    """Return the path of an object, or of all objects, of the core group in a namespace."""
    return _path("/api/v1", resource, namespace, name)


def _path(root: str, resource: str, namespace: str | None, name: str | None) -> str:
    parts = [root]
    if namespace is not None:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(resource)
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)


@dataclass(frozen=True)
class ResourceOfPath:
    """What a path speaks of, for messages."""

    resource: str
    namespace: str | None
    name: str | None

    @classmethod
    def parse(cls, path: str) -> ResourceOfPath:
        """Read a path made by this module."""
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = None
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        return cls(resource=parts[0], namespace=namespace, name=parts[1] if len(parts) > 1 else None)


def refusal(status: int, body: bytes, *, verb: str, path: str) -> ApiError:
    """Turn the API server's refusal into a sentence that says what to do."""
    try:
        said = str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        said = body[:300].decode(errors="replace")
    what = ResourceOfPath.parse(path)
    where = f" in namespace {what.namespace}" if what.namespace else " in all namespaces"
    if status == 401:
        message = "The API server does not know you: log in again, or check the user of your kubeconfig's context."
    elif status == 403:
        group = ".bettertherapy.io" if "/bettertherapy.io/" in path else ""
        scope = f" -n {what.namespace}" if what.namespace else " --all-namespaces"
        message = (
            f"You may not {verb} {what.resource}{group}{where}. Ask an administrator for it; "
            f"`kubectl auth can-i {verb} {what.resource}{group}{scope}` shows when you may."
        )
    elif status == _NOT_FOUND and what.name is None:
        message = (
            f"This cluster does not know {what.resource}. Install the operator first: "
            "`helm install twin-operator charts/twin-operator`."
        )
    elif status == _NOT_FOUND:
        message = f"There is no {what.name} among the {what.resource}{where}."
    else:
        message = f"The API server answered {status} to {verb} {what.resource}: {said}"
    return ApiError(message, status=status)


class Api:
    """A connection to the API server of the kubeconfig's context."""

    def __init__(self, client: ApiClient, *, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        """The context's namespace, which commands use unless told another."""

    @classmethod
    def connect(cls, *, context: str | None = None, kubeconfig: Path | None = None) -> Api:
        """Read the kubeconfig (the given one, else $KUBECONFIG, else ~/.kube/config); makes no request yet.

        Raises:
            TwinCliError: no kubeconfig, or no such context.
        """
        from kubernetes import client, config  # noqa: PLC0415 - a second to import

        settings = client.Configuration()
        file = None if kubeconfig is None else str(kubeconfig)
        try:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=file, context=context, client_configuration=settings
            )
            contexts, active = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            remedy = "Set KUBECONFIG, for the local cluster `export KUBECONFIG=$(make -s kubeconfig)`"
            if context is not None:
                remedy += f", or choose another --context than {context}: `kubectl config get-contexts` lists them"
            raise TwinCliError(f"No usable kubeconfig: {str(error).rstrip('.')}. {remedy}.") from error
        chosen = active if context is None else next(c for c in contexts if c["name"] == context)
        settings.retries = 1
        if not settings.verify_ssl:
            _accept_unverified()
        return cls(client.ApiClient(settings), namespace=chosen["context"].get("namespace") or "default")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return the object or list at `path`.

        Raises:
            ApiError: the API server refused; `.status` is 404 for what does not exist.
            TwinCliError: it can't be reached.
        """
        verb = "get" if ResourceOfPath.parse(path).name else "list"
        return self._ask("GET", path, verb=verb, query=query)

    def patch(self, path: str, body: Json) -> Json:
        """Merge `body` into the object at `path` (null removes a field) and return the whole; raises as `get`."""
        return self._ask("PATCH", path, verb="patch", query={"fieldManager": FIELD_MANAGER}, body=body)

    def _ask(
        self, method: str, path: str, *, verb: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        request = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=_TIMEOUT_S)
            answer: bytes = response.read() or b""  # type: ignore[no-untyped-call]
        except (HTTPError, OSError, ApiException) as error:
            host = self._client.configuration.host
            raise TwinCliError(
                f"Can't reach the API server at {host}: {_cause(error)}. Is the cluster up, and is KUBECONFIG "
                "the right one? For the local cluster: `make status`."
            ) from error
        if response.status >= 300:
            raise refusal(response.status, answer, verb=verb, path=path)
        return cast(Json, json.loads(answer))

    def find(self, path: str) -> Json | None:
        """Return the object at `path`, None when it does not exist; otherwise as `get`."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def items(self, path: str, *, labels: str | None = None, fields: str | None = None) -> list[Json]:
        """Return the objects of the list at `path`; raises as `get`."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        answer = self.get(path, {key: value for key, value in query.items() if value is not None})
        return list(answer.get("items") or [])

    def forward(self, *, namespace: str, pod: str, port: int) -> Forward:
        """Open a connection to a port of a pod, through the API server.

        Raises:
            TwinCliError: the API server or the kubelet refused.
        """
        from kubernetes.client import CoreV1Api  # noqa: PLC0415
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from kubernetes.stream import portforward  # noqa: PLC0415

        socket.setdefaulttimeout(_FORWARD_TIMEOUT_S)  # the WebSocket client takes no timeout for its handshake
        try:
            opened = portforward(
                CoreV1Api(self._client).connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)
            )
        except ApiException as error:
            raise TwinCliError(
                f"The API server opened no connection to pod {pod} in namespace {namespace}: {_handshake(error)}. "
                f"You need the right to create pods/portforward: `kubectl auth can-i create pods/portforward -n "
                f"{namespace}`."
            ) from error
        except OSError as error:
            raise TwinCliError(
                f"The connection to pod {pod} through the API server broke: {error}. Try again."
            ) from error
        finally:
            socket.setdefaulttimeout(None)
        return Forward(opened, port)


def _accept_unverified() -> None:
    """Be as quiet as kubectl where the kubeconfig itself says insecure-skip-tls-verify."""
    import urllib3  # noqa: PLC0415

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if reason is not None else error).split("(Caused by")[0].strip().rstrip(".")


def _handshake(error: Exception) -> str:
    text = str(getattr(error, "reason", None) or error).strip()
    return text.splitlines()[0][:300] if text else "no reason given"
