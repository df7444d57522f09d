"""vLLM's operations for CPUs leave the base model's tokens alone once the image's builder has mended them."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.unit.imagebuilder.scripts import engine_script

PRODUCT = '    outputs = torch.einsum("bi, boi -> bo", inputs, selected_loras)\n'


@pytest.fixture
def mend() -> ModuleType:
    return engine_script("mend_lora")


def test_each_product_is_masked_once(mend: ModuleType) -> None:
    text = "".join(f"def operation_{number}():\n{PRODUCT}    return outputs\n" for number in range(3))
    mended = mend.mended(text)
    assert mended.count("masked_fill") == 3
    assert mend.mended(mended) == mended


@pytest.mark.parametrize("products", [0, 2, 4])
def test_another_vllm_stops_the_build(mend: ModuleType, products: int) -> None:
    with pytest.raises(SystemExit, match="is the fault still in this vLLM"):
        mend.mended(PRODUCT * products)
