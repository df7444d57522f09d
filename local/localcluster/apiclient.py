"""A small client of the API server on the standard library alone.

The processes inside the cluster's namespaces use it, so that they stay small, and so does the start, which would else
spend a second on each `kubectl`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

_COLLECTIONS = {
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "PersistentVolume": ("api/v1", "persistentvolumes"),
    "Service": ("api/v1", "services"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "StorageClass": ("apis/storage.k8s.io/v1", "storageclasses"),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
}


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def path_of(manifest: Json) -> str:
    """The path of the object that ``manifest`` describes."""
    group, plural = _COLLECTIONS[manifest["kind"]]
    metadata = manifest["metadata"]
    scope = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"/{group}/{scope}{plural}/{metadata['name']}"


class ApiClient:
    """Speaks for whoever the kubeconfig names."""

    def __init__(self, kubeconfig: Path, *, timeout_s: float = 10.0) -> None:
        # YAML's subset that this package writes is JSON.
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        server = urlsplit(cluster["server"])
        self._host, self._port = server.hostname or "", server.port or 443
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        # ssl loads a client's certificate from a file only.
        descriptor, name = tempfile.mkstemp(prefix="client-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64decode(user["client-certificate-data"]))
                file.write(base64.b64decode(user["client-key-data"]))
            self._tls.load_cert_chain(name)
        finally:
            Path(name).unlink()

    def connect(self, *, timeout_s: float | None = None) -> http.client.HTTPSConnection:
        """A connection for several requests. The caller closes it."""
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s if timeout_s is None else timeout_s, context=self._tls
        )

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        connection: http.client.HTTPSConnection | None = None,
    ) -> Json:
        """Send one request, over ``connection`` or one of its own.

        Raises:
            ApiError: the answer's status is 400 or above.
            OSError: the server can't be reached, or broke off.
        """
        used = connection or self.connect()
        payload = None if body is None else json.dumps(body)
        try:
            used.request(method, path, body=payload, headers={"Content-Type": content_type})
            response = used.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the API server broke off: {error}") from error
        finally:
            if connection is None:
                used.close()
        if response.status >= 400:
            raise ApiError(response.status, content.decode(errors="replace")[:500])
        if not response.headers.get("Content-Type", "").startswith("application/json"):
            return {}
        answer: Json = json.loads(content)
        return answer

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            self.request("GET", "/readyz")
        except (ApiError, OSError):
            return False
        return True

    def apply(self, manifests: Iterable[Json]) -> None:
        """Server-side apply of each."""
        with closing(self.connect()) as connection:
            for manifest in manifests:
                self.request(
                    "PATCH",
                    f"{path_of(manifest)}?fieldManager=localcluster&force=true",
                    manifest,
                    content_type="application/apply-patch+yaml",
                    connection=connection,
                )

    def watch(self, path: str, *, timeout_s: int = 300) -> Iterator[Json]:
        """The collection at ``path`` as it changes, beginning with what is there, until ``timeout_s`` have passed."""
        with closing(self.connect(timeout_s=timeout_s + 30.0)) as connection:
            connection.request("GET", f"{path}?watch=true&timeoutSeconds={timeout_s}")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(errors="replace")[:500])
            for line in response:
                event: Json = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 500), event["object"].get("message", "watch ended"))
                yield event
