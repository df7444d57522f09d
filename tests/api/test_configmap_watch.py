"""Following one ConfigMap and owning one key, on a real API server, over a line that can freeze and break."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from neurons.cluster import (
    Backoff,
    ClusterClient,
    ClusterError,
    ConfigMapWatch,
    KubeconfigAccess,
    apply_report_key,
)
from tests.conftest import Kubectl

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


class Seen:
    """What a watch yielded."""

    def __init__(self) -> None:
        self.states: list[Mapping[str, str]] = []
        self._more = asyncio.Event()

    async def follow(self, watch: ConfigMapWatch) -> None:
        async for data in watch:
            self.states.append(dict(data))
            self._more.set()

    async def until(self, state: Mapping[str, str], *, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not self.states or self.states[-1] != state:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def following(
    client: ClusterClient, namespace: str, **options: float
) -> AsyncIterator[tuple[ConfigMapWatch, Seen]]:
    seconds = options.pop("silence_seconds", 75.0)
    watch = ConfigMapWatch(
        client, namespace=namespace, name="table", silence_seconds=seconds, backoff=Backoff(first=0.05, most=0.2)
    )
    seen = Seen()
    task = asyncio.create_task(seen.follow(watch))
    try:
        yield watch, seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def write(kubectl: Kubectl, namespace: str, data: Mapping[str, str], *, name: str = "table") -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps({**document, "data": dict(data)}))


async def later(condition: object, *, seconds: float = 10) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_what_is_there_and_each_change_arrives(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    write(kubectl, namespace, {"a": "1"})
    async with following(client, namespace) as (watch, seen):
        await seen.until({"a": "1"})
        write(kubectl, namespace, {"a": "2"})
        await seen.until({"a": "2"})
        assert watch.connected
        assert watch.data == {"a": "2"}


async def test_one_that_is_made_later_arrives(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    async with following(client, namespace) as (watch, seen):
        await later(lambda: watch.connected)
        assert watch.data is None
        write(kubectl, namespace, {"a": "1"})
        await seen.until({"a": "1"})


async def test_other_configmaps_are_not_heard(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    async with following(client, namespace) as (watch, seen):
        await later(lambda: watch.connected)
        write(kubectl, namespace, {"b": "1"}, name="another")
        write(kubectl, namespace, {"a": "1"})
        await seen.until({"a": "1"})
        assert seen.states == [{"a": "1"}]


async def test_a_deleted_one_is_remembered(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    write(kubectl, namespace, {"a": "1"})
    async with following(client, namespace) as (watch, seen):
        await seen.until({"a": "1"})
        kubectl("-n", namespace, "delete", "configmap", "table")
        await later(lambda: not watch.exists)
        assert watch.data == {"a": "1"}
        assert seen.states == [{"a": "1"}]


async def test_a_broken_line_is_mended_and_nothing_is_missed(
    client: ClusterClient, namespace: str, kubectl: Kubectl, line: Line
) -> None:
    write(kubectl, namespace, {"a": "1"})
    async with following(client, namespace) as (watch, seen):
        await seen.until({"a": "1"})
        await line.close()
        await later(lambda: not watch.connected)
        assert watch.data == {"a": "1"}
        write(kubectl, namespace, {"a": "2"})
        await line.open()
        await seen.until({"a": "2"})


async def test_a_line_that_falls_silent_is_left(
    client: ClusterClient, namespace: str, kubectl: Kubectl, line: Line
) -> None:
    write(kubectl, namespace, {"a": "1"})
    async with following(client, namespace, silence_seconds=1.0) as (_, seen):
        await seen.until({"a": "1"})
        line.freeze()
        write(kubectl, namespace, {"a": "2"})
        await seen.until({"a": "2"})


async def test_pods_own_a_key_each(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    kubectl("-n", namespace, "create", "configmap", "report")

    def data() -> dict[str, str]:
        found = json.loads(kubectl("-n", namespace, "get", "configmap", "report", "-o", "json").stdout)
        return dict(found.get("data") or {})

    for pod, value in (("pod-1", "one"), ("pod-2", "two"), ("pod-1", "three")):
        await apply_report_key(client, namespace=namespace, name="report", pod=pod, value=value)
    assert data() == {"pod-1": "three", "pod-2": "two"}
    await apply_report_key(client, namespace=namespace, name="report", pod="pod-1", value=None)
    assert data() == {"pod-2": "two"}


async def test_an_unchanged_report_is_no_write(client: ClusterClient, namespace: str, kubectl: Kubectl) -> None:
    kubectl("-n", namespace, "create", "configmap", "report")

    def version() -> str:
        return kubectl(
            "-n", namespace, "get", "configmap", "report", "-o", "jsonpath={.metadata.resourceVersion}"
        ).stdout

    await apply_report_key(client, namespace=namespace, name="report", pod="pod-1", value="one")
    before = version()
    await apply_report_key(client, namespace=namespace, name="report", pod="pod-1", value="one")
    assert version() == before


async def test_rights_on_two_named_configmaps_are_enough(
    kubeconfig: Path, namespace: str, kubectl: Kubectl, tmp_path: Path
) -> None:
    """The engine pod's Role: resourceNames also bound a list and a watch, when they select by that name."""
    kubectl("-n", namespace, "create", "serviceaccount", "engine")
    for role, verbs, name in (("look", "get,list,watch", "table"), ("tell", "get,patch", "report")):
        verb = [f"--verb={v}" for v in verbs.split(",")]
        kubectl("-n", namespace, "create", "role", role, *verb, "--resource=configmaps", f"--resource-name={name}")
        kubectl(
            "-n", namespace, "create", "rolebinding", role, f"--role={role}", f"--serviceaccount={namespace}:engine"
        )
    token = kubectl("-n", namespace, "create", "token", "engine").stdout.strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": token}
    limited = tmp_path / "kubeconfig"
    limited.write_text(json.dumps(config))
    write(kubectl, namespace, {"a": "1"})
    async with ClusterClient(KubeconfigAccess(limited)) as client:
        async with following(client, namespace) as (_, seen):
            await seen.until({"a": "1"})
        with pytest.raises(ClusterError) as refused:
            await apply_report_key(client, namespace=namespace, name="report", pod="pod-1", value="one")
        assert refused.value.status == 403  # the operator has not made it yet, and the agent may not
        kubectl("-n", namespace, "create", "configmap", "report")
        await apply_report_key(client, namespace=namespace, name="report", pod="pod-1", value="one")
        with pytest.raises(ClusterError):
            await apply_report_key(client, namespace=namespace, name="table", pod="pod-1", value="one")
