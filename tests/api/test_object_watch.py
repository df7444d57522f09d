"""Following a pool's routing slices on a real API server, over a line that can freeze and break."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bettertherapy_api import names
from neurons.cluster import (
    Backoff,
    ClusterClient,
    Gone,
    KubeconfigAccess,
    Listed,
    ObjectWatch,
    RoutingView,
    paths,
)
from tests.conftest import Kubectl
from tests.unit.cluster.slices import pool as header
from tests.unit.cluster.slices import routing_slice, twin

pytestmark = pytest.mark.cluster


class Line:
    """A TCP line to the API server that a test can freeze, cut and close."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.opened = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and cut what is open: the API server is down."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Let the open connections live and carry nothing; new ones flow."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        flowing = self._flowing
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, far_writer}
        with suppress(OSError):
            await asyncio.gather(
                self._pump(reader, far_writer, flowing), self._pump(far_reader, writer, flowing), return_exceptions=True
            )
        for one in (writer, far_writer):
            one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        while data := await reader.read(65536):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


class LineAccess:
    """The kubeconfig's identity, by way of the line."""

    def __init__(self, access: KubeconfigAccess, line: Line) -> None:
        self._access = access
        self.server = f"https://127.0.0.1:{line.port}"

    def headers(self) -> dict[str, str]:
        return self._access.headers()

    def ssl_context(self) -> ssl.SSLContext | bool:
        context = self._access.ssl_context()
        assert isinstance(context, ssl.SSLContext)
        context.check_hostname = False  # the certificate is of the server at the line's far end
        return context


@pytest.fixture
async def line(kubeconfig: Path) -> AsyncIterator[Line]:
    line = Line(KubeconfigAccess(kubeconfig).server)
    await line.open()
    yield line
    await line.close()


@pytest.fixture
async def client(kubeconfig: Path, line: Line) -> AsyncIterator[ClusterClient]:
    async with ClusterClient(LineAccess(KubeconfigAccess(kubeconfig), line)) as client:
        yield client


class Followed:
    """A view that a watch feeds, and what happened."""

    def __init__(self) -> None:
        self.view = RoutingView("pool")
        self.lists = 0
        self.deletions = 0
        self._more = asyncio.Event()

    async def follow(self, watch: ObjectWatch) -> None:
        async for event in watch:
            self.lists += isinstance(event, Listed)
            self.deletions += isinstance(event, Gone)
            self.view.take(event)
            self._more.set()

    async def until(self, twins: Mapping[str, str], *, seconds: float = 10) -> None:
        """Wait until the view has these names by UID."""
        async with asyncio.timeout(seconds):
            while {uid: twin.name for uid, twin in self.view.twins.items()} != twins:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def following(
    client: ClusterClient, namespace: str, *, silence_seconds: float = 75.0, page: int = 50
) -> AsyncIterator[tuple[ObjectWatch, Followed]]:
    watch = ObjectWatch(
        client,
        path=paths.routing_slices(namespace),
        labels=paths.routing_labels("pool"),
        page=page,
        silence_seconds=silence_seconds,
        backoff=Backoff(first=0.05, most=0.2),
    )
    followed = Followed()
    task = asyncio.create_task(followed.follow(watch))
    try:
        yield watch, followed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def write(kubectl: Kubectl, namespace: str, number: int, twins: Mapping[str, str], *, pool: str = "pool") -> None:
    thing = routing_slice(number, {uid: twin(name) for uid, name in twins.items()}, header=header(name=pool))
    thing["metadata"] = {
        "name": names.routing_slice_name(pool, number),
        "namespace": namespace,
        "labels": paths.routing_labels(pool),
    }
    document = {"apiVersion": names.API_VERSION, "kind": "RoutingSlice", **thing}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(document))


def delete(kubectl: Kubectl, namespace: str, number: int) -> None:
    kubectl("-n", namespace, "delete", "routingslice", names.routing_slice_name("pool", number))


