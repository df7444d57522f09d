"""The training itself: LoRA on all linear or on attention layers, loss on the assistant's tokens only, packed batches.

The same inputs give the same adapter, also when the process was killed in between and went on from a checkpoint.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bettertherapy_api.lora_targets import ATTENTION_MODULES, beyond_attention
from neurons.store.manifests import CONFIG_FILE
from neurons.trainer.divergence import Watch, first_not_finite, require_sound_weights
from neurons.trainer.early_stopping import EarlyStopping, epoch_ends
from neurons.trainer.errors import BadData, BadModel, BadParent, OutOfMemory, Preempted
from neurons.trainer.gradients import (
    Gradients,
    gradients_for,
    keeps_apart,
    loss_without_gradients,
    predictions,
    reproducible,
    trainable,
)
from neurons.trainer.packing import IGNORED, Example
from neurons.trainer.parallel import Alone
from neurons.trainer.reference import Reference, references_of
from neurons.trainer.sharding import needs_several, sharded_root
from neurons.trainer.tokens import first_line, load_tokenizer, shortened, tokenise

if TYPE_CHECKING:
    import torch

    from neurons.trainer.base import Base
    from neurons.trainer.gradients import Lot, Recordings
    from neurons.trainer.lines import Message

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
ATTENTION: Final = "attention"
TARGETS: Final = ("all-linear", ATTENTION)
_WARM_UP_SHARE: Final = 0.1
_MAX_GRADIENT_NORM: Final = 1.0
_STEPS_BETWEEN_LOOKS: Final = 10
"""At the adapter's weights, which takes longer than a step on a fast GPU. Loss and gradients are looked at in each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters; with the seed, the dataset and the base model they determine the adapter."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    steps: int = 30
    batch_size: int = 4
    learning_rate: float = 2e-4
    preference_rate: float = 5e-6
    """Learning rate of preference pairs: DPO moves an adapter that answers already, and diverges at rates that teach
    one."""
    max_tokens: int = 1024
    """Of a longer conversation the first turns are left out."""
    kl_weight: float = 0.0
    """Weight of the distance to the parent, KL(parent ‖ child), in what is minimised; 0: it isn't bounded."""
    method: str = "lora"
    """lora, or rslora: scaled by alpha over the square root of the rank."""
    targets: str = "all-linear"
    """all-linear, or attention: which modules a first adapter changes; one with a parent goes on with the parent's."""
    quantization: str | None = None
    """nf4: the base model is trained on in four bits (QLoRA), on a GPU."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: slower, in less memory."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step, reported as it happens."""

    number: int
    of: int
    loss: float
    """Mean cross-entropy over the learned tokens of the batch, in nats."""
    seconds: float
    """Since this process began its first step."""
    resumed_at: int = 0
    """Steps that an earlier process did."""
    distance: float | None = None
    """KL(parent ‖ child) over the batch's learned tokens, in nats; None where it isn't bounded."""
    validation_loss: float | None = None
    """After an epoch, on lines that are not learned; in nats."""

    @property
    def remaining_seconds(self) -> float:
        """Estimate what is left, from the mean of the steps so far."""
        return self.seconds / max(1, self.number - self.resumed_at) * (self.of - self.number)


@dataclass(frozen=True, slots=True)
class Interruptions:
    """How a training is stopped in good order and gone on with. By default it is neither."""

    every: int = 20
    """Steps between two checkpoints."""
    seconds: float = 0.0
    """That a checkpoint must be worth: on a fast GPU keeping half a gigabyte takes longer than 20 steps."""
    resume: Mapping[str, Any] | None = None
    """The checkpoint to go on from."""
    keep: Callable[[dict[str, Any]], None] | None = None
    """Takes each checkpoint: tensors, numbers and names only."""
    stopping: Callable[[], bool] = lambda: False
    """Tells whether to stop now, with a checkpoint and Preempted."""
    between_steps: Callable[[], AbstractContextManager[object]] = nullcontext
    """Entered while the steps run: only there `stopping` is asked."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned, as tokens, and on top of what."""

    base_model: Path
    parent: Path | None
    """Folder of the adapter to go on from."""
    settings: Settings
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """What other processes made of a lesson."""

    weights: Mapping[str, torch.Tensor]
    """The adapter's, by PEFT's names."""
    losses: tuple[float, ...]
    validation: Mapping[str, Any]
    """What early stopping knows."""


