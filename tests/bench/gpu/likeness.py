"""How alike trainings on the same lines are, and copies with noise: what decision 61 sets its bound by.

    python -m tests.bench.gpu.likeness --out DIR [--model DIR]      # a CPU will do; minutes without a model

It needs what the trainer's image has (torch, peft, transformers). Without a model one of a million parameters is made,
and trained on the reference answers of the rounds' own questions. A parent learns one day's lines; from it others are
trained on the next day's, each with another seed, and compared pair by pair with the rounds' own code. Copies are one
of them with noise of a share of what each factor learned; beside their cosine stands what the noise leaves of the gain.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neurons.examiner.copies import NEAR
from neurons.examiner.learning import learned
from neurons.examiner.likeness import Adapter, compare
from neurons.store.checks import WEIGHTS_FILE
from neurons.trainer.base import Base
from neurons.trainer.likelihoods import Compared, logprobs
from neurons.trainer.lora import Settings, save, train, with_adapter
from neurons.trainer.turns import Message
from neurons.validator.rounds.challenges import OWN, load_challenges
from tests.bench.results import Figure, Spread, describe_machine
from tests.gpu.outcome import Outcome, say

EPOCHS: Final = (1, 3, 10, 30)
LINES: Final = 40
SEEDS: Final = 3
NOISES: Final = (0.05, 0.1, 0.2, 1.0)
BATCH: Final = 4
_MADE_STEPS: Final = 500
_TEMPLATE: Final = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
Lines = Sequence[tuple[str, str]]
"""Questions with what is to be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    """Trains adapters on one model, each once, into folders of their own."""

    base: Base
    work: Path

    def made(self, name: str, lines: Lines, *, epochs: int, seed: int, rate: float, parent: Path | None) -> Path:
        """Return the folder of an adapter that learned these lines."""
        folder = self.work / name
        if not folder.exists():
            steps = max(1, epochs * len(lines) // BATCH)
            said = [
                [Message(role="user", content=asked), Message(role="assistant", content=answer)]
                for asked, answer in lines
            ]
            found = train(
                said, base=self.base, report=lambda _: None, parent=parent,
                settings=Settings(steps=steps, batch_size=BATCH, learning_rate=rate, seed=seed),
            )  # fmt: skip
            save(found, folder, base_model_name="base")
            self.base.restore()
        return folder

    def surprise(self, folder: Path, lines: Lines) -> Sequence[Sequence[float]]:
        """Return how likely an adapter holds the answers, in nats."""
        asked = [Compared([{"role": "user", "content": question}], (answer,)) for question, answer in lines]
        found = logprobs(with_adapter(self.base.model(), folder), self.base.tokenizer, asked)
        self.base.restore()
        return found


def noised(folder: Path, parent: Path, target: Path, *, share: float, seed: int) -> Path:
    """Write a copy whose factors have noise of that share of what each learned beyond its parent's."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    draw = torch.Generator().manual_seed(seed)
    before = load_file(parent / WEIGHTS_FILE)
    changed = {}
    for name, factor in sorted(load_file(folder / WEIGHTS_FILE).items()):
        size = (factor.float() - before[name].float()).std()
        noise = share * size * torch.randn(factor.shape, generator=draw)
        changed[name] = (factor.float() + noise).to(factor.dtype).contiguous()
    save_file(changed, target / WEIGHTS_FILE, metadata={"format": "pt"})
    return target


def own_lines() -> Lines:
    """Return the questions of the rounds' own set that have a reference answer, with it, in their order."""
    challenges = sorted(load_challenges(OWN).challenges, key=lambda each: each.id)
    return [(each.prompt, each.reference) for each in challenges if each.reference and each.language == "en"]


@contextmanager
def model_of(given: Path | None, lines: Lines) -> Iterator[Path]:
    """Give the folder of a model: the one that is named, or a small one that is made of the lines."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), lines)
        yield Path(folder)


def make_model(folder: Path, lines: Lines) -> None:
    """Write a model of about a million parameters that has read the lines."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [f"<user> {asked} <end> <assistant> {answer} <end>" for asked, answer in lines]
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<unk>", "<user>", "<assistant>", "<end>"]
    words.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4,
            num_attention_heads=4, tie_word_embeddings=True,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(_MADE_STEPS):
        tokens = torch.tensor([tokenizer(texts[step % len(texts)])["input_ids"][:256]])
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)


