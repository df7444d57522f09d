"""A forwarded connection: what is said at one end is heard at the other, and an end is heard as one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from kubectl_twin.api import Api
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Access

PORT = (8090).to_bytes(2, "little")
Far = Callable[[ServerConnection], None]


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread ends by an exception."""
    ended: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_value))
    yield
    assert ended == []


class Served:
    """An API server that forwards ports; `far` is the pod."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self.path, self.authorization, self.groups = "", "", list[str]()
        self.server = serve(self._serve, "127.0.0.1", 0, subprotocols=[Subprotocol("v4.channel.k8s.io")])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _serve(self, line: ServerConnection) -> None:
        assert line.request is not None
        self.path, self.authorization = line.request.path, line.request.headers["Authorization"]
        self.groups = line.request.headers.get_all("Impersonate-Group")
        for channel in (0, 1):
            line.send(bytes([channel]) + PORT)
        try:
            self.far(line)
        except ConnectionClosed:
            return

    @property
    def api(self) -> Api:
        port = self.server.socket.getsockname()[1]
        said = [("Authorization", "Bearer t"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")]
        return Api(Access(f"http://127.0.0.1:{port}/k8s", "clinic", said, None, None, None))


@pytest.fixture
def served() -> Iterator[Callable[[Far], Served]]:
    made: list[Served] = []

    def make(far: Far) -> Served:
        made.append(Served(far))
        return made[-1]

    yield make
    for each in made:
        each.server.shutdown()


def echo(line: ServerConnection) -> None:
    while True:
        line.send(line.recv())


def test_what_is_said_is_heard_whole(served: Callable[[Far], Served]) -> None:
    found = served(echo)
    forward = found.api.forward(namespace="clinic", pod="pod/1", port=8090)
    forward.socket.settimeout(30)
    sent = bytes(range(256)) * 2000
    threading.Thread(target=forward.socket.sendall, args=(sent,), daemon=True).start()
    heard = b""
    while len(heard) < len(sent):
        heard += forward.socket.recv(65536)
    assert heard == sent
    assert forward.error is None
    forward.close()
    assert found.path == "/k8s/api/v1/namespaces/clinic/pods/pod%2F1/portforward?ports=8090"
    assert (found.authorization, found.groups) == ("Bearer t", ["a", "b"])


@pytest.mark.parametrize("end", ["closed", "reset", "refused"])
def test_the_far_end_going_away_is_an_end_to_who_reads(served: Callable[[Far], Served], end: str) -> None:
    def far(line: ServerConnection) -> None:
        line.send(b"\x00last")
        if end == "reset":
            line.socket.shutdown(socket.SHUT_RDWR)
        elif end == "refused":
            line.send(b"\x01connection refused to 8090")
            line.recv()

    forward = served(far).api.forward(namespace="clinic", pod="p", port=8090)
    forward.socket.settimeout(30)
    heard = b""
    while piece := forward.socket.recv(100):
        heard += piece
    assert heard == b"last"
    assert forward.error == ("connection refused to 8090" if end == "refused" else None)
    forward.close()


def test_closing_before_all_was_read_is_no_fault(served: Callable[[Far], Served]) -> None:
    def far(line: ServerConnection) -> None:
        while True:
            line.send(b"\x00" + b"more than is read" * 1000)

    forward = served(far).api.forward(namespace="clinic", pod="p", port=8090)
    assert forward.socket.recv(1) == b"m"
    forward.close()
    for each in forward._threads:
        each.join(30)
        assert not each.is_alive()


def test_who_may_not_forward_is_told_so() -> None:
    import http.server

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"kind": "Status", "message": "no such pod"}'
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = Api(Access(f"http://127.0.0.1:{server.server_address[1]}", "clinic", [], None, None, None))
    with pytest.raises(
        TwinCliError, match=r"clinic: 403: no such pod\. .* `kubectl auth can-i create pods/portforward -n clinic`"
    ):
        api.forward(namespace="clinic", pod="p", port=8090)
    server.shutdown()