Processes = Callable[[Lesson, Callable[[Step], None], Interruptions], Learned]
"""Learns a lesson in processes of its own (neurons.trainer.launch)."""


@dataclass(slots=True)
class Trained:
    """A base model with its freshly trained adapter, still in memory."""

    model: Any
    tokenizer: Any
    losses: tuple[float, ...]
    learned: frozenset[int] = frozenset()
    """Places of the conversations of which a step that counts saw every example."""
    validation: Mapping[str, Any] | None = None
    """What early stopping knows (neurons.trainer.early_stopping)."""


def load(base_model: Path, *, quantization: str | None = None) -> tuple[Any, Any]:
    """Return model and tokenizer from a local folder, on the GPU when there is one. Raises BadModel.

    What fits on none of several GPUs is laid on all of them, one layer after the other.
    """
    tokenizer = load_tokenizer(base_model)
    device, precision = arithmetic()
    if quantization is not None:
        import torch  # noqa: PLC0415

        four_bits = _four_bits(precision)
        return read(base_model, quantization_config=four_bits, device_map={"": torch.cuda.current_device()}), tokenizer
    if needs_several(base_model):
        return read(base_model, device_map="auto"), tokenizer
    return read(base_model).to(device), tokenizer


def read(base_model: Path, **how: Any) -> Any:
    """Return the model in a folder, in main memory unless transformers is told otherwise. Raises BadModel."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Seconds to import, and absent where only the rest is tested.
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    _, precision = arithmetic()
    try:
        return AutoModelForCausalLM.from_pretrained(base_model, dtype=precision, **how)
    except (OSError, ValueError) as error:
        raise BadModel(f"{base_model} is no model that transformers can read: {first_line(error)}") from error


def _four_bits(precision: torch.dtype) -> Any:
    """Return the format of QLoRA (Dettmers et al. 2023): NormalFloat4, its scales quantized once more."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise BadModel("quantization NF4 needs a GPU. Leave hyperparameters.quantization out on a pool of CPUs.")
    try:
        import bitsandbytes  # noqa: F401, PLC0415
        from transformers import BitsAndBytesConfig  # noqa: PLC0415
    except ImportError as error:
        raise BadModel("quantization NF4 needs bitsandbytes, which this trainer's image has not.") from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision,
    )


def train(
    conversations: Sequence[Sequence[Message]],
    *,
    base: Base,
    settings: Settings,
    report: Callable[[Step], None],
    parent: Path | None = None,
    interruptions: Interruptions | None = None,
    validation: Sequence[Sequence[Message]] = (),
    processes: Processes | None = None,
) -> Trained:
    """Train an adapter and return it in memory; `report` is called after every step. Raises TrainerError.

    Conversations that don't fit in `settings.max_tokens` are not learned (neurons.trainer.tokens tells which).
    `parent` is the folder of the adapter to go on from, of the same rank. With `validation`, which is not learned, the
    weights of the epoch with the lowest loss on it are returned. `processes` take the steps instead of this one.
    """
    tokenizer = base.tokenizer

    def examples_in(several: Sequence[Sequence[Message]]) -> tuple[list[Example], list[int]]:
        """Return the examples, and for each the place of its conversation."""
        examples: list[Example] = []
        places: list[int] = []
        for place, each in enumerate(several):
            fitting = shortened(each, tokenizer, max_tokens=settings.max_tokens)
            own = tokenise(fitting, tokenizer) if fitting is not None else ()
            examples += own
            places += [place] * len(own)
        return examples, places

    examples, places = examples_in(conversations)
    if settings.steps and not examples:
        raise BadData(f"no answer fits with its question in {settings.max_tokens} tokens. Raise --max-tokens.")
    lesson = Lesson(
        base_model=base.folder, parent=parent, settings=settings, examples=tuple(examples),
        held_out=tuple(examples_in(validation)[0]),
    )  # fmt: skip
    interruptions = interruptions or Interruptions()
    if processes is not None:
        base.release()
        learned = processes(lesson, report, interruptions)
        seed_everything(settings.seed)
        adapted = _on_whole_base(learned.weights, base, settings=settings, parent=parent)
        losses, known = list(learned.losses), learned.validation
    else:
        adapted, losses, known = _learn_here(lesson, base, report=report, interruptions=interruptions)
    round_to_stored_precision(adapted)
    require_sound_weights(adapted, when=f"after {settings.steps} steps")
    counted = settings.steps if known["best_step"] is None else known["best_step"]
    seen = {index for batch in _order(len(examples), settings)[:counted] for index in batch}
    unseen = {place for index, place in enumerate(places) if index not in seen}
    return Trained(
        model=adapted,
        tokenizer=tokenizer,
        losses=tuple(losses),
        learned=frozenset(places) - unseen,
        validation=known,
    )


