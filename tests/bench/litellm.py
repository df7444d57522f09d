"""LiteLLM's proxy in a virtual environment of its own: its dependencies are none of ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.bench.registry import BenchmarkError
from tests.bench.results import ROOT

LOCK: Final = ROOT / "requirements" / "bench.txt"
KEY: Final = "sk-bench"


def cache_dir() -> Path:
    """Return where downloads are kept between runs."""
    return Path(os.environ.get("BETTERTHERAPY_CACHE", "~/.cache/bettertherapy")).expanduser()


def install() -> Path:
    """Return the environment's bin folder, made from the hashed lock when it isn't there yet (about a minute)."""
    lock = LOCK.read_bytes()
    folder = cache_dir() / "bench" / f"litellm-{hashlib.sha256(lock).hexdigest()[:12]}"
    if (folder / "done").exists():
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    uv, python = str(Path(sys.executable).with_name("uv")), str(folder / "bin" / "python")
    try:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True, timeout=120)
        install = [uv, "pip", "install", "-q", "--python", python]  # pip takes no lock with extras in it
        subprocess.run([*install, "--require-hashes", "-r", str(LOCK)], check=True, timeout=900)
    except (subprocess.SubprocessError, OSError) as error:
        raise BenchmarkError(
            f"LiteLLM can't be installed from {LOCK.name} ({error}): check the network, or use --skip litellm"
        ) from error
    (folder / "done").touch()
    return folder / "bin"


def command(binaries: Path, *, port: int, upstream: str, served: str, folder: Path) -> list[str]:
    """Write its configuration into `folder` and return how to start it: one worker, one key, no database."""
    config = {
        "model_list": [
            {
                "model_name": "indra",
                "litellm_params": {"model": f"openai/{served}", "api_base": f"{upstream}/v1", "api_key": "none"},
            }
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return [str(binaries / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1"]  # fmt: skip
