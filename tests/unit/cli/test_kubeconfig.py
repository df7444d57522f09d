"""The ways of a kubeconfig, each against a server over real TLS that says whom it sees."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_twin.api import Api
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Reach, access
from localcluster.pki import Authority, Pair

Json = dict[str, Any]
PATH = "/apis/bettertherapy.io/v1alpha1/namespaces/default/doctortwins/x"
LOCAL = [IPv4Address("127.0.0.1")]


class Seen(http.server.BaseHTTPRequestHandler):
    """Answers with the headers and the certificate's name that it was shown."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject = {key: value for (part,) in (certificate or {}).get("subject", ()) for key, value in [part]}  # type: ignore[union-attr,misc]
        said = {"path": self.path, "headers": [*self.headers.items()], "user": subject.get("commonName")}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Proxy(http.server.BaseHTTPRequestHandler):
    """Connects to wherever it is told, and keeps what it was asked."""

    asked: list[tuple[str, str | None]]

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        host, port = self.path.split(":")
        far = socket.create_connection(("127.0.0.1" if host == "api.example" else host, int(port)))
        self.send_response(200)
        self.end_headers()

        def carry(source: socket.socket, target: socket.socket) -> None:
            while data := source.recv(65536):
                target.sendall(data)
            with contextlib.suppress(OSError):  # the other end went first
                target.shutdown(socket.SHUT_WR)

        back = threading.Thread(target=carry, args=(far, self.connection), daemon=True)
        back.start()
        carry(self.connection, far)
        back.join(5)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(handler: type[http.server.BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


class Site:
    """A CA, a server of it, and a client's certificate of it."""

    def __init__(self, folder: Path, authority: Authority, port: int) -> None:
        self.folder, self.authority, self.port = folder, authority, port
        self.client: Pair = authority.client("ada", organization="doctors")

    @property
    def cluster(self) -> Json:
        return {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": base64.b64encode(self.authority.pair.certificate).decode(),
        }

    def config(self, user: Json, *, name: str = "config", **cluster: Any) -> str:
        path = self.folder / name
        whole = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "clinic"}}],
            "clusters": [{"name": "c", "cluster": {**self.cluster, **cluster}}], "users": [{"name": "u", "user": user}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(whole))
        return str(path)

    def seen(self, user: Json, reach: Reach | None = None, **cluster: Any) -> Json:
        path = self.config(user, **cluster)
        with Api.connect(reach=(reach or Reach())._replace(kubeconfig=path)) as api:
            api.get(PATH)
            return api.get(PATH)  # over the same line


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority("a cluster's CA")
    authority.server("api", names=["kubernetes.example"], addresses=LOCAL).write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.pair.certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    for port in serve(Seen, tls):
        yield Site(tmp_path, authority, port)


def headers(seen: Json, start: str) -> list[str]:
    return [value for name, value in seen["headers"] if name.lower().startswith(start.lower())]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_client_certificate_in_the_kubeconfig_itself(site: Site) -> None:
    user = {"client-certificate-data": b64(site.client.certificate), "client-key-data": b64(site.client.key)}
    assert site.seen(user)["user"] == "ada"


def test_a_client_certificate_in_files_beside_the_kubeconfig(site: Site) -> None:
    site.client.write(site.folder, "ada")
    seen = site.seen(
        {"client-certificate": "ada.crt", "client-key": "ada.key"},
        **{"certificate-authority-data": None, "certificate-authority": "ca.crt"},
    )
    assert seen["user"] == "ada"


def test_a_token_and_a_token_of_a_file_which_counts_before(site: Site) -> None:
    assert headers(site.seen({"token": "t0p"}), "authorization") == ["Bearer t0p"]
    (site.folder / "token").write_text("fresh\n")
    assert headers(site.seen({"token": "old", "tokenFile": "token"}), "authorization") == ["Bearer fresh"]


def test_a_name_and_a_password(site: Site) -> None:
    assert headers(site.seen({"username": "ada", "password": "x:y"}), "authorization") == [f"Basic {b64(b'ada:x:y')}"]