def _learn_here(
    lesson: Lesson, base: Base, *, report: Callable[[Step], None], interruptions: Interruptions
) -> tuple[Any, list[float], Mapping[str, Any]]:
    """Learn a lesson in this process; return the adapted model, the losses, and what early stopping knows."""
    settings = lesson.settings
    model = base.model(quantization=settings.quantization)
    recordings = base.recordings if settings.quantization is None else None
    adapted, losses, stopping = learn(
        model, lesson, report=report, interruptions=interruptions, recordings=recordings
    )  # fmt: skip
    if settings.quantization is not None:
        import torch  # noqa: PLC0415

        weights = weights_of(adapted)
        del adapted, model  # both base models together are more than a small card has
        gc.collect()
        torch.cuda.empty_cache()
        adapted = _on_whole_base(weights, base, settings=settings, parent=lesson.parent)
    return adapted, losses, stopping.state()


def learn(
    model: Any, lesson: Lesson, *, report: Callable[[Step], None], interruptions: Interruptions,
    team: Alone | None = None, recordings: Recordings | None = None,
) -> tuple[Any, list[float], EarlyStopping]:  # fmt: skip
    """Put an adapter onto a base model and train it; return it with the losses. Raises TrainerError.

    Each process of a `team` calls this with the same lesson, and has the same adapter afterwards. `recordings` are
    those of trainings before on this very base model.
    """
    import torch  # noqa: PLC0415

    team, settings = team or Alone(), lesson.settings
    seed_everything(settings.seed)
    adapted = adapt(model, settings=settings, parent=lesson.parent)
    if team.sharded:
        sharded_root(adapted)
    if settings.gradient_checkpointing:
        # Without the state of random numbers, of which none are drawn: a CUDA graph couldn't ask for it.
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    try:
        with interruptions.between_steps(), reproducible():
            if team.sharded:  # what is left in the middle of a backward pass can't be tried again, as is done below
                torch.use_deterministic_algorithms(True, warn_only=True)
            losses, stopping = _optimise(
                adapted,
                lesson.examples,
                settings=settings,
                report=report,
                interruptions=interruptions,
                held_out=lesson.held_out,
                team=team,
                recordings=recordings,
            )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(
            "memory ran out while training. Lower --batch-size or --max-tokens, or give it more."
        ) from error
    return adapted, losses, stopping


def _on_whole_base(weights: Mapping[str, torch.Tensor], base: Base, *, settings: Settings, parent: Path | None) -> Any:
    """Return an adapter with these weights on the base model as engines serve it, which is not in four bits."""
    whole = adapt(base.model(), settings=settings, parent=parent)
    put_weights(whole, weights)
    return whole.eval()