def measure(trainings: Trainings, days: Sequence[Lines], *, epochs: Sequence[int], seeds: int) -> list[Figure]:
    """Train and compare all; returns the figures."""
    figures: list[Figure] = []
    begun = trainings.made("parent", days[0], epochs=3, seed=99, rate=2e-4, parent=None)
    parent = Adapter(begun)

    def child(name: str, lines: Lines, **how: Any) -> Path:
        return trainings.made(name, lines, parent=begun, **{"epochs": 3, "seed": 0, "rate": 2e-4, **how})

    def told(subject: str, pairs: Sequence[tuple[Path, Path]], *, honest: bool) -> None:
        values = [compare(Adapter(one), Adapter(other), parent).highest for one, other in pairs]
        spread = Spread.of(values)
        figures.append(
            Figure(
                subject=subject, figure="cosine of what both add to their parent, the greater of both", unit="",
                spread=spread, digits=4, target=f"< {NEAR}" if honest else None,
                met=spread.maximum < NEAR if honest else None,
            )
        )  # fmt: skip
        say(f"{subject}: {spread.median:.4f}")

    for count in epochs:
        made = [child(f"{count}-{seed}", days[1], epochs=count, seed=seed) for seed in range(seeds)]
        told(f"other seeds, {len(days[1])} lines, {count} epochs", list(itertools.combinations(made, 2)), honest=True)
    one = child("3-0", days[1])
    told("the same seed, half the learning rate", [(one, child("slow", days[1], rate=1e-4))], honest=True)
    told("another day's lines", [(one, child("other", days[2]))], honest=True)
    was = trainings.surprise(begun, days[1])
    figures.append(_gain("the one that is copied", [learned(was, trainings.surprise(one, days[1])).gain]))
    for share in NOISES:
        copies = [noised(one, begun, trainings.work / f"noise-{share}-{n}", share=share, seed=n) for n in range(seeds)]
        told(f"a copy with noise of {share} of what was learned", [(one, copy) for copy in copies], honest=False)
        gains = [learned(was, trainings.surprise(copy, days[1])).gain for copy in copies]
        figures.append(_gain(f"a copy with noise of {share} of what was learned", gains))
    return figures


def _gain(subject: str, gains: Sequence[float]) -> Figure:
    spread = Spread.of([100 * each for each in gains])
    return Figure(subject=subject, figure="its lessons' answers are likelier by", unit="%", spread=spread, digits=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu.likeness", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder with a model; absent: a small one is made")
    parser.add_argument("--lines", type=int, default=LINES, help="of each day")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = own_lines()
    count = min(args.lines, len(lines) // 3)
    days = [lines[day::3][:count] for day in range(3)]
    outcome = Outcome(
        args.out, "likeness", "How alike trainings on the same lines are",
        f"{'a made model of a million parameters' if args.model is None else args.model.name}; a parent of one day's "
        f"{count} lines, trainings on the next day's in batches of {BATCH}; {args.seeds} seeds.",
        "python -m tests.bench.gpu.likeness --out DIR", describe_machine(),
    )  # fmt: skip
    with model_of(args.model, lines) as model, tempfile.TemporaryDirectory() as work:
        trainings = Trainings(base=Base(model), work=Path(work))
        outcome.figures = measure(trainings, days, epochs=args.epochs, seeds=args.seeds)
    outcome.write()
    outcome.show()
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
