"""Keep LoRA off the requests that ask for none, in vLLM's operations for CPUs.

vLLM marks the tokens of the base model by adapter index -1. Its kernels for GPUs skip them; its PyTorch operations,
used on CPUs, index the adapters' weights with it, and -1 is the last slot. So the base model, asked in one batch with
any adapter, answered with the weights of whichever adapter was in the last slot. Seen in vLLM 0.32.0.

    python mend_lora.py VENV

It stops the build where vLLM's text is another: then look whether the fault is still there.
"""

import py_compile
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

_OPERATIONS = "vllm/lora/ops/torch_ops/lora_ops.py"
_PRODUCT = '    outputs = torch.einsum("bi, boi -> bo", inputs, selected_loras)\n'
_MASK = "    outputs = outputs.masked_fill(lora_indices_tensor.unsqueeze(1) < 0, 0)  # -1: no adapter\n"
_TIMES = 3
"""shrink, expand, expand a slice: each by itself, since a NaN times nothing is a NaN."""


def mended(text: str) -> str:
    """Return the module's text with the products of tokens without an adapter put to zero; raises SystemExit."""
    if _MASK in text:
        return text
    found = text.count(_PRODUCT)
    if found != _TIMES:
        raise SystemExit(f"{_OPERATIONS}: {found} products of adapters, not {_TIMES}: is the fault still in this vLLM?")
    return text.replace(_PRODUCT, _PRODUCT + _MASK)


def main(venv: Path) -> None:
    """Mend the installed module and try it."""
    [operations] = venv.glob(f"lib/python3*/site-packages/{_OPERATIONS}")
    operations.write_text(mended(operations.read_text()))
    # The installer's bytecode is taken without a look at the source.
    py_compile.compile(str(operations), doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    try_operations()
    print(f"mended {operations.name}: no adapter for tokens that ask for none")  # noqa: T201


def try_operations() -> None:
    """Ask the operations for one token with an adapter and one without; raises SystemExit."""
    import torch  # noqa: PLC0415
    from vllm.lora.ops.torch_ops import lora_ops  # noqa: PLC0415

    inputs, weights, which = torch.ones(2, 4), torch.ones(3, 1, 8, 4), torch.tensor([0, -1])
    weights[-1] = torch.nan
    shrunk, expanded, sliced = torch.full((2, 8), 5.0), torch.ones(2, 8), torch.ones(2, 16)
    lora_ops.bgmv_shrink(inputs, weights, shrunk, which)
    lora_ops.bgmv_expand(inputs, weights, expanded, which)
    lora_ops.bgmv_expand_slice(inputs, weights, sliced, which, 8, 8)
    got = [shrunk.tolist(), expanded.tolist(), sliced.tolist()]
    if got != [[[4.0] * 8, [0.0] * 8], [[5.0] * 8, [1.0] * 8], [[1.0] * 8 + [5.0] * 8, [1.0] * 16]]:
        raise SystemExit(f"{_OPERATIONS} is not mended: {got}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
