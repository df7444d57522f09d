"""The base model is made in the trainer's image, also where that image's layers were dropped to save disk."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from imagebuilder import model
from imagebuilder.catalog import Catalog
from imagebuilder.paths import Paths


def _neighbour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("builder_tests", Path(__file__).with_name("test_builder.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["builder_tests"] = module
    spec.loader.exec_module(module)
    return module


_builder = _neighbour()
catalog = _builder.catalog


@dataclass
class Engine(_builder.FakeEngine):  # type: ignore[misc, name-defined]
    """Makes a model when it is run in an image that it has."""

    def run(self, reference: str, command: Sequence[str], *, volumes: Sequence[tuple[Path, str]]) -> None:
        assert reference in self.stored
        out = next(here for here, there in volumes if there == "/mnt/out") / model.MODEL
        out.mkdir()
        (out / "model.safetensors").write_text("weights")


@pytest.mark.parametrize("free_gb", [1000, 20])
def test_the_model_is_made_though_the_images_layers_were_dropped(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int
) -> None:
    disk = shutil.disk_usage("/")._replace(free=free_gb << 30)
    monkeypatch.setattr("imagebuilder.builder.shutil.disk_usage", lambda _path: disk)
    monkeypatch.setattr(model, "_fetch_weights", lambda _catalog, _target: None)
    shutil.copytree(Catalog().repository / "images/model", catalog.repository / "images/model", dirs_exist_ok=True)
    paths, engine = Paths(cache=tmp_path / "cache"), Engine()
    _builder.build(["trainer-cpu"], catalog=catalog, paths=paths, engine=engine)

    folder = model.build_model(catalog=catalog, paths=paths, engine=engine)
    assert (folder / "model.safetensors").read_text() == "weights"
    # And what is there is not made again.
    before = list(engine.built)
    assert model.build_model(catalog=catalog, paths=paths, engine=engine) == folder
    assert engine.built == before
    # The layers go again where disk is scarce.
    assert bool(engine.stored) is (free_gb == 1000)
