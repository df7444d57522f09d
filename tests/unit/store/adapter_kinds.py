"""Adapters as people have them: for each kind, its files, and whether it can be served as it was meant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .lora_files import DOWN, PREFIX, Entries, Q, lora, tensor, write_lora

VERDICTS: Final = Path(__file__).with_name("vllm_verdicts.json")
"""What the pinned vLLM says to each kind: null, or the error with which it refuses (tests/e2e/vllm_verdicts.py)."""


@dataclass(frozen=True)
class Kind:
    """One kind of adapter. `says` is in our refusal, None when it is served."""

    says: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    """Keys left out of the configuration."""
    tensors: Entries | None = None
    otherwise: bool = False
    """vLLM takes it, and serves it otherwise than PEFT meant, or fails later."""

    def write(self, folder: Path) -> Path:
        write_lora(folder, self.tensors, **self.config)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in self.without}))
        return folder


def plus(**extra: tuple[str, tuple[int, ...], bytes]) -> Entries:
    """Return a usual adapter's tensors and others; `__` in a name stands for a dot."""
    return lora() | {PREFIX + name.replace("__", "."): value for name, value in extra.items()}


def renamed(old: str, new: str) -> Entries:
    return {name.replace(old, new): value for name, value in lora().items()}


UNSLOTH: Final = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": None,
    "base_model_name_or_path": "unsloth/llama-3-8b-bnb-4bit", "corda_config": None, "ensure_weight_tying": False,
    "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_bias": False, "lora_dropout": 0, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "peft_version": "0.18.1",
    "qalora_group_size": 16, "rank_pattern": {}, "revision": None,
    "target_modules": "(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)",
    "target_parameters": None,
    "trainable_token_indices": None, "use_dora": False, "use_qalora": False, "use_rslora": False, "unsloth_fixed": True,
}  # fmt: skip
OLD_PEFT: Final = {
    "base_model_name_or_path": "decapoda-research/llama-7b-hf", "enable_lora": None, "fan_in_fan_out": False,
    "inference_mode": True, "lora_dropout": 0.05, "merge_weights": False, "modules_to_save": None,
}  # fmt: skip

