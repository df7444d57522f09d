"""The API server, reached as kubectl reaches it: by the kubeconfig and its current context.

Objects are plain JSON over the standard library's HTTP: a client library takes longer to import than to ask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection, RemoteDisconnected
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import quote, urlencode, urlsplit

from bettertherapy_api.names import API_VERSION
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.kubeconfig import Access, Reach, access, proxy_identity

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from kubectl_twin.forward import Forward

Json = dict[str, Any]

FIELD_MANAGER = "kubectl-twin"
_TIMEOUT_S = 20.0
_WATCH_SILENCE_S = 300.0
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


class ResourceOfPath(NamedTuple):
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
            "`helm install twin-operator charts/twin-operator -n twin-system --create-namespace`."
        )
    elif status == _NOT_FOUND:
        message = f"There is no {what.name} among the {what.resource}{where}."
    else:
        message = f"The API server answered {status} to {verb} {what.resource}: {said}"
    return ApiError(message, status=status)


class Api:
    """A connection to the API server of the kubeconfig's context."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._line: HTTPConnection | None = None
        self.namespace = access.namespace
        """The context's namespace, which commands use unless told another."""

    @classmethod
    def connect(cls, *, reach: Reach | None = None, kubeconfig: Path | None = None) -> Api:
        """Read the kubeconfig (the given one, else $KUBECONFIG, else ~/.kube/config); makes no request yet.

        Raises:
            TwinCliError: no kubeconfig, no such context, or a way to log in that is not known here.
        """
        meant = reach or Reach(kubeconfig=None if kubeconfig is None else str(kubeconfig))
        return cls(access(meant))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()

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

    def watch(self, path: str, *, since: str, fields: str | None = None) -> Iterator[tuple[str, Json]]:
        """Yield what happens to the objects of the list at `path`, as (event, object), until the API server ends it.

        Raises:
            ApiError: it was refused; 410 where `since` is too long ago.
            TwinCliError: the API server went away.
        """
        query = {"watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true"}
        query |= {"fieldSelector": fields} if fields is not None else {}
        line = self._call()
        try:
            line.request("GET", _target(self._access, path, query), headers=_sent(_headers(self._access)))
            response = line.getresponse()
            if response.status >= 300:
                raise refusal(response.status, response.read(), verb="watch", path=path)
            if line.sock is not None:
                line.sock.settimeout(_WATCH_SILENCE_S)
            while text := response.readline():
                event = json.loads(text)
                if event.get("type") == "ERROR":
                    code = int((event.get("object") or {}).get("code") or 500)
                    raise refusal(code, json.dumps(event["object"]).encode(), verb="watch", path=path)
                yield str(event["type"]), event["object"]
        except TimeoutError:
            return  # nothing happened for long: who listens asks anew
        except (HTTPException, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            line.close()

    def _ask(
        self, method: str, path: str, *, verb: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        headers = _headers(self._access)
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        status, answer = self._exchange(
            method, _target(self._access, path, query), None if body is None else json.dumps(body).encode(), headers
        )
        if status >= 300:
            raise refusal(status, answer, verb=verb, path=path)
        return cast(Json, json.loads(answer))

    def _exchange(self, method: str, target: str, body: bytes | None, headers: HTTPMessage) -> tuple[int, bytes]:
        """Ask over the line that is open; one that the API server has closed meanwhile is opened again, once."""
        for kept in (self._line is not None, False):
            if self._line is None:
                self._line = self._call()
            try:
                self._line.request(method, target, body=body, headers=_sent(headers))
                response = self._line.getresponse()
                return response.status, response.read()
            except (RemoteDisconnected, ConnectionError) as error:
                self._hang_up()
                if not kept:
                    raise self._unreachable(error) from error
            except (HTTPException, OSError) as error:
                self._hang_up()
                raise self._unreachable(error) from error
        raise AssertionError("a line that was opened just now is either used or refused")

    def _call(self) -> HTTPConnection:
        """Return a line to the API server, through the proxy if there is one; it is opened by its first request."""
        server, proxy = urlsplit(self._access.server), self._access.proxy
        far = (server.hostname or "", server.port or (443 if self._access.tls else 80))
        near = far
        if proxy is not None:
            split = urlsplit(proxy)
            near = (split.hostname or "", split.port or (443 if split.scheme == "https" else 80))
        line: HTTPConnection
        if self._access.tls is not None:
            line = _TlsLine(*near, self._access)
        else:
            line = HTTPConnection(*near, timeout=_TIMEOUT_S)
        if proxy is not None:
            line.set_tunnel(*far, headers=proxy_identity(proxy))
        return line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _unreachable(self, error: Exception) -> TwinCliError:
        return TwinCliError(
            f"Can't reach the API server at {self._access.server}: {_cause(error)}. Is the cluster up, and is "
            "KUBECONFIG the right one? For the local cluster: `make status`."
        )

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
        from kubectl_twin.forward import open_forward  # noqa: PLC0415 - few commands need it, and it takes a second

        line = self._call()
        try:
            line.connect()
        except (HTTPException, OSError) as error:
            raise self._unreachable(error) from error
        return open_forward(self._access, line.sock, namespace=namespace, pod=pod, port=port)


class _TlsLine(HTTPSConnection):
    """A line to an API server whose certificate may show another name than its host's."""

    def __init__(self, host: str, port: int, access: Access) -> None:
        super().__init__(host, port, timeout=_TIMEOUT_S, context=access.tls)
        self._access = access

    def connect(self) -> None:
        """Open the line: TCP, to the proxy and through it where there is one, then TLS with the API server."""
        HTTPConnection.connect(self)
        assert self._access.tls is not None  # noqa: S101 - else it would be no such line
        name = self._access.tls_name or urlsplit(self._access.server).hostname
        self.sock = self._access.tls.wrap_socket(self.sock, server_hostname=name)


def _target(access: Access, path: str, query: Mapping[str, str] | None) -> str:
    """Return what stands in the request's first line: the server's own path, where it has one, and the object's."""
    return urlsplit(access.server).path + path + (f"?{urlencode(query)}" if query else "")


def _headers(access: Access) -> HTTPMessage:
    """Return the headers of every request. Not a dict: a name may stand several times, as groups do."""
    headers = HTTPMessage()
    for name, value in (("Accept", "application/json"), *access.headers):
        headers[name] = value  # adds
    return headers


def _sent(headers: HTTPMessage) -> Mapping[str, str]:
    """Return them as a line takes them: it only asks for their items."""
    return cast("Mapping[str, str]", headers)


def _cause(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
