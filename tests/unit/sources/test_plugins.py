"""Plug-ins by entry point: found by name, off until named, and no key in a message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from neurons.sources import NotConfigured
from neurons.sources.contract import check_source
from neurons.sources.corpus import Corpus
from neurons.sources.documents import Document
from neurons.sources.index import Index
from neurons.sources.local import LocalCorpus
from neurons.sources.plugins import open_plugin, plugin_names

PLUGIN = """
def licensed(settings):
    from tests_plugin_source import made
    return made(settings)
def careless(settings):
    raise ValueError("bad key " + settings["key"])
def nothing(settings):
    return object()
"""


def made(settings: Mapping[str, str]) -> LocalCorpus:
    if not settings.get("key"):
        raise NotConfigured("UpToDate needs a licence key")
    corpus = Corpus(
        f"sha256:{'0' * 64}", (Document(id="1", title="Fever", text="A fever is a high body temperature."),), (), 0
    )
    return LocalCorpus(name="UpToDate", licence="licensed", corpus=corpus, index=Index.build(corpus))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "licensed_plugin_for_tests.py").write_text(PLUGIN)
    info = tmp_path / "licensed_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: licensed-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[bettertherapy.sources]\n"
        + "".join(f"{name} = licensed_plugin_for_tests:{name}\n" for name in ("licensed", "careless", "nothing"))
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import sys
    import types

    module = types.ModuleType("tests_plugin_source")
    module.made = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests_plugin_source", module)


@pytest.mark.usefixtures("installed")
async def test_a_plugin_is_found_by_name_and_keeps_the_contract() -> None:
    assert set(plugin_names()) >= {"licensed", "careless", "nothing"}
    await check_source(open_plugin("licensed", {"key": "sekret"}), found="high body temperature", absent="zebra")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "settings", "why"), [
    ("licensed", {}, "needs a licence key"), ("careless", {"key": "sekret"}, "can't be made: ValueError"),
    ("nothing", {"key": "sekret"}, "no Source"), ("webmd", {"key": "sekret"}, "no source `webmd` is installed"),
])  # fmt: skip
def test_what_is_not_configured_is_said_without_the_key(name: str, settings: dict[str, str], why: str) -> None:
    with pytest.raises(NotConfigured, match=why) as error:
        open_plugin(name, settings)
    assert "sekret" not in str(error.value)
