"""Learning from preference pairs with TRL's DPO, on the adapter that was trained before."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from neurons.conversation import Manner, shape
from neurons.trainer.dataset import Pair
from neurons.trainer.divergence import require_finite_loss, require_sound_weights, risen
from neurons.trainer.errors import BadData, Diverged, OutOfMemory
from neurons.trainer.lines import Message
from neurons.trainer.lora import Settings, Step, Trained, put_weights, round_to_stored_precision, weights_of
from neurons.trainer.template import manner_of
from neurons.trainer.tokens import shortened_pair

BETA: Final = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """How many steps, and how many the whole training has before and with them."""

    steps: int
    before: int


def learn_preferences(
    trained: Trained,
    pairs: Sequence[Pair],
    *,
    settings: Settings,
    plan: Plan,
    report: Callable[[Step], None],
) -> Trained:
    """Make preferred answers more probable than rejected ones; the adapter as it came in is the reference.

    Changes `trained.model` and returns it with the losses added. Raises Diverged and OutOfMemory. An interrupted one
    begins again, since pairs are few.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from transformers import TrainerCallback  # noqa: PLC0415
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415

    model, tokenizer = trained.model, trained.tokenizer
    # What TRL finds too long it cuts at the end, in the middle of an answer.
    fitting = (shortened_pair(pair, tokenizer, max_tokens=settings.max_tokens) for pair in pairs)
    pairs = [pair for pair in fitting if pair is not None]
    if not pairs:
        raise BadData(f"no pair of answers fits with its question in {settings.max_tokens} tokens. Raise --max-tokens.")
    manner = manner_of(tokenizer)
    losses = list(trained.losses)
    own: list[float] = []
    begun = time.monotonic()
    total = plan.before + plan.steps

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Reports each step, and ends a training that diverges."""

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs is None or "loss" not in logs:
                return
            value = float(logs["loss"])
            number = plan.before + state.global_step
            require_finite_loss(value, f"at step {number} of {total}")
            own.append(value)
            # Every pair begins at ln 2, since the adapter itself is the reference: all batches can be compared.
            if risen(own):
                raise Diverged(
                    f"the loss of preferences rose from {own[0]:.2f} to {value:.2f} at step {number} of {total}. Lower "
                    "the learning rate."
                )
            losses.append(value)
            seconds = time.monotonic() - begun
            report(Step(number=number, of=total, loss=value, seconds=seconds, resumed_at=plan.before))

    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        configuration = DPOConfig(
            output_dir=folder,
            beta=BETA,
            learning_rate=settings.preference_rate,
            max_steps=plan.steps,
            per_device_train_batch_size=min(settings.batch_size, len(pairs)),
            max_length=settings.max_tokens,
            seed=settings.seed,
            data_seed=settings.seed,
            bf16=model.dtype == torch.bfloat16,
            use_cpu=not cuda,
            gradient_checkpointing=cuda,
            logging_steps=1,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to=[],
            save_strategy="no",
        )
        # On a pod of several GPUs the trainer would else copy the model to each of them at every step, and count a
        # batch for each.
        configuration._n_gpu = min(1, configuration.n_gpu)
        try:
            trainer = DPOTrainer(
                model=model,
                args=configuration,
                train_dataset=Dataset.from_list([_row(pair, manner) for pair in pairs]),
                processing_class=copy.copy(tokenizer),  # it may give it a mark for padding
                callbacks=[Watch()],
            )
            trainer.train()
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise OutOfMemory(
                "memory ran out while learning preferences. Lower --batch-size or --max-tokens, or give it more."
            ) from error
    _clean(trainer, model, weights_of(model))
    require_sound_weights(model, when=f"after {total} steps")
    return replace(trained, losses=tuple(losses))


def _row(pair: Pair, manner: Manner) -> dict[str, list[dict[str, Any]]]:
    return {
        "prompt": shape([message.model_dump() for message in pair.prompt], system=None, manner=manner),
        "chosen": [Message(role="assistant", content=pair.preferred).model_dump()],
        "rejected": [Message(role="assistant", content=pair.rejected).model_dump()],
    }


def _clean(trainer: Any, model: Any, weights: dict[str, Any]) -> None:
    """Take away what the trainer put into the model: its reference adapter, its autocast, its loss in the output."""
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    for inner in (model, model.get_base_model()):
        inner.__dict__.pop("forward", None)
    model.set_adapter("default")
    put_weights(model, weights)
    round_to_stored_precision(model)
    model.eval()