def seed_everything(seed: int) -> None:
    """Make what follows the same each time, as far as the hardware's own arithmetic is."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch  # noqa: PLC0415

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def adapt(model: Any, *, settings: Settings, parent: Path | None) -> Any:
    """Return the model with a trainable adapter: a new one, or the parent's. Raises BadParent."""
    from peft import LoraConfig, PeftModel, get_peft_model  # noqa: PLC0415

    if parent is None:
        return get_peft_model(
            model,
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                use_rslora=settings.method == "rslora",
                target_modules=_modules_to_change(model) if settings.targets == ATTENTION else settings.targets,
                task_type="CAUSAL_LM",
            ),
        )
    try:
        adapted = PeftModel.from_pretrained(model, parent, is_trainable=True)
    except Exception as error:  # PEFT, safetensors and torch raise what they like for weights that don't fit
        raise BadParent(
            f"the parent adapter can't be loaded onto the base model: {first_line(error)}. Set spec.adapter to one "
            "that was trained on this base model."
        ) from error
    if (name := first_not_finite(adapted)) is not None:
        raise BadParent(
            f"the parent adapter's {name} holds a number that is not finite: it answers nothing. Go back to a version "
            "before it, or begin without a parent."
        )
    config = adapted.peft_config["default"]
    if config.use_rslora != (settings.method == "rslora"):
        raise BadParent(
            f"the parent adapter is trained with {'RsLoRA' if config.use_rslora else 'LoRA'}, whose scale is another. "
            "Leave hyperparameters.method as it was, or begin without a parent."
        )
    if settings.targets == ATTENTION and (more := beyond_attention(adapted.base_model.targeted_module_names)):
        raise BadParent(
            f"the parent adapter changes {', '.join(more[:4])} too, and the pool's engines wrap attention's "
            "projections alone (engine.loraTargets of the MinerPool). Begin without a parent, or set loraTargets to "
            "AllLinear."
        )
    rank = config.r
    if rank != settings.rank:
        raise BadParent(
            f"the parent adapter's rank is {rank}, this run's is {settings.rank}. Set hyperparameters.rank to {rank}."
        )
    return adapted


def _modules_to_change(model: Any) -> list[str]:
    """Return the names of attention's projections that the model has. Raises BadModel where it has none."""
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    found = [name for name in ATTENTION_MODULES if name in ends]
    if not found:
        raise BadModel(
            f"the base model has none of {', '.join(ATTENTION_MODULES)}, so its attention can't be trained alone. Set "
            "engine.loraTargets of the MinerPool to AllLinear."
        )
    return found


def method_of(folder: Path) -> str:
    """Return the method that the adapter in a folder was trained by, as `Settings.method` names it."""
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    return "rslora" if config.get("use_rslora") else "lora"


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


