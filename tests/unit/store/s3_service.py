"""A real S3 service for tests, versitygw over a folder, and a door before it that misbehaves as others' services do."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import obstore
import pytest
from aiohttp import web
from obstore.store import S3Store

from localcluster.tools import tool_of

KEY, WORD = "test-key", "test-word"
_BLOCK_BYTES = 64 * 1024


@dataclass
class Service:
    """A running S3 service. `bucket` is the folder behind s3://adapters: what is done to it, is done to the objects.

    But a file that is put there, and not by a request, has no ETag.
    """

    command: list[str | Path]
    port: int
    bucket: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, root: Path) -> Service:
        """Start one over a new folder; skips the test where it isn't built."""
        tool = tool_of("versitygw")
        if not tool.built:
            pytest.skip("versitygw is not built: run `python -m localcluster build`")
        for name in ("data/adapters", "data/models", "attributes"):
            (root / name).mkdir(parents=True)
        port = free_port()
        command: list[str | Path] = [
            tool.folder / "versitygw",
            "--port",
            f"127.0.0.1:{port}",
            "--access",
            KEY,
            "--secret",
            WORD,
        ]
        command += ["--quiet", "posix", "--sidecar", root / "attributes", root / "data"]
        return cls(command, port, root / "data" / "adapters", _run(command, port))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def behind(self, uri: str) -> Path:
        return self.bucket.parent / uri.removeprefix("s3://")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        """Kill it, with whatever it is sending, and have another at the same address."""
        self.stop()
        self.process = _run(self.command, self.port)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # until the last of its threads stands still
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def put(self, name: str, content: Path | bytes, *, part_bytes: int | None = None) -> None:
        """Put an object into s3://adapters as a client does; `part_bytes` for one in several parts, 5 MiB at least."""
        store = S3Store(
            "adapters", endpoint=self.endpoint, access_key_id=KEY, secret_access_key=WORD, region="us-east-1",
            client_options={"allow_http": True},
        )  # fmt: skip
        if part_bytes is None:
            await obstore.put_async(store, name, content, use_multipart=False)
        else:
            await obstore.put_async(store, name, content, use_multipart=True, chunk_size=part_bytes)

    async def put_marker(self, name: str) -> None:
        """Put an empty object into s3://adapters whose name ends with a slash, as consoles do for a folder.

        obstore can't: it takes the slash away.
        """
        now = datetime.now(UTC)
        day, at = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        scope, host = f"{day}/us-east-1/s3/aws4_request", f"127.0.0.1:{self.port}"
        headers = {"host": host, "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "x-amz-date": at}
        lines = "".join(f"{header}:{value}\n" for header, value in headers.items())
        asked = f"PUT\n/adapters/{name}\n\n{lines}\n{';'.join(headers)}\n{headers['x-amz-content-sha256']}"
        key = f"AWS4{WORD}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        words = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
        signature = hmac.digest(key, words.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={KEY}/{scope},SignedHeaders={';'.join(headers)},Signature={signature}"
        )
        async with (
            aiohttp.ClientSession() as client,
            client.put(f"http://{host}/adapters/{name}", headers=headers) as response,
        ):
            assert response.status == 200, await response.text()


@dataclass
class Door:
    """An HTTP server before the service, which passes all on but what a knob says otherwise."""

    port: int = 0
    without_ranges: bool = False
    """Whoever asks for a part of an object is given all of it, with status 200."""
    cut_after: int | None = None
    """Of an answer so many bytes are passed on, and then the connection breaks."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Names of objects that were read, with the part."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def parts_of(self, name: str) -> list[str | None]:
        return [part for asked, part in self.asked if asked == name]

    @asynccontextmanager
    async def before(self, service: Service) -> AsyncIterator[Door]:
        """Listen for as long as the context lasts."""
        async with aiohttp.ClientSession(auto_decompress=False) as client:
            # Signatures hold for the door's address: the service is told of no other.
            runner = web.ServerRunner(
                web.Server(lambda request: self._pass_on(request, client, service)), shutdown_timeout=0.1
            )
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _pass_on(
        self, request: web.BaseRequest, client: aiohttp.ClientSession, service: Service
    ) -> web.StreamResponse:
        part = request.headers.get("Range")
        body = await request.content.read()
        async with client.request(
            request.method, service.endpoint + request.raw_path, headers=request.headers, data=body
        ) as upstream:
            headers = {name: value for name, value in upstream.headers.items() if name != "Transfer-Encoding"}
            status, content = upstream.status, await upstream.read()
        if request.method == "GET" and not request.query:
            self.asked.append((request.path.rsplit("/", 1)[-1], part))
            if self.without_ranges and status == 206:
                status, content = 200, service.behind(f"s3:/{request.path}").read_bytes()
                headers.pop("Content-Range")
                headers["Content-Length"] = str(len(content))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            whole = self.cut_after is None or len(content) <= self.cut_after
            for at in range(0, len(content) if whole else self.cut_after or 0, _BLOCK_BYTES):
                await response.write(
                    content[at : min(at + _BLOCK_BYTES, len(content) if whole else self.cut_after or 0)]
                )
            if not whole and request.transport is not None:
                request.transport.close()  # after what was written
                return response
        await response.write_eof()
        return response


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str | Path], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"versitygw ended with status {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "versitygw does not listen"
            time.sleep(0.05)
        else:
            return process
