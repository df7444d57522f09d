"""Nothing that a pool adds to its pods runs code of its own in them: the examiner's pods are among them."""

from __future__ import annotations

import re

import pytest

from bettertherapy_api.pod_overlay import OWNED_PATHS, OWNED_VARIABLES
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "name",
    ["PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV",
     "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_LOGGING_CONFIG_PATH", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE",
     "VLLM_SERVER_DEV_MODE", "OTEL_EXPORTER_OTLP_ENDPOINT", "VLLM_PLUGINS"],
)  # fmt: skip
def test_no_variable_brings_code_or_writes_down_what_is_asked(name: str) -> None:
    assert re.fullmatch("|".join(OWNED_VARIABLES), name)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HF_ENDPOINT", "HTTPS_PROXY", "VLLM_CPU_KVCACHE_SPACE"])
def test_what_pools_need_is_left_to_them(name: str) -> None:
    assert not re.fullmatch("|".join(OWNED_VARIABLES), name)


def test_no_volume_lies_where_an_image_has_its_programs() -> None:
    """As the images' own files say."""
    found: set[str] = set()
    for file in (ROOT / "images").glob("*/Dockerfile"):
        for line in file.read_text().splitlines():
            if re.match(r"\s*(ENV |WORKDIR|COPY|PATH=|PYTHONPATH=)", line) or "PYTHONPATH=" in line:
                found |= set(re.findall(r"(?<![\w/.])/(?:app|opt|usr|bin|lib|root|home)(?:/[\w.]+)*", line))
    assert {"/app", "/opt/venv/bin"} <= found
    outside = [path for path in found if not any(f"{path}/".startswith(f"{owned}/") for owned in OWNED_PATHS)]
    assert outside == []
