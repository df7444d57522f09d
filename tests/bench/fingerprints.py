"""Do fingerprints tell whose weights answer, on base models of full precision and quantized ones?

    python -m tests.bench.fingerprints --model DIR --texts FILE.jsonl.gz --out pairs.json  # needs torch, transformers
    python -m tests.bench.fingerprint_verdicts pairs.json [more.json …]                    # needs this project

It trains a chain of small LoRA adapters for each of several doctors, each night's from the last one's, takes each one's
probes as the trainer does (float32, contrastive), and then asks for the same places with other weights loaded: the
adapter's own, its parent's, the base's, its child's, its grandparent's, other doctors'. The base model is bfloat16,
FP8, int8 or int4: weights of its linear layers are rounded (FP8 E4M3 a tensor, int8 a row, int4 in groups of 64), which
is what weights-only quantization does; each layer's result is rounded to bfloat16. LoRA here is 20 lines
of torch with PEFT's arithmetic. `fingerprint_verdicts` lets the agent's own code decide each pair. A GPU waits for
Python most of the time: run it several times beside itself, with other doctors each (`--first 8`).
"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK: Final = 8
SCALING: Final = 2.0
PROMPTS: Final = (
    "I have had a headache for two days. What should I do?",
    "My child has a fever of 39 degrees. When should I worry?",
    "Can I take ibuprofen together with my blood pressure tablets?",
    "What are the symptoms of diabetes?",
)
LONGEST_PROMPT: Final = 24
CONTINUATION: Final = 12
PLAUSIBLE: Final = 0.1
RATES: Final = (1e-3, 1e-3, 5e-4, 3e-4, 2e-4, 1e-3, 5e-4, 2e-4)
FORMATS: Final = ("bf16", "fp8", "int8", "int4")


def quantized(weight: Any, how: str, *, group: int = 64) -> Any:
    """Return a float32 matrix rounded as the format would keep it."""
    import torch

    if how == "fp8":
        scale = weight.abs().max() / 448.0
        return (weight / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale
    if how == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127.0
        return (weight / scale).round().clamp(-127, 127) * scale
    if how == "int4":
        parts = weight.reshape(weight.shape[0], -1, group)
        low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
        scale = ((high - low) / 15.0).clamp_min(1e-8)
        return (((parts - low) / scale).round().clamp(0, 15) * scale + low).reshape(weight.shape)
    return weight


class Chain:
    """One model whose linear layers can bear any of several adapters."""

    def __init__(self, folder: Path, device: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch, self.device = torch, device
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).to(device=device, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        self.layers = {n: m for n, m in self.model.named_modules() if n.rsplit(".", 1)[-1] in LINEAR}
        self.plain = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        self.adapter: dict[str, tuple[Any, Any]] | None = None
        self.rounding = False
        for name, layer in self.layers.items():
            layer.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[[Any, tuple[Any, ...], Any], Any]:
        def add(layer: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            if self.adapter is not None:
                a, b = self.adapter[name]
                output = output + (inputs[0] @ a.T) @ b.T * SCALING
            # bfloat16's arithmetic, on processors that have none: sums in float32, results rounded.
            return output.to(self.torch.bfloat16).float() if self.rounding else output

        return add

    def fresh(self, seed: int) -> dict[str, tuple[Any, Any]]:
        """Return an adapter that changes nothing yet: A random, B zero."""
        maker = self.torch.Generator().manual_seed(seed)
        made = {}
        for name, layer in self.layers.items():
            out, inn = layer.weight.shape
            a = (self.torch.rand(RANK, inn, generator=maker) * 2 - 1) / inn**0.5
            made[name] = (a.to(self.device), self.torch.zeros(out, RANK, device=self.device))
        return made

    def train(
        self, start: dict[str, tuple[Any, Any]], texts: Sequence[Sequence[str]], rate: float
    ) -> tuple[Any, float]:
        """Return the adapter after one step a batch, and the last loss."""
        torch = self.torch
        self.adapter = {n: (a.clone().requires_grad_(), b.clone().requires_grad_()) for n, (a, b) in start.items()}
        parameters = [p for pair in self.adapter.values() for p in pair]
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=self.device != "cpu")
        loss = None
        for batch in texts:
            encoded = self.tokenizer(list(batch), return_tensors="pt", padding=True, truncation=True, max_length=64)
            encoded = encoded.to(self.device)
            labels = encoded.input_ids.masked_fill(encoded.attention_mask == 0, -100)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
                loss = self.model(**encoded, labels=labels).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
        trained = {n: (a.detach(), b.detach()) for n, (a, b) in self.adapter.items()}
        self.adapter = None
        return trained, float(loss)

    def load_base(self, how: str) -> None:
        """Round the base model's linear layers from their own values; layers' results are bfloat16 from then on."""
        self.rounding = True
        with self.torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(quantized(self.plain[name], how))

    def next_token(self, sequences: Sequence[Sequence[int]]) -> Any:
        """Return log-probabilities of what follows each sequence."""
        logits = self._logits(sequences)
        last = self.torch.stack([row[len(s) - 1] for row, s in zip(logits, sequences, strict=True)])
        return self.torch.log_softmax(last.float(), -1)

    def forced(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """Return ln p of each token from each sequence's start on."""
        values: list[float] = []
        logits = self._logits([tokens for tokens, _ in sequences])
        for row, (tokens, start) in zip(logits, sequences, strict=True):
            wanted = self.torch.tensor(list(tokens[start:]), device=self.device)
            said = self.torch.log_softmax(row[start - 1 : len(tokens) - 1].float(), -1)
            values += [float(v) for v in said.gather(1, wanted[:, None])[:, 0]]
        return values

    def _logits(self, sequences: Sequence[Sequence[int]]) -> Any:
        # Padded on the right, where causal attention can't see it.
        width = max(len(s) for s in sequences)
        ids = self.torch.tensor([[*s, *[0] * (width - len(s))] for s in sequences], device=self.device)
        with self.torch.no_grad():
            return self.model(input_ids=ids).logits


