"""A base model's shape without its weights, and adapters for it: what speed depends on, made on the spot."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bettertherapy_api.lora_targets import LoraTargets

HIDDEN: Final = 4096
INTERMEDIATE: Final = 14336
KEY_VALUE: Final = 1024
LAYERS: Final = 32
VOCABULARY: Final = 128256
CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""That of Llama 3's 8B."""
_ATTENTION: Final = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
}  # fmt: skip
_REST: Final = {
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}  # fmt: skip
_A_VALUE: Final = struct.pack("<H", 0x3C24)
"""0.01 in bfloat16."""
_B_VALUE: Final = struct.pack("<H", 0x3A03)
"""0.0005."""


def modules(targets: LoraTargets) -> dict[str, tuple[int, int]]:
    """Return the modules that an adapter changes, each with (out, in)."""
    kinds = _ATTENTION if targets is LoraTargets.ATTENTION else {**_ATTENTION, **_REST}
    return {f"model.layers.{layer}.{name}": sizes for layer in range(LAYERS) for name, sizes in kinds.items()}


def adapter_bytes(targets: LoraTargets, *, rank: int) -> int:
    """Return what the weights of an adapter take in bfloat16: on the disk, and of a slot on the GPU."""
    return sum(2 * rank * (out + inner) for out, inner in modules(targets).values())


def write_model(folder: Path) -> None:
    """Write configuration and a tokenizer of made-up words: prompts are token ids, and answers needn't be read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    named = ("<unk>", "<s>", "</s>")
    words = {word: number for number, word in enumerate((*named, *(f"w{n}" for n in range(3, VOCABULARY))))}
    tokenizer = {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_adapters(folder: Path, number: int, targets: LoraTargets, *, rank: int) -> list[Path]:
    """Write so many adapters' folders, which share one file of weights: an engine loads each for itself."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    with weights.open("wb") as file:
        for piece in _weights(targets, rank=rank):
            file.write(piece)
    names = sorted({name.rpartition(".")[2] for name in modules(targets)})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0,
        "bias": "none", "target_modules": names,
    }  # fmt: skip
    made = []
    for each in range(number):
        path = folder / f"twin-{each}"
        path.mkdir()
        (path / "adapter_config.json").write_text(json.dumps(config))
        os.link(weights, path / weights.name)
        made.append(path)
    return made


def _weights(targets: LoraTargets, *, rank: int) -> Iterator[bytes]:
    header: dict[str, object] = {}
    shapes: list[tuple[int, bytes]] = []
    at = 0
    for module, (out, inner) in modules(targets).items():
        for side, shape, value in (("A", (rank, inner), _A_VALUE), ("B", (out, rank), _B_VALUE)):
            count = shape[0] * shape[1]
            header[f"base_model.model.{module}.lora_{side}.weight"] = {
                "dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + 2 * count],
            }  # fmt: skip
            shapes.append((count, value))
            at += 2 * count
    text = json.dumps(header).encode()
    yield struct.pack("<Q", len(text)) + text
    for count, value in shapes:
        yield value * count