def plugin(site: Site, status: Json, **spec: Any) -> Json:
    """A credential plugin that writes down what it was told."""
    script = site.folder / "login"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        f"pathlib.Path({str(site.folder / 'told')!r}).write_text(os.environ['KUBERNETES_EXEC_INFO'] + os.environ.get('ROLE', ''))\n"
        f"said = {{'kind': 'ExecCredential', 'apiVersion': {spec.get('apiVersion', 'client.authentication.k8s.io/v1')!r}}}\n"
        f"print(json.dumps({{**said, 'status': {status!r}}}))\n"
    )
    script.chmod(0o755)
    found = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "interactiveMode": "Never", **spec}
    return {"exec": found}


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"])
def test_a_credential_plugins_token(site: Site, version: str) -> None:
    user = plugin(
        site, {"token": "lent"}, apiVersion=version, provideClusterInfo=True, env=[{"name": "ROLE", "value": "!"}]
    )
    assert headers(site.seen(user), "authorization") == ["Bearer lent"]
    told = (site.folder / "told").read_text()
    assert told.endswith("!")
    info = json.loads(told[:-1])
    assert (info["apiVersion"], info["spec"]["interactive"]) == (version, False)
    assert info["spec"]["cluster"]["server"] == site.cluster["server"]


def test_a_credential_plugins_certificate(site: Site) -> None:
    pems = {
        "clientCertificateData": site.client.certificate.decode(),
        "clientKeyData": site.client.key.decode(),
    }
    assert site.seen(plugin(site, pems))["user"] == "ada"


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login", "installHint": "Get it."}},
         "no-such-login of the kubeconfig is not installed. Get it."),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}}, "failed, with status 1"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo"}}, "gave no ExecCredential"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}, "speaks client.auth"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider gcp, which is none that is known"),
        ({"tokenFile": "nowhere"}, "nowhere can't be read"),
        ({"client-certificate-data": "!!", "client-key-data": "!!"}, "certificates can't be used"),
    ],
)  # fmt: skip
def test_what_cannot_log_in_is_said_so(site: Site, user: Json, told: str) -> None:
    with pytest.raises(TwinCliError, match=told.replace(".", r"\.")):
        site.seen(user)


def jwt(ends: float) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps({'exp': ends}).encode()).decode().rstrip('=')}.x"


def test_the_token_of_an_oidc_login_counts_as_long_as_it_is_valid(site: Site) -> None:
    token = jwt(time.time() + 60)
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": token}}}
    assert headers(site.seen(user), "authorization") == [f"Bearer {token}"]
    user["auth-provider"]["config"] = {"id-token": jwt(time.time() - 1)}
    with pytest.raises(TwinCliError, match="has ended: `kubectl get twins` renews it"):
        site.seen(user)


def test_acting_as_another_by_the_kubeconfig_and_by_the_command(site: Site) -> None:
    user = {
        "token": "t", "as": "bob", "as-groups": ["g1", "g2"], "as-uid": "7", "as-user-extra": {"why": ["audit"]},
    }  # fmt: skip
    seen = site.seen(user)
    assert (headers(seen, "impersonate-user"), headers(seen, "impersonate-group")) == (["bob"], ["g1", "g2"])
    assert (headers(seen, "impersonate-uid"), headers(seen, "impersonate-extra-why")) == (["7"], ["audit"])
    seen = site.seen(user, Reach(user="eve", groups=("doctors", "night")))
    assert (headers(seen, "impersonate-user"), headers(seen, "impersonate-group")) == (["eve"], ["doctors", "night"])
    assert headers(seen, "impersonate-uid") == []
    with pytest.raises(TwinCliError, match="say with --as who that is"):
        site.seen(user, Reach(groups=("doctors",)))


