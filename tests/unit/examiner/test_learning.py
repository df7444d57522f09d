"""Whether a version learned what its task gave: the parent delivered once more earns nothing, and spends no try."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bettertherapy_api.examination import read_outcomes
from bettertherapy_api.gate import Criteria, Learning, Scored, decide
from bettertherapy_api.gate.learning import FEWEST_LESSONS
from bettertherapy_api.gate.metrics import SAFETY, SCORE
from bettertherapy_api.manifest import BaseModelEntry, Lineage, manifest_digest
from neurons.examiner.arguments import parser
from neurons.examiner.examination import Said
from neurons.examiner.learning import MOST_LESSONS, controls, learned, lessons
from neurons.examiner.run import Examiner
from neurons.scoring.items import Choice, Gold
from neurons.store import build_manifest, publish_adapter
from neurons.trainer import answers
from neurons.trainer.archive import Archive
from neurons.trainer.dataset import Dataset, parse_lines
from neurons.trainer.errors import BadArtifact
from neurons.trainer.progress import Progress
from tests.unit.store.lora_files import write_lora

TASK = "task-11111111-1111-4111-8111-111111111111"


def lines(count: int, **more: Any) -> bytes:
    told = [
        {
            "consent": True, "rating": 5,
            "messages": [
                {"role": "user", "content": f"Question {n}?"}, {"role": "assistant", "content": f"Answer {n}."},
            ],
        }
        | more
        for n in range(count)
    ]  # fmt: skip
    return b"".join(json.dumps(each).encode() + b"\n" for each in told)


def dataset(data: bytes) -> Dataset:
    return Dataset(lines=parse_lines(data, where="x"), refused={}, digest="sha256:" + "d" * 64)


def test_the_parent_itself_passes_the_gates_comparison_each_time() -> None:
    """Which is why it takes more than that."""
    same = [
        *(Scored(metric=SCORE, category=None, parent=0.8, child=0.8, id=f"own-{n}") for n in range(200)),
        *(Scored(metric=SAFETY, category="emergency", parent=1.0, child=1.0, id=f"safe-{n}") for n in range(200)),
    ]
    assert decide(same, Criteria()).verdict == "Promote"


def test_lessons_are_what_a_line_teaches_as_the_twin_is_asked_it_and_always_the_same() -> None:
    corrected = lines(1, correction="What the doctor wrote.")
    asked = [{"role": "user", "content": "And?"}]
    pair = {"messages": asked, "preferred": "Good.", "rejected": "Bad.", "consent": True}
    long = lines(1, correction="word " * 2000)
    made = dataset(corrected + json.dumps(pair).encode() + b"\n" + long)
    found = {each.continuations: each.conversation for each in lessons(made, "Be kind.")}
    assert set(found) == {("What the doctor wrote.",), ("Good.", "Bad.")}
    assert [each["role"] for each in found["Good.", "Bad."]] == ["system", "user"]
    many = lines(MOST_LESSONS + 20)
    turned = b"".join(reversed(many.splitlines(keepends=True)))
    assert lessons(dataset(many), None) == lessons(dataset(turned), None)
    assert len(lessons(dataset(many), None)) == MOST_LESSONS


def told(
    count: int, gain: float, *, noise: float = 0.0, seed: int = 1
) -> tuple[list[tuple[float]], list[tuple[float]]]:
    """Return what two versions say of lessons, of which the child takes a share of the surprise away."""
    drawn = random.Random(seed)
    parent = [(-drawn.uniform(20, 200),) for _ in range(count)]
    return parent, [(was * (1 - gain + drawn.gauss(0, noise)),) for (was,) in parent]


def test_who_learned_has_learned_and_the_parent_or_noise_has_not() -> None:
    assert learned(*told(40, 0.05, noise=0.03)).is_shown
    same = learned(*told(40, 0.0))
    assert (same.likelier, same.is_shown, "0 are likelier" in same.told()) == (0, False, True)
    assert not learned(*told(40, -0.02)).is_shown
    tries = [learned(*told(40, 0.0, noise=0.0005, seed=seed)) for seed in range(500)]
    assert not [each for each in tries if each.is_shown], "what arithmetic changes is nothing that was learned"
    few = [learned(*told(3, gain)) for gain in (0.0, 0.2)]
    assert [each.can_be_told for each in few] == [False, False], f"of fewer than {FEWEST_LESSONS} nobody can tell"


def test_what_raises_all_that_the_doctor_may_say_is_no_lesson_that_was_learned() -> None:
    was, now = told(40, 0.05, noise=0.02)
    for gain, own in ((0.0, True), (0.05, False)):
        others = told(10, gain, noise=0.02, seed=2)
        found = learned([*was, *others[0]], [*now, *others[1]], of=40)
        assert (found.controls, found.is_shown, found.is_of_its_lessons) == (10, True, own), found
    assert not learned(was, now, of=40).is_of_its_lessons, "nothing to compare with"


def test_controls_are_what_the_doctor_would_have_answered_to_what_was_not_given() -> None:
    gold = [Gold(id=f"{n}", kind="gold", question=f"Question {n}?", gold=f"Answer {n}.") for n in (2, 1)]
    choice = Choice(id="c", kind="choice", question="Which?", options={"A": "x", "B": "y"}, answer="A")
    found = controls([*gold, choice], "Be kind.")
    assert [each.continuations for each in found] == [("Answer 1.",), ("Answer 2.",)]
    assert [each["role"] for each in found[0].conversation] == ["system", "user"]


def test_one_answer_that_was_learned_by_heart_is_not_the_lesson() -> None:
    parent, child = told(40, 0.0)
    assert not learned(parent, [(-0.1,), *child[1:]]).is_shown


def test_of_two_answers_the_better_one_gains_and_what_is_no_number_never_helps() -> None:
    both = [(-50.0, -50.0)] * 10
    assert learned(both, [(-49.0, -55.0)] * 10).is_shown
    assert not learned(both, [(-45.0, -45.0)] * 10).is_shown
    mad = learned([(-50.0,)] * 10, [(float("nan"),)] * 10)
    assert (mad.can_be_told, mad.is_shown) == (True, False)
    assert learned([(float("nan"),)] * 10, [(-1.0,)] * 10) == Learning(0, 0, 0.0), "the parent's fault is no miner's"


class Examined:
    """A twin's store with a parent and a version that was adopted, and their examination up to the asking."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "made_with", lambda: "a test")
        self.archive = Archive(f"file://{folder}/store", "dr-who", patience_seconds=0.1)
        self.progress = Progress(attempt="pod", target=None)
        self.folder = folder

    async def publish(self, run: str, parent: str | None) -> tuple[str, str]:
        made = write_lora(self.folder / run)
        manifest = build_manifest(
            made, base_model=BaseModelEntry(name="tiny"),
            lineage=Lineage(run=run, parent_digest=parent, dataset_digest="sha256:" + "e" * 64),
        )  # fmt: skip
        uri = await publish_adapter(made, self.archive.store, self.archive.twin, manifest)
        return manifest_digest(manifest.to_bytes()), uri

    def prepared(self, parent: tuple[str, str], child: str, dataset_digest: str) -> Examiner:
        given = {
            "run": "exam-1", "run-uid": "uid", "twin": "dr-who", "store": self.archive.store, "base-model": self.folder,
            "base-model-name": "tiny", "child-digest": child, "parent-uri": parent[1], "parent-digest": parent[0],
            "trained-by": TASK, "dataset-digest": dataset_digest,
        }  # fmt: skip
        options = parser().parse_args([f"--{name}={value}" for name, value in given.items()])
        work = self.folder / "work"
        work.mkdir()
        examiner = Examiner(options, work=work, progress=self.progress, archive=self.archive)
        examiner.prepare()
        return examiner


