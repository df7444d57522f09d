"""hf:// against a server that speaks the hub's protocol, with the real huggingface_hub client."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from .conftest import write_model

pytest.importorskip("huggingface_hub", reason="hf:// models need huggingface_hub, which is not installed here")

REPO = "owner/smol"
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """One model repository over a folder."""

    folder: Path
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    damage: set[str] = field(default_factory=set)
    """Files whose bytes are changed on the way."""
    stalls: int | None = None
    """After so many bytes of the weights nothing comes any more."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self.describe)
        app.router.add_get("/api/models/{owner}/{name}/tree/{revision}", self.tree)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", self.resolve)
        return app

    def siblings(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for path in sorted(self.folder.iterdir()):
            content = path.read_bytes()
            sibling: dict[str, object] = {"rfilename": path.name, "size": len(content), "blobId": git_id(content)}
            if path.suffix == ".safetensors":
                sibling["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 100,
                }
            found.append(sibling)
        return found

    async def describe(self, request: web.Request) -> web.Response:
        revision = request.match_info["revision"]
        self.asked.append(f"describe {revision}")
        if request.match_info["name"] != "smol":
            return refusal("RepoNotFound", "Repository not found", status=401)
        if request.match_info["owner"] == "gated":
            return refusal("GatedRepo", "Access is restricted", status=403)
        if revision not in ("main", "v1", COMMIT):
            return refusal("RevisionNotFound", "Invalid rev id", status=404)
        return web.json_response({"id": REPO, "sha": COMMIT, "siblings": self.siblings()})

    async def tree(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"type": "file", "path": each["rfilename"], "size": each["size"], "oid": each["blobId"]}
                | ({"lfs": {"oid": lfs["sha256"], **lfs}} if isinstance(lfs := each.get("lfs"), dict) else {})
                for each in self.siblings()
            ]
        )

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["path"]
        content = (self.folder / name).read_bytes()
        if request.method == "GET":
            self.asked.append(f"get {name}")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_id(content)}"'}
        if name in self.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if request.method != "GET" or self.stalls is None or name != "model.safetensors":
            return web.Response(body=content, headers=headers)
        answer = web.StreamResponse(headers=headers)
        answer.content_length = len(content)
        await answer.prepare(request)
        await answer.write(content[: self.stalls])
        await asyncio.Event().wait()
        return answer


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def refusal(code: str, message: str, *, status: int) -> web.Response:
    return web.Response(status=status, headers={"X-Error-Code": code, "X-Error-Message": message})


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(write_model(tmp_path / "repository"))
    runner = web.AppRunner(hub.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    hub.endpoint = f"http://{host}:{port}"
    yield hub
    await runner.cleanup()


async def fetch(hub: Hub, tmp_path: Path, *extra: str, uri: str = f"hf://{REPO}") -> tuple[int, str, str]:
    process = await begin(hub, tmp_path, *extra, uri=uri)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def begin(hub: Hub, tmp_path: Path, *extra: str, uri: str = f"hf://{REPO}") -> asyncio.subprocess.Process:
    """Run the command in a process of its own: the client reads HF_ENDPOINT when it is imported."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "neurons.models", "fetch", "--uri", uri, "--name", "smol"),
        *("--dest", str(tmp_path / "models"), *extra),
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_model_is_fetched_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    status, out, err = await fetch(hub, tmp_path, "--revision", "v1")
    assert status == 0, err
    folder = tmp_path / "models" / "current"
    assert sorted(os.listdir(folder)) == [
        ".bettertherapy-model.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert json.loads(out)["origin"] == "fetched"


async def test_the_commit_that_was_listed_is_downloaded_even_if_the_branch_moves_on(hub: Hub, tmp_path: Path) -> None:
    await fetch(hub, tmp_path, "--revision", "main")
    assert hub.asked[0] == "describe main"
    assert "describe main" not in hub.asked[1:]


async def test_the_second_fetch_asks_nothing(hub: Hub, tmp_path: Path) -> None:
    await fetch(hub, tmp_path)
    hub.asked.clear()
    status, out, _ = await fetch(hub, tmp_path)
    assert (status, json.loads(out)["origin"], hub.asked) == (0, "cache", [])


async def test_damaged_weights_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.damage.add("model.safetensors")
    status, _, err = await fetch(hub, tmp_path)
    assert status == 1
    assert "damaged" in err
    assert not (tmp_path / "models" / "current").exists()


async def test_after_a_kill_files_that_came_whole_are_not_fetched_again_and_halves_are_gone(
    hub: Hub, tmp_path: Path
) -> None:
    hub.stalls = 10_000
    process = await begin(hub, tmp_path)
    models = tmp_path / "models"
    async with asyncio.timeout(60):
        while not all(list(models.rglob(name)) for name in ("*.incomplete", "config.json", "tokenizer.json")):
            assert process.returncode is None
            await asyncio.sleep(0.05)
    process.kill()
    await process.wait()
    hub.stalls = None
    hub.asked.clear()
    status, _, err = await fetch(hub, tmp_path)
    assert status == 0, err
    assert [asked for asked in hub.asked if asked.startswith("get")] == ["get model.safetensors"]
    here, there = (folder / "model.safetensors" for folder in (models / "current", hub.folder))
    assert here.read_bytes() == there.read_bytes()
    assert not list(models.rglob("*.incomplete"))


async def test_the_expected_digest_may_stand_beside_a_revision_in_the_uri(hub: Hub, tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    status, _, err = await fetch(hub, tmp_path, "--revision", digest, uri=f"hf://{REPO}@v1")
    assert status == 1
    assert err.startswith("DigestMismatch: ")


@pytest.mark.parametrize(
    ("uri", "revision", "message"),
    [
        (f"hf://{REPO}", "v9", "ArtifactNotFound: .*baseModel.revision"),
        ("hf://owner/unknown", "main", "ArtifactNotFound: .*HF_TOKEN"),
        ("hf://gated/smol", "main", "AccessDenied: .*gated"),
        ("hf://owner", "main", "ArtifactNotFound: .*hf://owner/name"),
    ],
)
async def test_what_the_hub_refuses_is_said(uri: str, revision: str, message: str, hub: Hub, tmp_path: Path) -> None:
    status, _, err = await fetch(hub, tmp_path, "--revision", revision, uri=uri)
    assert status == 1
    assert re.search(message, err)


async def test_a_hub_that_is_down(hub: Hub, tmp_path: Path) -> None:
    hub.endpoint = "http://127.0.0.1:1"
    status, _, err = await fetch(hub, tmp_path)
    assert status == 1
    assert err.splitlines()[-1].startswith("StoreUnreachable: ")