async def later(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_is_there_and_each_change_arrives(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    for number in range(3):
        write(kubectl, namespace, number, {f"u{number}": f"dr-{number}"})
    async with following(client, namespace, page=2) as (watch, seen):  # two pages
        await seen.until({"u0": "dr-0", "u1": "dr-1", "u2": "dr-2"})
        write(kubectl, namespace, 0, {"u0": "dr-0", "u9": "dr-9"})
        await seen.until({"u0": "dr-0", "u1": "dr-1", "u2": "dr-2", "u9": "dr-9"})
        assert watch.connected
        assert seen.lists == 1


async def test_one_that_is_made_later_arrives(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    async with following(client, namespace) as (watch, seen):
        await later(lambda: watch.connected)
        assert seen.view.header is None
        write(kubectl, namespace, 0, {"u0": "dr-0"})
        await seen.until({"u0": "dr-0"})


async def test_other_pools_slices_are_not_heard(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    async with following(client, namespace) as (watch, seen):
        await later(lambda: watch.connected)
        write(kubectl, namespace, 0, {"u8": "dr-8"}, pool="another")
        write(kubectl, namespace, 0, {"u0": "dr-0"})
        await seen.until({"u0": "dr-0"})


async def test_a_deleted_slice_takes_its_twins_along(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    write(kubectl, namespace, 0, {"u0": "dr-0"})
    write(kubectl, namespace, 1, {"u1": "dr-1"})
    async with following(client, namespace) as (_, seen):
        await seen.until({"u0": "dr-0", "u1": "dr-1"})
        delete(kubectl, namespace, 1)
        await seen.until({"u0": "dr-0"})
        assert seen.deletions == 1


async def test_a_broken_line_is_mended_and_nothing_is_missed(
    client: ClusterClient, namespace: str, kubectl: Kubectl, line: Line
) -> None:
    write(kubectl, namespace, 0, {"u0": "dr-0"})
    write(kubectl, namespace, 1, {"u1": "dr-1"})
    async with following(client, namespace) as (watch, seen):
        await seen.until({"u0": "dr-0", "u1": "dr-1"})
        await line.close()
        await later(lambda: not watch.connected)
        assert set(seen.view.twins) == {"u0", "u1"}
        write(kubectl, namespace, 0, {"u0": "dr-0", "u2": "dr-2"})
        delete(kubectl, namespace, 1)
        await line.open()
        await seen.until({"u0": "dr-0", "u2": "dr-2"})


async def test_a_line_that_falls_silent_is_left(
    client: ClusterClient, namespace: str, kubectl: Kubectl, line: Line
) -> None:
    write(kubectl, namespace, 0, {"u0": "dr-0"})
    async with following(client, namespace, silence_seconds=1.0) as (_, seen):
        await seen.until({"u0": "dr-0"})
        line.freeze()
        write(kubectl, namespace, 0, {"u0": "dr-0", "u1": "dr-1"})
        await seen.until({"u0": "dr-0", "u1": "dr-1"})


async def test_text_arrives_and_is_stored_as_utf_8(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    """A prompt of 8,192 Nepali characters, the longest there is, takes its 24 KB and not twice that."""
    text = ("तपाईं डा. इन्द्र गुरुङको जुम्ल्याहा हुनुहुन्छ। " * 200)[:8192]
    thing = routing_slice(name="pool-routing-prompts-0", prompts={names.prompt_digest(text): text})
    thing["metadata"] = {"name": "pool-routing-prompts-0", "labels": paths.routing_labels("pool")}
    document = {"apiVersion": names.API_VERSION, "kind": "RoutingSlice", **thing}
    await client.create(paths.routing_slices(namespace), document)
    async with following(client, namespace) as (_, seen):
        await later(lambda: dict(seen.view.prompts) == {names.prompt_digest(text): text})
    raw = kubectl("get", "--raw", f"{paths.routing_slices(namespace)}/pool-routing-prompts-0").stdout
    assert "\\u09" not in raw
    assert len(raw.encode()) < len(text.encode()) * 2.2  # the text, and its copy where kubectl keeps none