def weights_of(model: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    """Return copies of an adapter's weights in main memory, by PEFT's names."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415

    tensors = get_peft_model_state_dict(model, adapter_name=adapter)
    return {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}


def put_weights(model: Any, weights: Mapping[str, torch.Tensor], adapter: str = "default") -> None:
    """Put weights that `weights_of` returned back."""
    from peft import set_peft_model_state_dict  # noqa: PLC0415

    set_peft_model_state_dict(model, dict(weights), adapter_name=adapter)


def _optimise(
    model: Any,
    examples: Sequence[Example],
    *,
    settings: Settings,
    report: Callable[[Step], None],
    interruptions: Interruptions,
    held_out: Sequence[Example] = (),
    team: Alone | None = None,
    recordings: Recordings | None = None,
) -> tuple[list[float], EarlyStopping]:
    import torch  # noqa: PLC0415

    team = team or Alone()
    packed = _packs(model, examples, team)
    parameters = trainable(model)
    team.alike(parameters)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    batches = _order(len(examples), settings)
    first = [examples[index] for index in batches[0]] if batches else []

    def loss_of(lines: Sequence[Example]) -> float:
        return _mean_loss(model, lines, batch_size=settings.batch_size, packed=packed, team=team)

    # Before a checkpoint's weights are put in: the beginning is the same for all attempts.
    watch = Watch(of=settings.steps, loss_of_first_lines=lambda: loss_of(first) if first else 0.0)
    references = None
    if settings.kl_weight and batches:
        references = references_of(model, examples, lambda batch: predictions(model, batch), packed=packed, team=team)
    stopping = EarlyStopping((lambda: loss_of(held_out)) if held_out else None, lambda: weights_of(model))
    losses: list[float] = []
    if interruptions.resume is not None:
        losses = _resume(model, optimiser, interruptions.resume)
        stopping.restore(interruptions.resume["validation"])
    done = len(losses)
    model.train()
    own = gradients_for(model, kl_weight=settings.kl_weight, packed=packed, sharded=team.sharded, recordings=recordings)
    lots = _lots(examples, batches[done:], references)
    gradients = _prepared(team.sharing(own, parameters), lots)
    ends = epoch_ends(len(examples), settings.batch_size, settings.steps)
    begun = kept_at = time.monotonic()
    for number, (batch, known) in enumerate(lots, start=done + 1):
        if stopping.over:
            break
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _rate(number - 1, settings.steps)
        computed = _as_reproducible_as_can_be(partial(gradients.of, batch, known))
        norm = torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        optimiser.step()
        # Only now: to ask for a number is to wait until the GPU has nothing left to do.
        losses.append(value := float(computed))
        watch.step(number, losses=losses, gradient_norm=float(norm))
        if number % _STEPS_BETWEEN_LOOKS == 0 or number == settings.steps:
            watch.weights(number, model)
        if number == settings.steps:
            watch.compare(number)
        validation_loss = stopping.after_epoch(number) if number in ends else None
        report(
            Step(
                number=number,
                of=settings.steps,
                loss=value,
                seconds=time.monotonic() - begun,
                resumed_at=done,
                distance=gradients.distance,
                validation_loss=validation_loss,
            )
        )
        told_to_end = team.any(interruptions.stopping())
        due = number % interruptions.every == 0 or number == settings.steps
        worth = time.monotonic() - kept_at >= interruptions.seconds
        if interruptions.keep is not None and ((due and worth) or told_to_end):
            interruptions.keep(checkpoint_of(model, optimiser, losses, stopping.state()))
            kept_at = time.monotonic()
        if told_to_end:
            raise Preempted(f"stopped after step {number} of {settings.steps}; another attempt goes on from there.")
    if recordings is not None:
        recordings.leave(own, model, kl_weight=settings.kl_weight)
    _settle(model, stopping, steps=len(losses))
    return losses, stopping


def _prepared(gradients: Gradients, lots: Sequence[Lot]) -> Gradients:
    _as_reproducible_as_can_be(partial(gradients.prepare, lots))
    return gradients


def _settle(model: Any, stopping: EarlyStopping, *, steps: int) -> None:
    """Leave the model ready to answer, with the weights that count."""
    if stopping.best is not None and stopping.best_step != steps:
        put_weights(model, stopping.best)
    model.eval()
    model.zero_grad(set_to_none=True)


def _lots(
    examples: Sequence[Example], batches: Sequence[Sequence[int]], references: Sequence[Reference] | None
) -> list[Lot]:
    return [
        (
            [examples[index] for index in batch],
            [references[index] for index in batch] if references is not None else None,
        )
        for batch in batches
    ]


def _packs(model: Any, examples: Sequence[Example], team: Alone) -> bool:
    """Tell whether examples are packed into one sequence for this model, as all of a team agree. Raises BadModel."""
    if team.agreed(keeps_apart(model, examples)):
        return True
    if team.sharded:  # the processes would compute unequal numbers of examples, each waiting for the others' shards
        raise BadModel(
            "this model lets packed examples see one another, and can't be trained on sharded then. Use GPUs that it "
            "fits on, or another base model."
        )
    _log.warning("this model lets packed examples see one another: each is computed by itself")
    return False


def _mean_loss(
    model: Any, examples: Sequence[Example], *, batch_size: int, packed: bool, team: Alone
) -> float:  # fmt: skip
    """Return the loss of any number of examples with the weights as they are, in nats a learned token."""
    parts = [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    learned = [sum(label != IGNORED for each in part for label in each.labels) for part in parts]
    values = team.spread(parts, lambda part: loss_without_gradients(model, part, packed=packed))
    return sum(value * count for value, count in zip(values, learned, strict=True)) / sum(learned)


def _as_reproducible_as_can_be(compute: Callable[[], Result]) -> Result:
    """Compute, if need be by algorithms that don't give the same bits each time."""
    import torch  # noqa: PLC0415

    try:
        return compute()
    except RuntimeError as error:
        if "deterministic" not in str(error) or torch.is_deterministic_algorithms_warn_only_enabled():
            raise
        _log.warning("this training is not reproducible to the bit: %s", first_line(error))
        torch.use_deterministic_algorithms(True, warn_only=True)
        return compute()


def checkpoint_of(
    model: Any,
    optimiser: torch.optim.Optimizer | None,
    losses: Sequence[float],
    validation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a training goes on from: tensors, numbers and names only."""
    import torch  # noqa: PLC0415

    return {
        "losses": list(losses),
        "validation": validation or EarlyStopping(None, dict).state(),
        "weights": weights_of(model),
        "optimiser": optimiser.state_dict() if optimiser is not None else {},
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def write_checkpoint(state: Mapping[str, Any], path: Path) -> bool:
    """Write a checkpoint to a file, and tell whether it is there: a full disk costs safety, not the training."""
    import torch  # noqa: PLC0415

    try:
        torch.save(dict(state), path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        _log.warning("the checkpoint is not kept: %s", first_line(error))
        path.unlink(missing_ok=True)
        return False
    return True


def _resume(model: Any, optimiser: torch.optim.Optimizer, checkpoint: Mapping[str, Any]) -> list[float]:
    import torch  # noqa: PLC0415

    put_weights(model, checkpoint["weights"])
    if checkpoint["optimiser"]:
        optimiser.load_state_dict(checkpoint["optimiser"])
    torch.set_rng_state(checkpoint["random"])
    if torch.cuda.is_available() and len(checkpoint["random_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(checkpoint["random_cuda"])
    return list(checkpoint["losses"])


def _rate(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: a short linear warm-up, then linear to zero."""
    warm_up = max(1, round(steps * _WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return max(0.0, (steps - step) / max(1, steps - warm_up))


def _order(count: int, settings: Settings) -> list[list[int]]:
    """Return the batches: each epoch in a new order that depends on the seed only."""
    import torch  # noqa: PLC0415

    if settings.steps == 0:
        return []
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size, count)
    indexes: list[int] = []
    while len(indexes) < settings.steps * size:
        indexes += torch.randperm(count, generator=generator).tolist()
    return [indexes[start : start + size] for start in range(0, settings.steps * size, size)]


def arithmetic() -> tuple[str, torch.dtype]:
    """Return the device and the arithmetic that is fast on it.

    bfloat16 takes a CPU with AVX-512: on one with AVX2 only, a step took 90 s in bfloat16 and about one in float32.
    """
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return "cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return "cpu", torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def with_adapter(model: Any, folder: Path) -> Any:
    """Return the base model speaking as the adapter in a folder, ready to answer. Raises BadParent.

    The adapter has the precision that answers are made in: fast, and the engine's own. What else the model holds stays
    as it was read: of the rotary embedding's frequencies half precision would leave 8 bits, and far words elsewhere.
    """
    rank = int(json.loads((folder / CONFIG_FILE).read_bytes())["r"])
    adapted = adapt(model, settings=Settings(rank=rank, method=method_of(folder)), parent=folder)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(model.dtype)
    return adapted.eval()


def round_to_stored_precision(model: Any) -> None:
    """Round the adapter to what is saved, so that the fingerprint is taken of exactly what will be served."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.to(torch.bfloat16))
