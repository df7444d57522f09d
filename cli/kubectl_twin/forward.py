"""A connection to a port of a pod, through the API server: a WebSocket, each message of a channel."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Access

if TYPE_CHECKING:
    from websocket import WebSocket

_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA: Final = 0
_ERROR: Final = 1
_PIECE: Final = 32 * 1024


class Forward:
    """One forwarded connection. Two threads carry what is said; whatever ends them is an end to who reads here."""

    def __init__(self, line: WebSocket) -> None:
        self._line = line
        self.socket, self._inner = socket.socketpair()
        """The near end of the connection."""
        self._said: list[str] = []
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._arrive, self._leave)]
        for each in self._threads:
            each.start()

    @property
    def error(self) -> str | None:
        """What the kubelet said when the far end refused."""
        return "".join(self._said).strip() or None

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
        for each in (self._line, self._inner):
            with contextlib.suppress(Exception):  # it may be broken already, in any way
                each.close()

    def _arrive(self) -> None:
        """Carry from the pod to here."""
        begun: set[int] = set()
        with contextlib.suppress(*_ends()):
            while message := self._line.recv():
                if not isinstance(message, bytes):
                    break
                channel, content = message[0], message[1:]
                if channel not in begun:  # the first message of each only names the port
                    begun.add(channel)
                elif channel == _DATA:
                    self._inner.sendall(content)
                elif channel == _ERROR and content:
                    self._said.append(content.decode("utf-8", errors="replace"))
                    break
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_WR)

    def _leave(self) -> None:
        """Carry from here to the pod."""
        with contextlib.suppress(*_ends()):
            while content := self._inner.recv(_PIECE):
                self._line.send_binary(bytes([_DATA]) + content)


def _ends() -> tuple[type[Exception], ...]:
    from websocket import WebSocketException  # noqa: PLC0415 - only who forwards needs it

    return (WebSocketException, OSError)


def open_forward(access: Access, line: socket.socket, *, namespace: str, pod: str, port: int) -> Forward:
    """Ask over a line to the API server, which it keeps, for a connection to a port of a pod.

    Raises:
        TwinCliError: the API server or the kubelet refused.
    """
    from websocket import WebSocket, WebSocketException  # noqa: PLC0415

    server = urlsplit(access.server)
    path = f"{server.path}/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward"
    url = f"{'ws' if access.tls is None else 'wss'}://{server.netloc}{path}?ports={port}"
    asked = WebSocket(skip_utf8_validation=True, enable_multithread=True)
    try:
        asked.connect(  # type: ignore[no-untyped-call]
            url, header=[f"{name}: {value}" for name, value in access.headers], subprotocols=[_PROTOCOL],
            suppress_origin=True, socket=line,
        )  # fmt: skip
    except WebSocketException as error:
        line.close()
        raise TwinCliError(
            f"The API server opened no connection to pod {pod} in namespace {namespace}: {_refusal(error)}. If it is a "
            f"right that you lack, it is that to create pods/portforward: `kubectl auth can-i create pods/portforward "
            f"-n {namespace}`."
        ) from error
    except OSError as error:
        line.close()
        raise TwinCliError(f"The connection to pod {pod} through the API server broke: {error}. Try again.") from error
    line.settimeout(None)
    return Forward(asked)


def _refusal(error: Exception) -> str:
    """Return what the API server said, without the headers that the library tells with it."""
    status, body = getattr(error, "status_code", None), getattr(error, "resp_body", None)
    try:
        said = str(json.loads(body or b"")["message"])
    except (ValueError, LookupError, TypeError):
        said = str(error).split(" -+-+- ")[0].strip() or "no reason given"
    return (said if status is None else f"{status}: {said.removeprefix('Handshake status ')}")[:300].rstrip(".")
