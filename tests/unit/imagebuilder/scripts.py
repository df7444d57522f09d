"""The scripts that run while an image is built, which lie in no package."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.conftest import ROOT


def engine_script(name: str) -> ModuleType:
    """Load a script of the engine's image for CPUs."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "images" / "engine-cpu" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
