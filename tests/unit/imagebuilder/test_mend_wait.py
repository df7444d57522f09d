"""vLLM's processes sleep while they wait for one another once the image's builder has mended them."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.unit.imagebuilder.scripts import engine_script

SECOND = "        busy_loop_s: float = 1,\n"


@pytest.fixture
def mend() -> ModuleType:
    return engine_script("mend_wait")


def test_the_loop_is_shortened_once(mend: ModuleType) -> None:
    mended = mend.mended(f"    def __init__(\n        self,\n{SECOND}    ):\n")
    assert "busy_loop_s: float = 0.001,\n" in mended
    assert SECOND not in mended
    assert mend.mended(mended) == mended


@pytest.mark.parametrize("places", [0, 2])
def test_another_vllm_stops_the_build(mend: ModuleType, places: int) -> None:
    with pytest.raises(SystemExit, match="can this vLLM be told otherwise"):
        mend.mended(SECOND * places)
