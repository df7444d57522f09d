"""Room in a cache that several pools share: what goes when it lacks, what first, and what never does."""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from obstore.store import LocalStore

from neurons.models import cache, eviction, sources
from neurons.models.cache import cache_key
from neurons.models.eviction import evict, note_use, read_uses
from neurons.models.fetch import Fetched, Origin, fetch_model
from neurons.store import DEFAULT_LIMITS, Location, NoSpace
from neurons.store.model_record import hold_model

URI = "s3://models/smol"
OWN, OTHER = "clinic/ours", "clinic/theirs"
LONG_AGO = 1000.0


@pytest.fixture(autouse=True)
def bucket(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_folder(uri: str, **_: object) -> Location:
        return Location(uri=uri, store=LocalStore(model), limits=DEFAULT_LIMITS, folder=None)

    monkeypatch.setattr(sources, "open_store", open_folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


async def get(root: Path, name: str, *, pool: str = OWN, uses: float | None = LONG_AGO) -> Fetched:
    """Fetch a model; by default it was used long ago."""
    found = await fetch_model(uri=f"{URI}/{name}", name=name, revision=None, root=root, shared=True, pool=pool)
    if uses is not None:
        note_use(root, found.folder.name, pool=pool, now=uses)
    return found


def key(name: str) -> str:
    return cache_key(name=name, uri=f"{URI}/{name}", revision=None)


def there(root: Path) -> set[str]:
    return {path.name.split("-")[0] for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}


async def test_a_pools_former_revisions_go_the_one_that_was_used_least_lately_first(root: Path) -> None:
    for at, name in enumerate(("b", "a", "c", "now")):
        await get(root, name, uses=LONG_AGO + at)
    assert evict(root, 1, keep=key("now"), pool=OWN) > 0
    assert there(root) == {"a", "c", "now"}
    evict(root, 10**9, keep=key("now"), pool=OWN)
    assert there(root) == {"now"}


async def test_no_more_goes_than_lacks(root: Path) -> None:
    for name in ("a", "b", "now"):
        await get(root, name)
    evict(root, 0, keep=key("now"), pool=OWN)
    assert there(root) == {"a", "b", "now"}


async def test_another_pools_model_never_goes_until_that_pool_has_another(root: Path) -> None:
    await get(root, "theirs", pool=OTHER)
    await get(root, "shared", pool=OTHER)
    await get(root, "theirs", pool=OTHER)
    await get(root, "shared")
    await get(root, "now")
    assert evict(root, 10**9, keep=key("now"), pool=OWN) > 0
    assert there(root) == {"theirs", "now"}
    await get(root, "newer", pool=OTHER)
    evict(root, 10**9, keep=key("now"), pool=OWN)
    assert there(root) == {"newer", "now"}


async def test_what_nobody_wrote_down_stays(root: Path) -> None:
    """A cache that an earlier release filled, or whoever else keeps models there."""
    await get(root, "old")
    (root / f".{key('old')}.uses.json").unlink()
    await get(root, "now")
    assert evict(root, 10**9, keep=key("now"), pool=OWN) == 0
    assert there(root) == {"old", "now"}


async def test_what_was_used_a_moment_ago_stays(root: Path) -> None:
    await get(root, "just", uses=None)
    await get(root, "now")
    assert evict(root, 10**9, keep=key("now"), pool=OWN) == 0


def hold(folder: Path, held: object, release: object) -> None:
    hold_model(folder)
    held.set()  # type: ignore[attr-defined]
    release.wait(60)  # type: ignore[attr-defined]


async def test_a_loaded_model_stays_until_its_process_ends(root: Path, tmp_path: Path) -> None:
    folder = (await get(root, "loaded")).folder
    await get(root, "now")
    link = tmp_path / "current"
    link.symlink_to(folder)
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    agent = context.Process(target=hold, args=(link, held, release))
    agent.start()
    assert await asyncio.to_thread(held.wait, 60)
    assert evict(root, 10**9, keep=key("now"), pool=OWN) == 0
    agent.kill()
    await asyncio.to_thread(agent.join)
    assert evict(root, 10**9, keep=key("now"), pool=OWN) > 0
    assert there(root) == {"now"}


async def test_a_model_that_is_being_fetched_or_looked_at_stays(root: Path) -> None:
    await get(root, "fetched")
    await get(root, "now")
    async with cache.locked(root, key("fetched"), seconds=5):
        assert evict(root, 10**9, keep=key("now"), pool=OWN) == 0
    assert evict(root, 10**9, keep=key("now"), pool=OWN) > 0


async def test_half_a_download_that_nobody_took_up_again_goes_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get(root, "former", uses=time.time() - 60)
    await get(root, "now")
    half = cache.new_partial(root, "gone-1", alone=True)
    (half / "model.safetensors").write_bytes(b"x" * 5000)
    monkeypatch.setattr(eviction, "GRACE_SECONDS", -60.0)
    note_use(root, key("former"), pool=OWN, now=time.time() + 30)
    note_use(root, key("now"), pool=OWN)
    assert evict(root, 1, keep=key("now"), pool=OWN) >= 5000
    assert not half.exists()
    assert there(root) == {"former", "now"}


async def test_a_fetch_makes_its_room_and_says_what_lacks_where_it_cannot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get(root, "former")
    usage = namedtuple("usage", "total used free")
    small = 10**8

    def free(_: object) -> object:
        models = sum(1 for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return usage(10**9, 0, small if not models else 0)

    monkeypatch.setattr(shutil, "disk_usage", free)
    assert (await get(root, "newer", uses=None)).origin is Origin.FETCHED
    assert there(root) == {"newer"}
    with pytest.raises(NoSpace, match="Enlarge the volume"):
        await get(root, "newest")
    assert there(root) == {"newer"}


async def test_a_stamp_that_cant_be_written_holds_nobody_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(eviction, "_write", full)
    assert (await get(root, "a", uses=None)).origin is Origin.FETCHED
    assert (await get(root, "a", uses=None)).origin is Origin.CACHE


@pytest.mark.parametrize("text", ["", "[]", '{"used": "x"}'])
async def test_a_stamp_that_cant_be_read_keeps_the_model(text: str, root: Path) -> None:
    await get(root, "a")
    await get(root, "now")
    (root / f".{key('a')}.uses.json").write_text(text)
    assert read_uses(root, key("a")) is None
    assert evict(root, 10**9, keep=key("now"), pool=OWN) == 0