def probes(chain: Chain, child: Any, parent: Any) -> list[tuple[list[int], int]]:
    """Return prompts with the continuation that is likeliest the child's and neither its parent's nor the base's."""
    torch = chain.torch
    heads = [
        chain.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=True, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for prompt in PROMPTS
    ]
    heads = [head[-LONGEST_PROMPT:] for head in heads]
    sequences = [list(head) for head in heads]
    for _ in range(CONTINUATION):
        said = []
        for adapter in (child, parent, None):
            chain.adapter = adapter
            said.append(chain.next_token(sequences))
        own, rival, base = said
        margin = torch.minimum(own - rival, own - base)
        margin = margin.masked_fill(own < own.amax(-1, keepdim=True) + torch.log(torch.tensor(PLAUSIBLE)), -1e9)
        for sequence, token in zip(sequences, margin.argmax(-1).tolist(), strict=True):
            sequence.append(int(token))
    return [(sequence, len(head)) for sequence, head in zip(sequences, heads, strict=True)]


def open_chain(args: argparse.Namespace) -> Chain:
    """Return the base model that `with_arguments` asked for."""
    chain = Chain(args.model, args.device)
    if chain.tokenizer.pad_token is None:
        chain.tokenizer.pad_token = chain.tokenizer.eos_token
    return chain


def nights(chain: Chain, args: argparse.Namespace) -> Iterator[tuple[int, int, Any, float]]:
    """Train each doctor's adapters, one from the other; yields doctor, night, adapter and its last loss."""
    with gzip.open(args.texts, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row.get("answer")]
    by_source: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    sources = sorted(by_source, key=lambda s: (-len(by_source[s]), s))[:4]
    for doctor in range(args.first, args.first + args.doctors):
        draw = random.Random(doctor)
        current = chain.fresh(doctor)
        for night in range(args.nights):
            batches = [
                [
                    chain.tokenizer.apply_chat_template(
                        [
                            {"role": "user", "content": row["question"]},
                            {"role": "assistant", "content": " ".join(row["answer"].split())[:400]},
                        ],
                        tokenize=False,
                    )
                    for row in draw.sample(by_source[sources[doctor % len(sources)]], args.batch)
                ]
                for _ in range(args.steps)
            ]
            current, loss = chain.train(current, batches, RATES[doctor % len(RATES)])
            yield doctor, night, current, loss


def with_arguments(parser: argparse.ArgumentParser, *, device: str, doctors: int) -> argparse.ArgumentParser:
    """Add what `open_chain` and `nights` need to know, with these defaults."""
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="lines of JSON: source, question, answer; gzipped")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default=device)
    parser.add_argument("--doctors", type=int, default=doctors)
    parser.add_argument("--first", type=int, default=0, help="the first doctor's number, a seed")
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="optimiser steps a night")
    parser.add_argument("--batch", type=int, default=4)
    return parser


def measure(args: argparse.Namespace) -> None:
    """Train, take probes, ask under every format; writes one JSON document."""
    import torch

    torch.manual_seed(0)
    chain = open_chain(args)
    began = time.monotonic()
    adapters: dict[tuple[int, int], Any] = {}
    for doctor, night, current, loss in nights(chain, args):
        adapters[doctor, night] = current
        print(f"doctor {doctor} night {night}: loss {loss:.2f}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    pairs = []
    for (doctor, night), child in adapters.items():
        parent = adapters.get((doctor, night - 1))
        sequences = probes(chain, child, parent)
        record = {}
        for who, adapter in (("child", child), ("parent", parent), ("base", None)):
            chain.adapter = adapter
            record[who] = chain.forced(sequences) if who != "parent" or parent is not None else None
        served = {"child": (doctor, night), "base": None, "parent": (doctor, night - 1), "next": (doctor, night + 1),
                  "grandparent": (doctor, night - 2), "other": (_after(doctor, 1, args), night),
                  "same source": (_after(doctor, 4, args), night)}  # fmt: skip
        kept = {
            who: key
            for who, key in served.items()
            if key is None or (key in adapters and (who == "child" or key != (doctor, night)))
        }
        pairs.append(
            {
                "doctor": doctor,
                "night": night,
                "recorded": record,
                "sequences": sequences,
                "served": kept,
                "measured": {},
            }
        )
    print(f"probes taken, {time.monotonic() - began:.0f} s", file=sys.stderr)
    for how in FORMATS:
        chain.load_base(how)
        for pair in pairs:
            answers = {}
            for who, key in pair["served"].items():
                chain.adapter = None if key is None else adapters[key]
                answers[who] = [round(value, 5) for value in chain.forced(pair["sequences"])]
            pair["measured"][how] = answers
        args.out.write_text(json.dumps(pairs))
        print(f"asked on {how}, {time.monotonic() - began:.0f} s", file=sys.stderr)


def _after(doctor: int, steps: int, args: argparse.Namespace) -> int:
    return int(args.first + (doctor - args.first + steps) % args.doctors)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fingerprints", description=__doc__)
    measure(with_arguments(parser, device="cpu", doctors=8).parse_args(argv))


if __name__ == "__main__":
    main()
