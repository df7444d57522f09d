"""Where the API server is and who we are to it: a pod's service account, or a kubeconfig for tests and people."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import yaml

T = TypeVar("T")

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ClusterAccessError(Exception):
    """No usable way to reach an API server was found; the message says what to set."""


class Access(Protocol):
    """What the client needs for one request; both may change while the process runs (tokens and CAs are rotated)."""

    server: str
    """URL without a trailing slash."""

    def headers(self) -> dict[str, str]:
        """Return the authorization header, re-read where it is a file."""

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return the TLS settings; the same object as long as nothing changed, so connections are reused."""


class _Reread(Generic[T]):
    """A file's parsed content, parsed again only when the file has changed."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path, self._parse = path, parse
        self._seen: tuple[int, int] | None = None
        self._value: T | None = None

    def __call__(self) -> T:
        try:
            stat = self._path.stat()
            if self._value is None or self._seen != (stat.st_mtime_ns, stat.st_size):
                self._value = self._parse(self._path.read_bytes())
                self._seen = (stat.st_mtime_ns, stat.st_size)
        except OSError as error:
            if self._value is None:
                raise ClusterAccessError(f"{self._path} can't be read ({error}): mount the pod's token") from error
        return self._value


class ServiceAccountAccess:
    """The pod's own service account: kubelet rotates its token about hourly, and now and then the CA."""

    def __init__(self, *, directory: Path = SERVICE_ACCOUNT_DIR, environ: Mapping[str, str] = os.environ) -> None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ClusterAccessError(
                "not in a pod (KUBERNETES_SERVICE_HOST is unset): set KUBECONFIG to a kubeconfig file"
            )
        self.server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token = _Reread(directory / "token", lambda data: data.decode().strip())
        self._ca = _Reread(directory / "ca.crt", lambda data: ssl.create_default_context(cadata=data.decode()))

    def headers(self) -> dict[str, str]:
        """Return the bearer token as of now."""
        return {"Authorization": f"Bearer {self._token()}"}

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return a context that trusts the cluster's CA as of now."""
        return self._ca()


class KubeconfigAccess:
    """The current context of a kubeconfig file. Exec plugins are not supported: they are for people's own machines."""

    def __init__(self, path: Path) -> None:
        try:
            config = yaml.safe_load(path.read_text())
            context = _named(config, "contexts", config["current-context"])["context"]
            cluster = _named(config, "clusters", context["cluster"])["cluster"]
            user = _named(config, "users", context["user"])["user"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ClusterAccessError(f"{path} is no kubeconfig with a usable current-context: {error!r}") from error
        self.server = str(cluster["server"]).rstrip("/")
        self._headers: dict[str, str] = {}
        token_file = user.get("tokenFile")
        if user.get("token"):
            self._headers["Authorization"] = f"Bearer {user['token']}"
        self._token = _Reread(path.parent / token_file, lambda data: data.decode().strip()) if token_file else None
        self._ssl = _context(path.parent, cluster, user)

    def headers(self) -> dict[str, str]:
        """Return the bearer token, if the user has one."""
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token()}"}
        return dict(self._headers)

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return a context with the cluster's CA and the user's certificate."""
        return self._ssl


def access_from_environment(environ: Mapping[str, str] = os.environ) -> Access:
    """Return the kubeconfig's access when KUBECONFIG is set, else the pod's; raises ClusterAccessError."""
    kubeconfig = environ.get("KUBECONFIG")
    if kubeconfig:
        return KubeconfigAccess(Path(kubeconfig))
    return ServiceAccountAccess(environ=environ)


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in config[kind]:
        if entry["name"] == name:
            return dict(entry)
    raise KeyError(f"{kind}: {name}")


def _context(base: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    ca = _content(base, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(base, user, "client-certificate"), _content(base, user, "client-key")
    if certificate and key:
        # The ssl module reads certificates from files only; the folder is private (0700) and gone right after.
        with tempfile.TemporaryDirectory() as folder:
            cert_path, key_path = Path(folder, "crt"), Path(folder, "key")
            cert_path.write_bytes(certificate)
            key_path.write_bytes(key)
            context.load_cert_chain(cert_path, key_path)
    return context


def _content(base: Path, section: dict[str, Any], name: str) -> bytes | None:
    if section.get(f"{name}-data"):
        return base64.b64decode(section[f"{name}-data"])
    if section.get(name):
        return (base / str(section[name])).read_bytes()
    return None
