"""The training itself: LoRA on all linear layers, loss on the assistant's tokens only, the same result for the same "
"seed."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from neurons.trainer.dataset import Message
from neurons.trainer.errors import BadData, BadModel, Diverged, OutOfMemory

if TYPE_CHECKING:
    import torch

_IGNORED: Final = -100
_WARM_UP_SHARE: Final = 0.1
_MAX_GRADIENT_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters; with the seed, the dataset and the base model they determine the adapter."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    steps: int = 30
    batch_size: int = 4
    learning_rate: float = 1e-3
    max_tokens: int = 1024
    """Longer conversations are cut at the end."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as tokens. `labels[i]` is `token_ids[i]` where it is learned and -100 where it is given."""

    token_ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step, reported as it happens."""

    number: int
    of: int
    loss: float
    """Mean cross-entropy over the learned tokens of the batch, in nats."""
    seconds: float
    """Since the first step began."""

    @property
    def remaining_seconds(self) -> float:
        """Estimate what is left, from the mean of the steps so far."""
        return self.seconds / self.number * (self.of - self.number)


@dataclass(slots=True)
class Trained:
    """A base model with its freshly trained adapter, still in memory."""

    model: Any
    tokenizer: Any
    losses: tuple[float, ...]


def load(base_model: Path) -> tuple[Any, Any]:
    """Return model and tokenizer from a local folder, on the GPU when there is one. Raises BadModel."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Seconds to import, and absent where only the rest is tested.
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    device, precision = _precision()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base_model)
        model = AutoModelForCausalLM.from_pretrained(base_model, dtype=precision)
    except (OSError, ValueError) as error:
        raise BadModel(f"{base_model} is no model that transformers can read: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise BadModel(f"{base_model} has no chat template. Use an instruction-tuned base model.")
    return model.to(device), tokenizer


def tokenise(conversation: Sequence[Message], tokenizer: Any, *, max_tokens: int) -> Example:
    """Apply the chat template and mark the assistant's tokens (with the token that ends a turn) as those to learn.

    Templates seldom mark the assistant's part themselves, so its bounds are found by templating the conversation up to
    each of its turns. Raises BadModel when the template rewrites earlier turns, which would put the bounds in the
    wrong place.
    """
    messages = [message.model_dump() for message in conversation]
    token_ids: list[int] = []
    labels: list[int] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        given = _template(tokenizer, messages[:index], add_generation_prompt=True)
        whole = _template(tokenizer, messages[: index + 1], add_generation_prompt=False)
        if given[: len(token_ids)] != token_ids or whole[: len(given)] != given:
            raise BadModel("the chat template changes earlier turns as a conversation grows; it can't be trained on")
        labels += [_IGNORED] * (len(given) - len(labels)) + whole[len(given) :]
        token_ids = whole
    return Example(token_ids=tuple(token_ids[:max_tokens]), labels=tuple(labels[:max_tokens]))


def train(
    conversations: Sequence[Sequence[Message]],
    *,
    base_model: Path,
    settings: Settings,
    report: Callable[[Step], None],
) -> Trained:
    """Train an adapter and return it in memory; `report` is called after every step. Raises TrainerError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model, tokenizer = load(base_model)
    import torch  # noqa: PLC0415
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    examples = [tokenise(conversation, tokenizer, max_tokens=settings.max_tokens) for conversation in conversations]
    examples = [example for example in examples if any(label != _IGNORED for label in example.labels)]
    if not examples:
        raise BadData(f"no conversation has an answer within {settings.max_tokens} tokens. Raise --max-tokens.")
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    try:
        losses = _optimise(adapted, examples, settings=settings, report=report)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(
            "memory ran out while training. Lower --batch-size or --max-tokens, or give it more."
        ) from error
    _round_to_stored_precision(adapted)
    return Trained(model=adapted, tokenizer=tokenizer, losses=tuple(losses))


def save(trained: Trained, folder: Path, *, base_model_name: str) -> None:
    """Write the adapter as PEFT does, in bfloat16, with nothing in it that depends on this machine or this process."""
    folder.mkdir(parents=True, exist_ok=True)
    import torch  # noqa: PLC0415
    from peft import get_peft_model_state_dict  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = get_peft_model_state_dict(trained.model)
    save_file(
        {name: tensors[name].detach().to("cpu", torch.bfloat16).contiguous() for name in sorted(tensors)},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = trained.model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base_model_name
    config["inference_mode"] = True
    for name, value in config.items():
        if isinstance(value, set):  # whose order changes with the process
            config[name] = sorted(value)
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (folder / "adapter_config.json").write_text(text + "\n")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).chmod(0o644)  # safetensors writes 0600, and the engine may run as another user


def _optimise(
    model: Any, examples: Sequence[Example], *, settings: Settings, report: Callable[[Step], None]
) -> list[float]:
    import torch  # noqa: PLC0415

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings.steps))
    order = _order(len(examples), settings)
    model.train()
    losses: list[float] = []
    begun = time.monotonic()
    for number, batch in enumerate(order, start=1):
        with _mixed_precision(model):
            loss = _loss(model, [examples[index] for index in batch])
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value} at step {number} of {settings.steps}. Lower --learning-rate.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        optimiser.step()
        schedule.step()
        losses.append(value)
        report(Step(number=number, of=settings.steps, loss=value, seconds=time.monotonic() - begun))
    model.eval()
    return losses


def _rate(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: a short linear warm-up, then linear to zero."""
    warm_up = max(1, round(steps * _WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return max(0.0, (steps - step) / max(1, steps - warm_up))


def _order(count: int, settings: Settings) -> list[list[int]]:
    """Return the batches: each epoch in a new order that depends on the seed only."""
    import torch  # noqa: PLC0415

    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size, count)
    indexes: list[int] = []
    while len(indexes) < settings.steps * size:
        indexes += torch.randperm(count, generator=generator).tolist()
    return [indexes[start : start + size] for start in range(0, settings.steps * size, size)]


def _loss(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Return the mean cross-entropy over the learned tokens of a batch, packed into one sequence.

    Positions that start anew at each example keep the examples from seeing one another, nothing is spent on padding,
    and the output layer, a fifth of a small model, runs for the learned tokens only.
    """
    import torch  # noqa: PLC0415

    token_ids = [token for example in examples for token in example.token_ids]
    positions = [position for example in examples for position in range(len(example.token_ids))]
    # The logits at i predict the token at i + 1; the first label of an example is never learned, so none crosses over.
    targets = [label for example in examples for label in example.labels][1:]
    learned = [index for index, label in enumerate(targets) if label != _IGNORED]
    device = model.device
    logits = model(
        input_ids=torch.tensor([token_ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        logits_to_keep=torch.tensor(learned, device=device),
        use_cache=False,
    ).logits[0]
    wanted = torch.tensor([targets[index] for index in learned], device=device)
    return torch.nn.functional.cross_entropy(logits.float(), wanted)


def _precision() -> tuple[str, torch.dtype]:
    """Return the device and the arithmetic that is fast on it.

    bfloat16 takes a CPU with AVX-512: on one with AVX2 only, a step took 90 s in bfloat16 and about one in float32.
    """
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return "cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return "cpu", torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _mixed_precision(model: Any) -> AbstractContextManager[object]:
    import torch  # noqa: PLC0415

    if model.dtype != torch.bfloat16:
        return nullcontext()
    autocast: AbstractContextManager[object] = torch.autocast(model.device.type, dtype=torch.bfloat16)
    return autocast


def _round_to_stored_precision(model: Any) -> None:
    """Round the adapter to what is saved, so that the fingerprint is taken of exactly what will be served."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.to(torch.bfloat16))


def _template(tokenizer: Any, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(encoded["input_ids"])


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
