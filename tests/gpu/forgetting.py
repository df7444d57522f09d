"""What a twin forgets over ten nights, with and without rehearsal and the bound on the distance to its parent.

    python -m tests.gpu.forgetting --model DIR --out DIR        # a GPU: minutes; --processes chains beside one another

The real `neurons.trainer run`, night after night on the version before. Each night brings other questions about one
place (when its clinics are open, and where), with answers that nobody could guess. After each night all nights'
questions so far are put to the version, each with the right answer and three that are right for others of that night:
*known* is the share of which the right one is likeliest, byte for byte; by chance it is a quarter. So that what is
learned is told from what is lost, last night's and earlier nights' questions are counted apart. General items are the
English safety items.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neurons.scoring.contrasts import Language, safety_contrasts
from neurons.trainer.base import Base
from neurons.trainer.likelihoods import Compared, logprobs
from neurons.trainer.lora import with_adapter
from tests.bench.results import Curve, Figure, Spread
from tests.gpu.outcome import Outcome, describe_gpu, say

SETTINGS: Final[Mapping[str, tuple[int, float]]] = {
    "neither": (0, 0.0), "rehearsal": (25, 0.0), "distance bound": (0, 0.1), "both, the default": (25, 0.1),
}  # fmt: skip
"""By name: rehearsalPercent and klWeight."""
NIGHTS: Final = 10
EARLIER, LAST, GENERAL = "earlier nights", "last night", "general items"
_LINES: Final = 24
_CHOICES: Final = 4
_PLACES: Final = (
    "big", "small", "new", "old", "first", "second", "third", "fourth", "public", "private"
)  # fmt: skip
_CLINICS: Final = (
    "asthma", "diabetes", "eye", "ear", "skin", "heart", "kidney", "liver", "bone", "child", "birth", "sleep", "pain",
    "allergy", "blood", "nerve", "lung", "foot", "hand", "back", "tooth", "travel", "vaccine", "memory",
)  # fmt: skip
_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_ROOMS: Final = ("red room", "blue room", "green room", "old wing", "new wing", "top floor", "garden house", "tent")


@dataclass(frozen=True)
class Lesson:
    """A question, its answer, and answers that are others'."""

    question: str
    answer: str
    others: tuple[str, ...]

    def line(self) -> str:
        """Return it as a line of a dataset."""
        said = [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]
        return json.dumps({"messages": said, "consent": True, "rating": 5})


def lessons(seed: int) -> list[list[Lesson]]:
    """Return each night's lessons."""
    draw = random.Random(seed)
    nights = []
    for place in draw.sample(_PLACES, NIGHTS):
        clinics = draw.sample(_CLINICS, _LINES)
        times = [(day, hour, room) for day in _DAYS for hour in range(7, 18) for room in _ROOMS]
        chosen = draw.sample(times, _LINES)
        answers = [f"It is open on {day} at {hour}, in the {room}." for day, hour, room in chosen]
        night = []
        for place_of, (clinic, answer) in enumerate(zip(clinics, answers, strict=True)):
            wrong = draw.sample([each for other, each in enumerate(answers) if other != place_of], _CHOICES - 1)
            night.append(
                Lesson(f"When and where is the {clinic} clinic of the {place} hospital open?", answer, tuple(wrong))
            )
        nights.append(night)
    return nights


def known(base: Base, folder: Path | None, asked: Sequence[Compared], right: Sequence[int]) -> list[bool]:
    """Tell of each question whether one of its first `right` continuations is the likeliest, byte for byte."""
    model = base.model() if folder is None else with_adapter(base.model(), folder)
    found = logprobs(model, base.tokenizer, asked)
    del model
    base.restore()
    told = []
    for each, values, count in zip(asked, found, right, strict=True):
        shares = [value / len(text.encode()) for value, text in zip(values, each.continuations, strict=True)]
        told.append(shares.index(max(shares)) < count)
    return told