KINDS: Final[dict[str, Kind]] = {
    # served
    "plain": Kind(),
    "unsloth": Kind(config=UNSLOTH),
    "old PEFT": Kind(config=OLD_PEFT),
    "rsLoRA": Kind(config={"use_rslora": True}),
    "rank pattern": Kind(config={"rank_pattern": {"down_proj": 4}}, tensors=lora(ranks={DOWN: 4})),
    "rank pattern by expression": Kind(
        config={"rank_pattern": {r".*\.1\.mlp\.(up|down)_proj": 4}}, tensors=lora(ranks={DOWN: 4})
    ),
    "first rank pattern counts": Kind(
        config={"rank_pattern": {"mlp.down_proj": 4, "down_proj": 16}}, tensors=lora(ranks={DOWN: 4})
    ),
    "alpha pattern": Kind(config={"alpha_pattern": {"q_proj": 32.5}}),
    "patterns null": Kind(config={"rank_pattern": None, "alpha_pattern": None}),
    "alpha is no whole number": Kind(config={"lora_alpha": 12.5}),
    "initialised by gaussian": Kind(config={"init_lora_weights": "gaussian"}),
    "initialised by EVA": Kind(config={"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}),
    "initialised by LoRA-GA": Kind(config={"init_lora_weights": "lora_ga"}),
    "initialised with null": Kind(config={"init_lora_weights": None}),
    "initialised by false": Kind(config={"init_lora_weights": False}),
    "converted PiSSA": Kind(config={"init_lora_weights": True, "r": 8}),
    "modules_to_save empty": Kind(config={"modules_to_save": []}),
    "bfloat16": Kind(tensors=lora(dtype="BF16")),
    "float16": Kind(tensors=lora(dtype="F16")),
    "float8": Kind(tensors=lora(dtype="F8_E4M3")),
    "embeddings trained by LoRA": Kind(
        tensors=plus(
            model__embed_tokens__lora_embedding_A=tensor((8, 100)),
            model__embed_tokens__lora_embedding_B=tensor((64, 8)),
            model__embed_tokens__base_layer__weight=tensor((100, 64)),
        )
    ),
    "output layer trained by LoRA": Kind(
        tensors=plus(lm_head__lora_A__weight=tensor((8, 64)), lm_head__lora_B__weight=tensor((100, 8)))
    ),
    "base_model.model twice": Kind(tensors=lora(prefix=PREFIX * 2)),
    # refused, by vLLM too
    "DoRA": Kind("DoRA", {"use_dora": True}),
    "DoRA's tensors alone": Kind(
        "use_dora", tensors=plus(model__layers__0__self_attn__q_proj__lora_magnitude_vector=tensor((64,)))
    ),
    "PiSSA": Kind("PiSSA", {"init_lora_weights": "pissa"}),
    "PiSSA in steps": Kind("PiSSA", {"init_lora_weights": "pissa_niter_16"}),
    "OLoRA": Kind("OLoRA", {"init_lora_weights": "olora"}),
    "LoftQ": Kind("LoftQ", {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}),
    "CorDA": Kind("CorDA", {"init_lora_weights": "corda"}),
    "bias all": Kind("bias is", {"bias": "all"}),
    "bias lora_only": Kind("bias is", {"bias": "lora_only"}),
    "bias null": Kind("bias is", {"bias": None}),
    "bias tensors alone": Kind("bias", tensors=plus(model__layers__0__self_attn__q_proj__bias=tensor((64,)))),
    "lora_bias": Kind("lora_bias", {"lora_bias": True}),
    "layer_replication": Kind("layer_replication", {"layer_replication": [[0, 2], [1, 3]]}),
    "trainable_token_indices": Kind(
        "trainable_token_indices", {"trainable_token_indices": [5]},
        tensors=plus(model__embed_tokens__token_adapter__trainable_tokens_delta=tensor((1, 64))),
    ),
    "activated LoRA": Kind("alora_invocation_tokens", {"alora_invocation_tokens": [1, 2]}),
    "QALoRA": Kind("use_qalora", {"use_qalora": True}),
    "block-diagonal LoRA": Kind("use_bdlora", {"use_bdlora": {"nblocks": 2}}),
    "modules_to_save lm_head": Kind("modules_to_save", {"modules_to_save": ["lm_head"]}),
    "embeddings of a larger vocabulary": Kind(
        "changed vocabulary", tensors=plus(model__embed_tokens__weight=tensor((101, 64)))
    ),
    "lora_alpha null": Kind("lora_alpha", {"lora_alpha": None}),
    "lora_alpha a text": Kind("lora_alpha", {"lora_alpha": "16"}),
    "lora_alpha missing": Kind("lora_alpha missing", without=("lora_alpha",)),
    "target_modules missing": Kind("target_modules missing", without=("target_modules",)),
    "r missing": Kind("r missing", without=("r",)),
    "r zero": Kind("r is 0", {"r": 0}),
    "r null": Kind("r is null", {"r": None}),
    "r a text": Kind("r is", {"r": "8"}),
    "rank pattern with zero": Kind("rank_pattern", {"rank_pattern": {"q_proj": 0}}),
    "rank pattern with a text": Kind("rank_pattern", {"rank_pattern": {"q_proj": "4"}}),
    "alpha pattern with a text": Kind("alpha_pattern", {"alpha_pattern": {"q_proj": "4"}}),
    "rank pattern that is no expression": Kind("no expression", {"rank_pattern": {"q_proj(": 4}}),
    "an adapter's name in the tensors": Kind("save_pretrained", tensors=renamed("lora_A.", "lora_A.default.")),
    "AdaLoRA's tensors": Kind(
        "none of LoRA's", tensors=plus(model__layers__0__self_attn__q_proj__lora_E=tensor((8, 1)))
    ),
    "no tensors": Kind("no LoRA weights", tensors={}),
    "A without B": Kind("has no lora_B", tensors={n: t for n, t in lora().items() if f"{Q}.lora_B" not in n}),
    "B without A": Kind("has no lora_A", tensors={n: t for n, t in lora().items() if f"{Q}.lora_A" not in n}),
    # taken by vLLM and served otherwise than it was meant
    "trainable_token_indices without tensors": Kind(
        "trainable_token_indices", {"trainable_token_indices": [5]}, otherwise=True
    ),
    "modules_to_save score": Kind("modules_to_save", {"modules_to_save": ["score"]}, otherwise=True),
    "KaSA": Kind("kasa_config", {"kasa_config": {"beta": 1e-4}}, otherwise=True),
    "MonteCLoRA": Kind("monteclora_config", {"monteclora_config": {"num_samples": 8}}, otherwise=True),
    "Arrow": Kind("arrow_config", {"arrow_config": {"top_k": 3}}, otherwise=True),
    "another kind of PEFT": Kind("not LORA", {"peft_type": "LOHA"}, otherwise=True),
    "rank in the configuration too low": Kind("rank 4", {"r": 4}, tensors=lora(rank=8), otherwise=True),
    "rank in the configuration too high": Kind("rank 16", {"r": 16}, tensors=lora(rank=8), otherwise=True),
    "rank pattern forgotten": Kind("rank 8", tensors=lora(ranks={DOWN: 4}), otherwise=True),
    "A and B of two ranks": Kind(
        "two adapters", tensors=lora() | {f"{PREFIX}{Q}.lora_B.weight": tensor((64, 4))}, otherwise=True
    ),
    "convolution": Kind(
        "two dimensions", tensors=lora() | {f"{PREFIX}{Q}.lora_A.weight": tensor((8, 64, 1, 1))}, otherwise=True
    ),
    "compiled model": Kind("_orig_mod", tensors=renamed(PREFIX, f"{PREFIX}_orig_mod."), otherwise=True),
    "wrapped for training on several GPUs": Kind("module", tensors=renamed(PREFIX, f"{PREFIX}module."), otherwise=True),
    "whole numbers as weights": Kind(
        "stored as I8", tensors=lora() | {f"{PREFIX}{Q}.lora_A.weight": ("I8", (8, 64), bytes(512))}, otherwise=True
    ),
    "lora_alpha infinite": Kind("lora_alpha", {"lora_alpha": float("inf")}, otherwise=True),
}  # fmt: skip