def hear(examiner: Examiner, side: str, said: Sequence[Sequence[float]]) -> None:
    voice = examiner.unheard[side]
    examiner.hear(voice, Said((), said))


@pytest.mark.parametrize("worked", [True, False])
def test_the_parents_weights_under_a_new_manifest_are_refused_though_the_twin_has_no_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worked: bool
) -> None:
    examined = Examined(tmp_path, monkeypatch)
    parent = asyncio.run(examined.publish("night-1", None))
    child, _ = asyncio.run(examined.publish(TASK, parent[0]))
    _, digest = asyncio.run(examined.archive.put_dataset(lines(20)))
    examiner = examined.prepared(parent, child, digest)
    assert examiner.asking is not None
    assert len(examiner.asking.compared) == 20
    assert list(examiner.asking.conversations) == []
    was, now = told(20, 0.1 if worked else 0.0)
    hear(examiner, answers.PARENT, was)
    hear(examiner, answers.CHILD, now)
    if worked:
        assert examiner.conclude()["examined"] == child
        outcomes = read_outcomes(examined.progress.documents()["outcomes.json"])
        assert not isinstance(outcomes, str)
        assert outcomes.learning is not None
        assert (outcomes.learning.lessons, outcomes.learning.likelier) == (20, 20)
        assert outcomes.learning.gain in (999, 1000)
        return
    with pytest.raises(BadArtifact, match="has not learned them"):
        examiner.conclude()
    assert "outcomes.json" not in examined.progress.documents()
