"""The tensors of a LoRA adapter: which module each belongs to, and do shapes fit rank, each other and the base "
"model?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from neurons.store.errors import AdapterInvalid
from neurons.store.finite import DTYPES
from neurons.store.lora_config import LoraConfig
from neurons.store.safetensors import Tensor

_PREFIX: Final = "base_model.model."
_A_ENDS: Final = (".lora_A.weight", ".lora_embedding_A")
_B_ENDS: Final = (".lora_B.weight", ".lora_embedding_B")
_COPIES: Final = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
"""The base model's own embeddings, which PEFT copies into an adapter that changes them; vLLM passes them over."""
_TURNED: Final = ("c_attn", "c_fc", "c_proj", "q_attn")
"""GPT-2's layers (Conv1D), which checkpoints keep as (in, out); other models have linear layers of these names."""
_EMBEDDINGS: Final = ("embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings")
_WRAPPERS: Final = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_MODEL_PREFIXES: Final = ("model", "transformer", "gpt_neox", "backbone")
_MAX_NAME: Final = 256
_KNOWN: Final = (
    ("lora_magnitude_vector", "DoRA, which vLLM can't serve: train without use_dora"),
    ("token_adapter", "trained tokens, which vLLM can't serve: train without trainable_token_indices"),
    ("modules_to_save", "a whole trained module, which vLLM can't serve: train without modules_to_save"),
    ("lora_bias", "a trained bias, which vLLM can't serve: train with lora_bias=False"),
    ("lora_diag", "KaSA, which vLLM can't serve"),
    ("embed_tokens.weight", "the embeddings of a changed vocabulary, which vLLM can't serve: train without new tokens"),
    ("lm_head.weight", "a trained or enlarged output layer, which vLLM can't serve: train without it"),
    (".bias", "a trained bias, which vLLM can't serve: train with bias='none'"),
)


@dataclass(frozen=True, slots=True)
class BaseModules:
    """The modules of a base model that have weights: their names, and (out, in) where that is known."""

    shapes: Mapping[str, tuple[int, int] | None]
    vocabulary: int | None = None
    has_parts: bool = False
    """It sees or hears too: checkpoints name such a model's parts otherwise than code does, so prefixes don't tell."""
    other_names: bool = False
    """The checkpoint may name everything otherwise than the engine does (Mistral's own format): an adapter of which no
    module is known is left to measuring."""
    _by_tail: Mapping[tuple[str, ...], str] = field(init=False, repr=False, default_factory=dict)
    _heads: frozenset[str] = field(init=False, repr=False, default_factory=frozenset)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_heads", frozenset(name.partition(".")[0] for name in self.shapes if "." in name))
        if self.has_parts:
            by_tail: dict[tuple[str, ...], str] = {}
            for name in self.shapes:
                by_tail.setdefault(_tail(name), name)
            object.__setattr__(self, "_by_tail", by_tail)

    def find(self, module: str) -> str | None:
        """Return the base model's own name of an adapter's module, None when it has none of that name."""
        if module in self.shapes:
            return module
        head, _, rest = module.partition(".")
        if head in _MODEL_PREFIXES and rest in self.shapes and head not in self._heads:
            return rest  # a checkpoint of the bare model, as GPT-2's
        if self.has_parts:
            return self._by_tail.get(_tail(module))
        if module.rpartition(".")[2] == "lm_head":
            return next((name for name in self.shapes if name.endswith(("embed_tokens", "wte"))), None)  # tied
        return None


def module_of(tensor: str) -> str | None:
    """Return the module that a tensor of this name belongs to, None for one that is none of LoRA's."""
    name = tensor.removeprefix(_PREFIX)
    return next((name.removesuffix(end) for end in (*_A_ENDS, *_B_ENDS) if name.endswith(end)), None)


def check_tensors(tensors: Iterable[Tensor], config: LoraConfig, *, where: str, base: BaseModules | None) -> None:
    """Raise AdapterInvalid unless the engine would serve these tensors as PEFT meant them."""
    tensors = tuple(tensors)
    pairs = pairs_of(tensors, where=where)
    for tensor in tensors:
        if tensor.name.endswith(_COPIES):
            _check_copy(tensor, base, where)
    if not pairs:
        raise AdapterInvalid(f"{where}: there are no LoRA weights in it. Save the adapter again, after training.")
    if base is not None and base.other_names and not any(base.find(module) for module in pairs):
        base = None
    for module, pair in pairs.items():
        _check_pair(module, pair, config, where)
        if base is not None:
            _check_base(module, pair, base, where)


