"""adapter_config.json: what PEFT wrote there, and what of it the pinned vLLM refuses or would serve otherwise.

The rules are those of vLLM 0.32 (its PEFTHelper, and how it reads tensors), and what PEFT 0.21 does beyond them.
tests/unit/store/vllm_verdicts.json records vLLM's own word on each; a test in the engine's image holds it against vLLM.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from neurons.store.errors import AdapterInvalid
from neurons.store.lora_patterns import Patterns, wrong_key, wrong_size

CONFIG_FILE: Final = "adapter_config.json"
MAX_CONFIG_BYTES: Final = 1024 * 1024
_PLAIN_INITS: Final = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights that leave a saved adapter a plain LoRA; vLLM's own list."""
MOST_RANK: Final = 65_536
"""Beyond any layer's width."""
_A_RANK: Final = f"a whole number from 1 to {MOST_RANK}"
RANK_PATTERN: Final = "rank_pattern"
ALPHA_PATTERN: Final = "alpha_pattern"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What the engine's arithmetic takes from adapter_config.json."""

    rank: int
    ranks: Patterns
    """Of modules that have others (rank_pattern)."""
    alpha: float
    alphas: Patterns
    rank_stabilised: bool = False
    """rsLoRA: alpha over the square root of the rank."""

    @property
    def highest_rank(self) -> int:
        """The rank that the engine holds against its --max-lora-rank: patterns count even where they match nothing."""
        return max(self.rank, int(self.ranks.highest))

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, named without `base_model.model.`; the first pattern that fits counts.

        Raises AdapterInvalid where patterns take too long to try.
        """
        return int(self.ranks.value_for(module) or self.rank)

    def scale_of(self, module: str) -> float:
        """Return by what a module's product of B and A is multiplied; raises as `rank_of` does."""
        found = self.alphas.value_for(module)
        alpha, rank = self.alpha if found is None else found, self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def parse_config(data: bytes, *, where: str) -> LoraConfig:
    """Read adapter_config.json. Raises AdapterInvalid, with everything that stands against serving it."""
    try:
        config = json.loads(_decoded(data, where))
    except (ValueError, RecursionError) as error:
        raise AdapterInvalid(
            f"{where}: {CONFIG_FILE} is not JSON ({_begin(error)}). Save the adapter again."
        ) from error
    if not isinstance(config, dict):
        raise AdapterInvalid(f"{where}: {CONFIG_FILE} is no JSON object. Save the adapter again.")
    if config.get("peft_type") != "LORA":
        raise AdapterInvalid(f"{where}: peft_type in {CONFIG_FILE} is not LORA. Only LoRA adapters can be served.")
    if found := refusals(config):
        raise AdapterInvalid(f"{where}: {CONFIG_FILE}: {'; '.join(found)}.")
    ranks, alphas = (
        Patterns(config.get(key) or {}, name=f"{where}: {CONFIG_FILE}: {key}") for key in (RANK_PATTERN, ALPHA_PATTERN)
    )
    return LoraConfig(config["r"], ranks, config["lora_alpha"], alphas, bool(config.get("use_rslora")))


def _decoded(data: bytes, where: str) -> str:
    """Return the text as vLLM and PEFT read it, who take UTF-8 without a mark and nothing else."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise AdapterInvalid(
            f"{where}: {CONFIG_FILE} begins with a byte order mark, on which vLLM fails. Save it as UTF-8 without one."
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        utf_16 = b"\x00" in data[:4] or data.startswith((b"\xff\xfe", b"\xfe\xff"))
        seems = " (UTF-16, it seems)" if utf_16 else ""
        raise AdapterInvalid(f"{where}: {CONFIG_FILE} is not in UTF-8{seems}. Save it as UTF-8.") from None


def refusals(config: Mapping[str, Any]) -> list[str]:
    """Return what in a LoRA configuration can't be served as it was meant, in words; nothing when all can."""
    missing = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if missing:
        return [f"{', '.join(missing)} missing: save the adapter with PEFT's save_pretrained"]
    return [sentence for rule in _RULES if (sentence := rule(config)) is not None]


def _rank(config: Mapping[str, Any]) -> str | None:
    if not _is_rank(config["r"]):
        return f"r is {_show(config['r'])}, not {_A_RANK}: save the adapter again"
    return None


def _alpha(config: Mapping[str, Any]) -> str | None:
    if not _is_number(config["lora_alpha"]):
        return f"lora_alpha is {_show(config['lora_alpha'])}, no number: set the alpha that it was trained with"
    return None


def _rank_pattern(config: Mapping[str, Any]) -> str | None:
    return _pattern(config, RANK_PATTERN, _is_rank, _A_RANK)


def _alpha_pattern(config: Mapping[str, Any]) -> str | None:
    return _pattern(config, ALPHA_PATTERN, _is_number, "a number")


def _pattern(config: Mapping[str, Any], key: str, good: Callable[[object], bool], kind: str) -> str | None:
    pattern = config.get(key)
    if not pattern:
        return None
    if not isinstance(pattern, dict):
        return f"{key} is no table of modules: save the adapter again"
    if (wrong := wrong_size(pattern)) is not None:
        return f"{key} {wrong}: write few expressions, or the modules' plain names"
    for name, value in pattern.items():
        if not good(value):
            return f"{key} gives {name[:100]!r} {_show(value)}, not {kind}: save the adapter again"
        if (wrong := wrong_key(name)) is not None:
            return f"{key} has the module name {name[:100]!r}, which {wrong}: write the modules' plain names"
    return None


def _bias(config: Mapping[str, Any]) -> str | None:
    if config.get("bias", "none") != "none":
        return f"bias is {_show(config['bias'])}: vLLM takes no trained biases; train with bias='none'"
    return None


def _init(config: Mapping[str, Any]) -> str | None:
    init = config.get("init_lora_weights")
    if not isinstance(init, str) or init.lower() in _PLAIN_INITS:
        return None
    return (
        f"init_lora_weights is {_show(init)}: such an adapter (PiSSA, OLoRA, CorDA, LoftQ) belongs to a changed base "
        "model, which the pool doesn't have; convert it with "
        "save_pretrained(path_initial_model_for_weight_conversion=…)"
    )


def _modules_to_save(config: Mapping[str, Any]) -> str | None:
    if modules := config.get("modules_to_save"):
        return f"modules_to_save is {_show(modules)}: vLLM takes no whole modules of a model that writes; train without"
    return None


def _feature(key: str, what: str) -> Callable[[Mapping[str, Any]], str | None]:
    def rule(config: Mapping[str, Any]) -> str | None:
        return f"{key} is set ({what}), which vLLM can't serve: train without it" if config.get(key) else None

    return rule


_RULES: Final = (
    _rank,
    _alpha,
    _rank_pattern,
    _alpha_pattern,
    _bias,
    _init,
    _modules_to_save,
    _feature("use_dora", "DoRA"),
    _feature("lora_bias", "a bias beside B"),
    _feature("layer_replication", "layers used more than once"),
    _feature("trainable_token_indices", "trained tokens"),
    _feature("alora_invocation_tokens", "activated LoRA"),
    _feature("use_qalora", "QALoRA"),
    _feature("use_bdlora", "block-diagonal LoRA"),
    # vLLM doesn't look at these and would serve A and B alone, which is not what was trained.
    _feature("arrow_config", "a router between adapters"),
    _feature("kasa_config", "KaSA changes the base model"),
    _feature("monteclora_config", "Monte Carlo LoRA"),
)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_RANK


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _show(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        return "too deeply nested"
    return text if len(text) <= 80 else text[:77] + "..."


def _begin(error: BaseException) -> str:
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
