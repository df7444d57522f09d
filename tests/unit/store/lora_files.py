"""Adapters of every kind, written byte by byte: the library that reads them must not be the one that wrote them."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

PREFIX = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
SIZES = {Q: (64, 64), DOWN: (64, 128)}
"""Modules and their (out, in)."""
FORMATS = {"F64": "d", "F32": "f", "F16": "e"}
Entries = dict[str, tuple[str, tuple[int, ...], bytes]]


def encode(dtype: str, values: Iterable[float]) -> bytes:
    """Return values as safetensors keeps them."""
    if dtype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    if dtype == "F8_E5M2":
        return b"".join(struct.pack("<e", value)[1:] for value in values)
    if dtype == "F8_E4M3":
        return bytes(0x7F if math.isnan(value) else 0x30 for value in values)
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}{FORMATS[dtype]}", *numbers)


def tensor(shape: tuple[int, ...], *, dtype: str = "F32", seed: int = 0) -> tuple[str, tuple[int, ...], bytes]:
    """Return a tensor of small random numbers."""
    count = 1
    for size in shape:
        count *= size
    draw = random.Random(seed)
    return dtype, shape, encode(dtype, (draw.uniform(-0.05, 0.05) for _ in range(count)))


def lora(
    sizes: Mapping[str, tuple[int, int]] = SIZES,
    *,
    rank: int = 8,
    ranks: Mapping[str, int] | None = None,
    dtype: str = "F32",
    prefix: str = PREFIX,
    seed: int = 0,
) -> Entries:
    """Return lora_A and lora_B of each module."""
    entries: Entries = {}
    for number, (module, (out, inner)) in enumerate(sizes.items()):
        r = (ranks or {}).get(module, rank)
        entries[f"{prefix}{module}.lora_A.weight"] = tensor((r, inner), dtype=dtype, seed=seed + 2 * number)
        entries[f"{prefix}{module}.lora_B.weight"] = tensor((out, r), dtype=dtype, seed=seed + 2 * number + 1)
    return entries


def safetensors(entries: Entries, **metadata: str) -> bytes:
    """Return the bytes of a safetensors file."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at, body = 0, b""
    for name, (dtype, shape, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def config(*, rank: int = 8, **changes: object) -> dict[str, object]:
    """Return an adapter_config.json as PEFT writes it; a change to None is written as null."""
    return {
        "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "down_proj"],
        "bias": "none", "task_type": "CAUSAL_LM", **changes,
    }  # fmt: skip


def write_lora(folder: Path, entries: Entries | None = None, *, rank: int = 8, **changes: object) -> Path:
    """Write a whole adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = lora(rank=rank) if entries is None else entries
    (folder / "adapter_model.safetensors").write_bytes(safetensors(written, format="pt"))
    (folder / "adapter_config.json").write_text(json.dumps(config(rank=rank, **changes)))
    return folder