def test_a_server_of_another_authority_is_not_talked_to(site: Site) -> None:
    other = b64(Authority("another").pair.certificate)
    with pytest.raises(TwinCliError, match="certificate verify failed"):
        site.seen({"token": "secret"}, **{"certificate-authority-data": other})
    assert site.seen({}, **{"certificate-authority-data": None, "insecure-skip-tls-verify": True})["path"] == PATH


def test_a_servers_other_name_and_its_path(site: Site) -> None:
    server = f"https://localhost:{site.port}/k8s/clusters/c-1/"
    with pytest.raises(TwinCliError, match="certificate verify failed"):
        site.seen({}, server=server)
    assert site.seen({}, server=server, **{"tls-server-name": "kubernetes.example"})["path"] == f"/k8s/clusters/c-1{PATH}"


@pytest.fixture
def proxied() -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    handler = type("Asked", (Proxy,), {"asked": []})
    for port in serve(handler):
        yield port, handler.asked  # type: ignore[attr-defined]


def test_through_the_kubeconfigs_proxy(site: Site, proxied: tuple[int, list[tuple[str, str | None]]]) -> None:
    port, asked = proxied
    seen = site.seen(
        {"token": "t"}, server=f"https://api.example:{site.port}",
        **{"proxy-url": f"http://me:p%40ss@127.0.0.1:{port}", "tls-server-name": "kubernetes.example"},
    )  # fmt: skip
    assert seen["path"] == PATH
    assert asked == [(f"api.example:{site.port}", f"Basic {b64(b'me:p@ss')}")]
    with pytest.raises(TwinCliError, match="only http:// is"):
        site.seen({}, **{"proxy-url": "socks5://127.0.0.1:1"})


@pytest.mark.parametrize(
    ("server", "spared", "proxy"),
    [
        ("https://api.example:6443", "", "http://p:3128"),
        ("https://api.example:6443", "example.org,.example", None),
        ("https://example:6443", ".example", "http://p:3128"),
        ("https://api.example:6443", "api.example:443", "http://p:3128"),
        ("https://10.1.2.3:6443", "10.0.0.0/8", None),
        ("https://10.1.2.3:6443", "*", None),
        ("https://127.0.0.1:6443", "", None),
    ],
)
def test_the_environments_proxy_and_whom_it_spares(site: Site, server: str, spared: str, proxy: str | None) -> None:
    path = site.config({}, server=server)
    found = access(Reach(kubeconfig=path), {"HTTPS_PROXY": "p:3128", "NO_PROXY": spared})
    assert found.proxy == proxy


def test_several_files_are_read_as_one_and_the_first_counts(site: Site) -> None:
    first, second = site.config({"token": "a"}, name="first"), site.config({"token": "b"}, name="second")
    text = Path(second).read_text().replace("name: here", "name: there").replace("current-context: here", "current-context: there")
    Path(second).write_text(text)
    environ = {"KUBECONFIG": f"/nonexistent/x:{first}:{second}"}
    found = access(Reach(), environ)
    assert (list(found.headers), found.namespace) == ([("Authorization", "Bearer a")], "clinic")
    assert access(Reach(context="there"), environ).server == site.cluster["server"]


@pytest.mark.parametrize(
    "text",
    ["- a", "x: [", "{", "contexts: 3", "current-context: a", "current-context: a\ncontexts: [{name: a}]", "users: [{}]", ""],
)
def test_what_is_no_kubeconfig_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(TwinCliError, match="No usable kubeconfig"):
        access(Reach(kubeconfig=str(tmp_path / "config")))


def test_a_line_that_the_server_closed_is_opened_again(tmp_path: Path) -> None:
    class Closing(Seen):
        def do_GET(self) -> None:
            super().do_GET()
            self.close_connection = True  # without a word of it

    for port in serve(Closing):
        config = tmp_path / "config"
        config.write_text(
            json.dumps(
                {
                    "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                }
            )
        )  # fmt: skip
        with Api.connect(reach=Reach(kubeconfig=str(config))) as api:
            assert [api.get(PATH)["path"] for _ in range(3)] == [PATH] * 3


