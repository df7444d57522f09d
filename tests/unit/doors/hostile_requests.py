"""Requests that no client should send, each with words of a patient's and a token in a place of its own."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Final

NAME: Final = "Sarmila-Thapa-of-Pokhara"
SECRET: Final = "sk-canary-5f3a9e71c2"
CANARIES: Final = ("Sarmila", "Thapa", "Pokhara", "canary", "5f3a9e71c2")
CHAT: Final = "/v1/chat/completions"


def hostile_requests(path: str, authorization: str, *, method: str = "POST") -> Iterator[bytes]:
    """Yield them all, whole as they are to be sent on a connection of their own."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
    let_in = f"{head}Authorization: {authorization}\r\n"
    typed = f"{let_in}Content-Type: application/json\r\n"
    yield f"{NAME}\r\n\r\n".encode()
    yield f"{NAME} {SECRET} HTTP/9.9\r\n\r\n".encode()
    yield f"GET /{NAME}\x01{SECRET} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    yield f"{method} {path}?token={SECRET}&q={NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    yield f"{method} {path}/{NAME}%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    yield f"{method} http://{NAME}:{SECRET}@[::1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    yield f"{head}Authorization: Bearer {SECRET}\x00{NAME}\r\n\r\n".encode()
    yield f"{head}Authorization: Bearer {SECRET}\r\nBad {NAME} header\r\n\r\n".encode()
    yield f"{head}Auth orization: {SECRET}\r\n\r\n".encode()
    yield f"{head}X-{NAME}\r\n\r\n".encode()
    yield f"{head}Authorization: Bearer {SECRET}\r\n {NAME}: folded\r\n\r\n".encode()
    yield f"{head}Cookie: session={SECRET}; {NAME}\r\n\r\n".encode()
    yield f"{head}X-Request-Id: {NAME}\r\ntraceparent: {SECRET}\r\n\r\n".encode()
    yield f"{head}X-Long: {NAME * 600}\r\n\r\n".encode()
    yield head.encode() + b"".join(f"X-{number}: {NAME}{SECRET}\r\n".encode() for number in range(500)) + b"\r\n"
    yield f"{head}Content-Length: {SECRET}\r\n\r\n{NAME}".encode()
    yield f"{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{NAME}".encode()
    yield f"{head}Content-Length: -1\r\n\r\n{NAME}".encode()
    yield f"{let_in}Transfer-Encoding: chunked\r\n\r\n{NAME}\r\n{SECRET}".encode()
    yield f"{typed}Transfer-Encoding: chunked\r\n\r\n5\r\n{NAME}\r\n0\r\n\r\n".encode()
    yield f"{typed}Transfer-Encoding: chunked\r\n\r\nff;{NAME}={SECRET}\r\n{NAME}".encode()
    yield f"{typed}Transfer-Encoding: {NAME}\r\n\r\n{SECRET}".encode()
    yield f"{typed}Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n{NAME}".encode()
    yield f"{typed}Expect: {NAME}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    yield f"{let_in}Upgrade: {NAME}\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {SECRET}\r\n\r\n".encode()
    for body in _bodies():
        yield f"{typed}Content-Length: {len(body)}\r\n\r\n".encode() + body
    whole = _question(NAME)
    yield f"{typed}Content-Length: {len(whole) + 500}\r\n\r\n".encode() + whole  # it ends too early
    for encoding, packed in (
        ("gzip", gzip.compress(whole)[:-9]), ("gzip", whole), ("deflate", zlib.compress(whole)[:-3]),
        (f"br-{NAME}", whole), ("gzip", gzip.compress(NAME.encode() * 200_000)),
    ):  # fmt: skip
        yield f"{typed}Content-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    yield (
        f"{let_in}Content-Type: {NAME}/{SECRET}; charset={NAME}\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
        + whole
    )
    form = f"name={NAME}&password={SECRET}&%ff=%zz&csrf={SECRET}".encode()
    for kind in ("application/x-www-form-urlencoded", f"multipart/form-data; boundary={NAME}", "multipart/form-data"):
        yield f"{let_in}Content-Type: {kind}\r\nContent-Length: {len(form)}\r\n\r\n".encode() + form
    signed = "".join(
        f"X-Bittensor-{name}: {value}\r\n"
        for name, value in (("Version", "1"), ("Hotkey", NAME), ("Receiver", SECRET), ("Nonce", NAME),
                            ("Crypto", SECRET), ("Signature", SECRET))
    )  # fmt: skip
    yield f"{head}{signed}Content-Length: {len(whole)}\r\n\r\n".encode() + whole


def _question(text: str, **more: object) -> bytes:
    return json.dumps({"model": "indra", "messages": [{"role": "user", "content": text}], **more}).encode()


def _bodies() -> Iterator[bytes]:
    yield _question(f"I am {NAME}, my key is {SECRET}")
    yield _question(f"I am {NAME}", stream=True)
    yield _question(f"I am {NAME}", stream=True, max_tokens=1)[:-3]
    yield _question(f"I am {NAME}", user=NAME, metadata={NAME: SECRET}, safety_identifier=SECRET)
    yield _question("x", bettertherapy={"patient": {"conditions": [NAME], "age": SECRET}})
    yield _question("x", bettertherapy={"patient": {NAME: SECRET}})
    yield _question("x", temperature=NAME, max_tokens=SECRET, n=NAME, stop=[NAME] * 65)
    yield _question("x", response_format={"type": NAME}, structured_outputs={NAME: SECRET})
    yield _question("x", **{NAME: SECRET})
    yield json.dumps({"model": NAME, "messages": [{"role": SECRET, "content": NAME}]}).encode()
    yield json.dumps({"model": {NAME: SECRET}, "messages": NAME}).encode()
    yield json.dumps({"prompt": NAME, "model": "indra", "input": NAME}).encode()
    yield json.dumps({"sessionId": NAME, "answerId": SECRET, "stars": NAME, "comment": NAME}).encode()
    yield json.dumps({"method": NAME, "params": {NAME: SECRET}}).encode()
    yield json.dumps({"method": "info", "params": {NAME: SECRET}, "count": NAME, "changes": NAME}).encode()
    yield f'{{"{NAME}": "{SECRET}'.encode()
    yield f'{{"model": {NAME}}}'.encode()
    yield f'{{"model": "{NAME}\\ud83d", "messages": 5}}'.encode()
    yield b'{"model": "\xff' + NAME.encode() + b'"}'
    yield _question(NAME).decode().encode("utf-16")
    yield b"[" * 5000 + NAME.encode()
    yield f'"{NAME}"'.encode()
    yield f"[{json.dumps(NAME)}]".encode()
