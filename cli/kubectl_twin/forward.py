"""A connection to a port of a pod, through the API server."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Access

_THREAD: Final = "Kubernetes port forward proxy"
"""How the `kubernetes` package names the thread that carries what is said."""
_PROTOCOL: Final = "v4.channel.k8s.io"
_open: weakref.WeakSet[Forward] = weakref.WeakSet()


class Forward:
    """One forwarded connection."""

    def __init__(self, opened: Any, port: int) -> None:
        self._opened = opened
        self._port = port
        _open.add(self)
        _end_quietly()

    @property
    def socket(self) -> socket.socket:
        """The near end of the connection."""
        return cast(socket.socket, self._opened.socket(self._port))

    @property
    def error(self) -> str | None:
        """What the kubelet said when the far end refused."""
        said = self._opened.error(self._port)
        return str(said).strip() if said else None

    def close(self) -> None:
        """Close the connection."""
        _open.discard(self)
        self._opened.close()

    def broke(self) -> None:
        """End what is being read here: nothing comes any more."""
        for each in self._opened.local_ports.values():
            each.python.close()


def _end_quietly() -> None:
    """Let a carrying thread end without a traceback on the terminal.

    It dies when this side closes before all was read, which is no fault, and when the API server breaks the connection:
    then who reads here has to see the end, and says it in words.
    """
    former = threading.excepthook
    if getattr(former, "of_forwards", False):
        return

    def ended(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or not args.thread.name.startswith(_THREAD) or not isinstance(args.exc_value, OSError):
            former(args)
            return
        for each in list(_open):
            each.broke()

    ended.of_forwards = True  # type: ignore[attr-defined]
    threading.excepthook = ended


def open_forward(access: Access, line: socket.socket, *, namespace: str, pod: str, port: int) -> Forward:
    """Ask over a line to the API server, which it keeps, for a connection to a port of a pod.

    Raises:
        TwinCliError: the API server or the kubelet refused.
    """
    from kubernetes.stream.ws_client import PortForward  # noqa: PLC0415 - a second to import
    from websocket import WebSocket, WebSocketException  # noqa: PLC0415

    server = urlsplit(access.server)
    path = f"{server.path}/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward"
    url = f"{'ws' if access.tls is None else 'wss'}://{server.netloc}{path}?ports={port}"
    asked = WebSocket(skip_utf8_validation=False)
    try:
        asked.connect(
            url, header=[f"{name}: {value}" for name, value in access.headers], subprotocols=[_PROTOCOL],
            suppress_origin=True, socket=line,
        )  # fmt: skip
    except WebSocketException as error:
        line.close()
        said = str(error).strip().splitlines()
        raise TwinCliError(
            f"The API server opened no connection to pod {pod} in namespace {namespace}: "
            f"{said[0][:300] if said else 'no reason given'}. You need the right to create pods/portforward: "
            f"`kubectl auth can-i create pods/portforward -n {namespace}`."
        ) from error
    except OSError as error:
        line.close()
        raise TwinCliError(f"The connection to pod {pod} through the API server broke: {error}. Try again.") from error
    line.settimeout(None)
    return Forward(PortForward(asked, [port]), port)
