"""A forwarded connection that ends says so to who reads it, and nothing else to the terminal."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from kubectl_twin.forward import Forward


class _Port:
    def __init__(self) -> None:
        self.near, self.python = socket.socketpair()


class _Opened:
    """What the `kubernetes` package hands back, with a thread that carries as long as `carry` lasts."""

    def __init__(self, carry: Callable[[_Port], None]) -> None:
        self.port = _Port()
        self.local_ports = {8090: self.port}
        self.thread = threading.Thread(
            target=carry, args=(self.port,), name="Kubernetes port forward proxy: 8090", daemon=True
        )

    def socket(self, number: int) -> socket.socket:
        return self.local_ports[number].near

    def error(self, number: int) -> None:
        return None

    def close(self) -> None:
        self.port.near.close()


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What a thread's end would print."""
    printed: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: printed.append(args.exc_value))
    return printed


def test_closing_before_all_was_read_prints_nothing(hook: list[BaseException | None]) -> None:
    def carry(port: _Port) -> None:
        port.python.send(b"more than is read")
        assert port.python.recv(1) == b"x"
        port.python.recv(1)  # the near end closed with something unread: the connection is reset

    opened = _Opened(carry)
    forward = Forward(opened, 8090)
    opened.thread.start()
    assert forward.socket.recv(1) == b"m"
    forward.socket.send(b"x")
    forward.close()
    opened.thread.join(30)
    assert hook == []


def test_a_broken_connection_is_an_end_to_who_reads(hook: list[BaseException | None]) -> None:
    def carry(port: _Port) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    opened = _Opened(carry)
    forward = Forward(opened, 8090)
    opened.thread.start()
    forward.socket.settimeout(30)
    assert forward.socket.recv(1) == b""
    assert hook == []


def test_other_threads_are_heard(hook: list[BaseException | None]) -> None:
    Forward(_Opened(lambda port: None), 8090)

    def fails() -> None:
        raise ValueError("a fault of ours")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join(30)
    assert [type(error) for error in hook] == [ValueError]