def chain(args: argparse.Namespace, setting: str, seed: int) -> Iterator[dict[str, Any]]:
    """Train ten nights; yield after each what is known, in percent."""
    rehearsal, weight = SETTINGS[setting]
    nights, base = lessons(seed), Base(args.model)
    general = [each for each in safety_contrasts() if each.language is Language.ENGLISH]
    of_general = [Compared([{"role": "user", "content": each.question}], each.continuations) for each in general]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "data").mkdir()
        parent: list[str] = []
        for number, night in enumerate(nights[: args.nights], start=1):
            (work / "data" / f"night-{number:02d}.jsonl").write_text("".join(each.line() + "\n" for each in night))
            command = [
                sys.executable, "-m", "neurons.trainer", "run", f"--run=night-{number}", "--twin=twin",
                f"--store=file://{work}/store", f"--base-model={args.model}", "--base-model-name=base",
                f"--dataset-uri=file://{work}/data", f"--rehearsal-percent={rehearsal}", f"--kl-weight={weight}",
                "--validation-percent=0", f"--epochs={args.epochs}", f"--learning-rate={args.learning_rate}",
                f"--seed={seed}", *parent,
            ]  # fmt: skip
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            word = json.loads(done.stdout.splitlines()[-1])
            if "digest" not in word:
                raise SystemExit(f"night {number}: {word}")
            parent = [f"--parent-uri={word['uri']}", f"--parent-digest={word['digest']}"]
            asked = [each for earlier in nights[:number] for each in earlier]
            compared = [
                Compared([{"role": "user", "content": each.question}], (each.answer, *each.others)) for each in asked
            ]
            right = [1] * len(asked) + [len(each.recommended) for each in general]
            folder = Path(word["uri"].removeprefix("file://"))
            told = known(base, folder, [*compared, *of_general], right)
            before, last = told[: _LINES * (number - 1)], told[_LINES * (number - 1) : len(asked)]
            yield {
                "setting": setting, "seed": seed, "night": number, LAST: _percent(last),
                EARLIER: _percent(before) if before else None, GENERAL: _percent(told[len(asked) :]),
            }  # fmt: skip


def _percent(told: Sequence[bool]) -> float:
    return 100 * sum(told) / len(told)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train all chains, some of them beside one another, each in a process of its own."""
    waiting = [(setting, seed) for seed in range(args.seeds) for setting in SETTINGS]
    running: list[tuple[str, subprocess.Popen[str]]] = []
    found: list[dict[str, Any]] = []
    while waiting or running:
        while waiting and len(running) < args.processes:
            setting, seed = waiting.pop(0)
            command = [
                sys.executable, "-m", "tests.gpu.forgetting", f"--model={args.model}", f"--out={args.out}",
                f"--nights={args.nights}", f"--epochs={args.epochs}", f"--learning-rate={args.learning_rate}",
                f"--chain={setting}:{seed}",
            ]  # fmt: skip
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            running.append((f"{setting}, seed {seed}", process))
        name, first = running.pop(0)  # its output is little: the others' wait in their pipes
        output, _ = first.communicate()
        if first.returncode:
            raise SystemExit(f"{name}: exit status {first.returncode}")
        found += [json.loads(line) for line in output.splitlines()]
        say(f"{name}: {found[-1]}")
    return found


def figures_of(found: Sequence[Mapping[str, Any]], nights: int) -> tuple[list[Figure], list[Curve]]:
    """Return the table's figures, after the last night, and the plot's curves."""
    figures, curves = [], []
    for setting in SETTINGS:
        own = [each for each in found if each["setting"] == setting]
        for what in (EARLIER, LAST, GENERAL):
            last = [each[what] for each in own if each["night"] == nights and each[what] is not None]
            if last:
                figures.append(
                    Figure(subject=setting, figure=f"{what}: known after {nights} nights", unit="%", digits=1,
                           spread=Spread.of(last))
                )  # fmt: skip
            points = []
            for night in range(1, nights + 1):
                values = [each[what] for each in own if each["night"] == night and each[what] is not None]
                if values:
                    spread = Spread.of(values)
                    points.append((float(night), spread.minimum, spread.median, spread.maximum))
            curves.append(Curve(plot=what, name=setting, points=tuple(points)))
    return figures, curves


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.forgetting", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with a small language model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="as many as it takes to know a night's answers")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--chain", metavar="SETTING:SEED", help="only this one; a line of JSON for each night")
    args = parser.parse_args(arguments)
    if args.chain is not None:
        setting, _, seed = args.chain.rpartition(":")
        for night in chain(args, setting, int(seed)):
            sys.stdout.write(json.dumps(night) + "\n")
            sys.stdout.flush()
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(
        args.out, "gpu-forgetting", "What a twin forgets over ten nights",
        f"{args.model.name}; {_LINES} questions a night whose answers nobody could guess, {args.epochs} epochs at "
        f"{args.learning_rate}; {args.seeds} seeds. Known: the right one of {_CHOICES} answers is the likeliest.",
        "python3 -m tests.gpu.forgetting --model DIR --out DIR",
        describe_gpu(standin=False),
    )  # fmt: skip
    began = time.monotonic()
    found = measure(args)
    outcome.figures, outcome.curves = figures_of(found, args.nights)
    outcome.notes.append(f"{time.monotonic() - began:.0f} s for {args.seeds * len(SETTINGS)} chains.")
    outcome.write()
    outcome.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