def pairs_of(tensors: Iterable[Tensor], *, where: str) -> dict[str, dict[str, Tensor]]:
    """Return by module its `lora_A` and `lora_B`, as far as they are there. Raises AdapterInvalid for other tensors."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            raise AdapterInvalid(
                f"{where}: {_name(tensor)} is stored as {tensor.dtype}, weights are {', '.join(DTYPES)}. Save the "
                "adapter in one of these."
            )
        if tensor.name.endswith(_COPIES):
            continue
        module, side = _parse(tensor, where)
        if pairs.setdefault(module, {}).setdefault(side, tensor) is not tensor:
            raise AdapterInvalid(f"{where}: {module} has two {side}. Save the adapter again.")
    return pairs


def _parse(tensor: Tensor, where: str) -> tuple[str, str]:
    name = tensor.name.replace(_PREFIX, "") if tensor.name.startswith(_PREFIX) else tensor.name
    for side, ends in (("lora_A", _A_ENDS), ("lora_B", _B_ENDS)):
        for end in ends:
            if name.endswith(end):
                module = name.removesuffix(end)
                if not module or len(module) > _MAX_NAME:
                    raise AdapterInvalid(f"{where}: {_name(tensor)} names no module. Save the adapter again.")
                if wrapper := next((w for w in _WRAPPERS if f".{w}" in f".{module}."), None):
                    raise AdapterInvalid(
                        f"{where}: {_name(tensor)} bears the name of a wrapper ({wrapper.rstrip('.')}), under which "
                        "the engine finds nothing and serves the base model. Save the unwrapped model."
                    )
                return module, side
    if ".lora_A." in name or ".lora_B." in name:
        raise AdapterInvalid(
            f"{where}: {_name(tensor)} has an adapter's name in it. Save the adapter with PEFT's save_pretrained, "
            "which takes it out (not with state_dict)."
        )
    what = next((text for part, text in _KNOWN if part in name), "none of LoRA's weights, and vLLM refuses it")
    raise AdapterInvalid(f"{where}: {_name(tensor)} is {what}.")


def _check_pair(module: str, pair: Mapping[str, Tensor], config: LoraConfig, where: str) -> None:
    for side in ("lora_A", "lora_B"):
        if side not in pair:
            raise AdapterInvalid(f"{where}: {module} has no {side}. The adapter isn't whole; save or copy it again.")
        if 0 in pair[side].shape:
            raise AdapterInvalid(
                f"{where}: {_name(pair[side])} is empty, as what is saved while the weights lie in parts on several "
                "GPUs (DeepSpeed ZeRO-3, FSDP). Gather them before saving: DeepSpeed does with "
                "stage3_gather_16bit_weights_on_model_save."
            )
        if len(pair[side].shape) != 2:
            raise AdapterInvalid(
                f"{where}: {_name(pair[side])} has the shape {_shape(pair[side])}, expected two dimensions: vLLM "
                "serves LoRA on linear layers and embeddings. Train it on those."
            )
    a, b = pair["lora_A"], pair["lora_B"]
    named = _name_for_patterns(module)
    rank = config.rank_of(named)
    config.scale_of(named)  # the engine's to know; here, that its patterns can be tried in time
    # Experts that PEFT keeps in one parameter lie side by side: rank times their number.
    many = module.endswith((".experts", ".experts.base_layer"))
    fits = a.shape[0] % rank == 0 if many else a.shape[0] == rank
    if a.shape[0] != b.shape[1] or not fits:
        raise AdapterInvalid(
            f"{where}: {module} has lora_A of {_shape(a)} and lora_B of {_shape(b)}, adapter_config.json says rank "
            f"{rank}: expected ({rank}, in) and (out, {rank}). Configuration and weights are of two adapters; save it "
            "again."
        )


def _name_for_patterns(module: str) -> str:
    """PEFT matches its patterns against the parameters' names where experts share one, and so does vLLM."""
    if module.endswith(".experts.base_layer"):
        return module.removesuffix(".base_layer") + ".gate_up_proj"
    return module + ".down_proj" if module.endswith(".experts") else module


def _check_base(module: str, pair: Mapping[str, Tensor], base: BaseModules, where: str) -> None:
    if ".experts" in module:
        return  # checkpoints name experts in several ways; the engine itself refuses names that it doesn't know
    name = base.find(module)
    if name is None:
        alike = next((known for known in base.shapes if _tail(known) == _tail(module)), None)
        hint = f" (it has {alike})" if alike else ""
        raise AdapterInvalid(
            f"{where}: the base model has no module {module}{hint}, so the engine would leave these weights out. The "
            "adapter was trained on another model or in a wrapper; train it on the pool's base model."
        )
    shape = base.shapes[name]
    found = (pair["lora_B"].shape[0], pair["lora_A"].shape[1])
    if shape is not None and found not in _fitting(module, pair, shape):
        raise AdapterInvalid(
            f"{where}: {module} is {found[0]} x {found[1]} in the adapter and {shape[0]} x {shape[1]} in the base "
            "model. The adapter was trained on another model; train it on the pool's base model."
        )


def _fitting(module: str, pair: Mapping[str, Tensor], shape: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the (out, in) that an adapter of a module may have whose weights have this shape."""
    turned = (shape[1], shape[0])
    if pair["lora_A"].name.endswith(".lora_embedding_A"):
        return (turned,)  # PEFT looks at an embedding as vocabulary in, width out
    return (shape, turned) if module.rpartition(".")[2] in (*_TURNED, *_EMBEDDINGS) else (shape,)


def _check_copy(tensor: Tensor, base: BaseModules | None, where: str) -> None:
    if base is not None and base.vocabulary is not None and tensor.shape[:1] != (base.vocabulary,):
        raise AdapterInvalid(
            f"{where}: {_name(tensor)} has {_shape(tensor)}, the base model has {base.vocabulary} tokens: it was "
            "trained with new tokens, which vLLM leaves out. Train it without new tokens."
        )


def _tail(module: str) -> tuple[str, ...]:
    """Return a module's name from its last number on: what stays when a wrapper is put around a model."""
    parts = module.split(".")
    last = max((index for index, part in enumerate(parts) if part.isdigit()), default=len(parts) - 1)
    return tuple(parts[last:])


def _name(tensor: Tensor) -> str:
    return repr(tensor.name[:200])


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
