"""A small Llama in the shapes and formats that vLLM's quantized kernels take: same function, rounded to the nearest.

    python -m tests.gpu.quantize pad --model DIR --out DIR                        # needs torch, safetensors
    python -m tests.gpu.quantize int4 --model PADDED --out DIR --group 128

Marlin and Machete take no matrix of 576 columns. `pad` widens SmolLM2-135M with zeros to 768 columns and 12 heads (a
fourth in each group), with norms that make up for it: it computes the same. `int8` (weights and activations), `int8w`
and `int4` (weights) are written in compressed-tensors' format, which vLLM loads as it loads published checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

HIDDEN: Final = 768
HEADS: Final = 12
_OTHERS: Final = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def padded(tensors: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wider model's tensors and configuration."""
    import torch

    hidden, heads, groups = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // heads
    times = math.sqrt(hidden / HIDDEN)

    def wider(weight: Any, rows: int, columns: int) -> Any:
        found = torch.zeros(rows, columns, dtype=weight.dtype)
        found[: weight.shape[0], : weight.shape[1]] = weight
        return found

    def more_heads(weight: Any) -> Any:
        parts = weight.reshape(groups, heads // groups, size, -1)
        found = torch.zeros(groups, HEADS // groups, size, parts.shape[-1], dtype=weight.dtype)
        found[:, : heads // groups] = parts
        return found.reshape(HEADS * size, -1)

    made = {}
    for name, weight in tensors.items():
        if weight.dim() == 1:
            norm = torch.zeros(HIDDEN, dtype=weight.dtype)
            norm[:hidden] = (weight.float() * times).to(weight.dtype)
            made[name] = norm
        elif name.endswith("q_proj.weight"):
            made[name] = wider(more_heads(weight), HEADS * size, HIDDEN)
        elif name.endswith("o_proj.weight"):
            made[name] = wider(more_heads(weight.T.contiguous()).T, HIDDEN, HEADS * size).contiguous()
        elif name.endswith("down_proj.weight"):
            made[name] = wider(weight, HIDDEN, weight.shape[1])
        else:
            made[name] = wider(weight, weight.shape[0], HIDDEN)
    changed = {
        "hidden_size": HIDDEN, "num_attention_heads": HEADS, "head_dim": size,
        "rms_norm_eps": config["rms_norm_eps"] * hidden / HIDDEN,
    }  # fmt: skip
    return made, {**config, **changed}


def packed(values: Any, bits: int) -> Any:
    """Return whole numbers from -2^(bits-1) on as int32 words, the first in the lowest bits."""
    import torch

    unsigned = (values + (1 << (bits - 1))).to(torch.int64).reshape(values.shape[0], -1, 32 // bits)
    shifts = torch.arange(0, 32, bits, dtype=torch.int64)
    words = (unsigned << shifts).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def quantized(tensors: dict[str, Any], how: str, group: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checkpoint's tensors and its quantization_config; symmetric, rounded to the nearest."""
    import torch

    bits = 4 if how == "int4" else 8
    grouped = how == "int4"
    made: dict[str, Any] = {}
    for name, weight in tensors.items():
        if name.rsplit(".", 2)[-2] not in _LINEAR:
            made[name] = weight
            continue
        parts = weight.float().reshape(weight.shape[0], -1, group if grouped else weight.shape[1])
        most = (1 << (bits - 1)) - 1
        scale = (parts.abs().amax(-1, keepdim=True) / most).clamp_min(1e-6).to(torch.bfloat16)
        rounded = (parts / scale.float()).round().clamp(-most - 1, most).reshape(weight.shape)
        scales = scale[..., 0]
        if how == "int8":
            made[name] = rounded.to(torch.int8)
            made[f"{name}_scale"] = scales.float()
        else:
            made[f"{name}_packed"] = packed(rounded, bits)
            made[f"{name}_scale"] = scales.contiguous()
            made[f"{name}_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
    weights = {
        "num_bits": bits, "type": "int", "symmetric": True, "dynamic": False,
        "strategy": "group" if grouped else "channel", "group_size": group if grouped else None,
    }  # fmt: skip
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"}
    scheme = {
        "targets": ["Linear"], "weights": weights, "input_activations": inputs if how == "int8" else None,
        "output_activations": None,
    }  # fmt: skip
    return made, {
        "quant_method": "compressed-tensors", "format": "int-quantized" if how == "int8" else "pack-quantized",
        "quantization_status": "compressed", "config_groups": {"group_0": scheme}, "ignore": ["lm_head"],
        "kv_cache_scheme": None, "global_compression_ratio": None,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Read, change, write."""
    from safetensors.torch import load_file, save_file

    parser = argparse.ArgumentParser(prog="python -m tests.gpu.quantize", description=__doc__)
    parser.add_argument("how", choices=("pad", "int8", "int8w", "int4"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--group", type=int, default=128, help="of int4 (%(default)s)")
    args = parser.parse_args(argv)
    tensors = load_file(args.model / "model.safetensors")
    config = json.loads((args.model / "config.json").read_text())
    if args.how == "pad":
        tensors, config = padded(tensors, config)
    else:
        tensors, config["quantization_config"] = quantized(tensors, args.how, args.group)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(config, indent=2))
    for name in _OTHERS:
        if (args.model / name).exists():
            shutil.copyfile(args.model / name, args.out / name)


if __name__ == "__main__":
    main()
