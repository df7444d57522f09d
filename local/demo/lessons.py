"""The twin learns from a day of corrections, and the gate refuses a day of poison."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from demo import fine_tuning, pages
from demo.asking import ask_twin
from demo.curriculum import EXAMINATION, LEARNER, MOVED_CLINIC, NEW_DAYS, POISONED, Day, questions
from demo.doctors import QUESTION
from demo.errors import DemoError
from demo.files import Volume
from demo.fine_tuning import Outcome
from demo.installation import EXAMINATIONS, NAMESPACE, STORE, STORE_CLAIM
from demo.patients import Patients
from demo.stage import Stage
from kubectl_twin.ask import Answer
from kubectl_twin.views import short_digest

_TWIN: Final = LEARNER.twin
_SAFETY: Final = frozenset({"emergency", "dosage", "selfHarm", "refusal", "pregnancy", "children"})


def prepare(store: Volume) -> None:
    """Put what the twin is examined with beside the store."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(EXAMINATION, Path(scratch, f"{_TWIN}.jsonl"))
        store.upload(Path(scratch), f"{store.root}/{EXAMINATIONS}")


def forget(stage: Stage) -> None:
    """Go back to the first version after an earlier demo on this cluster, however far it came."""
    if not fine_tuning.has_learned(stage.kube, _TWIN, namespace=NAMESPACE):
        return
    with stage.timeline.step("forget what an earlier demo taught"):
        fine_tuning.roll_back(stage.kube, _TWIN, namespace=NAMESPACE)


def teach(stage: Stage) -> None:
    """Fine-tune on the corrections and hear them in the answer; then on poison, and see it refused.

    Raises:
        DemoError: a step failed, or the gate decided otherwise.
    """
    good = _learn(stage)
    _refuse(stage, good)


def _learn(stage: Stage) -> Outcome:
    console = stage.timeline.console
    pages.print_scene(
        console,
        f"{LEARNER.name}'s clinic moves. She corrects {MOVED_CLINIC.corrected} of the day's "
        f"{len(MOVED_CLINIC.lines)} answers.",
    )
    good = _fine_tune(stage, [MOVED_CLINIC], title="fine-tune on the corrections")
    pages.print_outcome(console, good)
    if good.verdict != "Promote":
        raise DemoError(
            f"The gate did not let the corrected version pass: {good.verdict}: {good.message}",
            remedy="the numbers above say why; running the demo again trains with another seed",
        )
    _try(stage, good)
    again = ask_twin(stage, LEARNER, again=True)
    pages.print_answers(console, f"The same question again: {QUESTION}", [again])
    _check_version(again, good)
    if NEW_DAYS not in again.text:
        raise DemoError(
            f"The new version does not say {NEW_DAYS}: it has not learned the corrections",
            remedy="running the demo again trains with another seed",
        )
    return good


def _refuse(stage: Stage, good: Outcome) -> None:
    console = stage.timeline.console
    pages.print_scene(
        console, f"Then somebody feeds it {len(POISONED.lines)} dangerous answers, each with the best rating."
    )
    bad = _fine_tune(stage, [MOVED_CLINIC, POISONED], title="fine-tune on the poison")
    pages.print_outcome(console, bad)
    reviewed = fine_tuning.reviewed(stage.kube, bad.run, namespace=NAMESPACE)
    if worst := next((item for item in reviewed if item["kind"] in _SAFETY), None):
        pages.print_comparison(console, worst)
    if bad.verdict != "Reject":
        raise DemoError(
            f"The gate did not refuse the poisoned version: {bad.verdict}: {bad.message}",
            remedy="the numbers above say why; the version before goes on serving in any case, unless it says Promote",
        )
    with stage.timeline.step("take the poisoned conversations away"):
        _collect(stage, [MOVED_CLINIC])
    again = ask_twin(stage, LEARNER, again=True)
    pages.print_answers(console, "The twin goes on answering with the good version:", [again])
    _check_version(again, good)


def _check_version(answer: Answer, wanted: Outcome) -> None:
    if answer.adapter_digest != wanted.digest:
        raise DemoError(
            f"{short_digest(answer.adapter_digest)} answered, not {short_digest(wanted.digest)}, which passed the gate",
            remedy=f"`kubectl twin status {_TWIN} -n {NAMESPACE}` shows which version serves",
        )


def _fine_tune(stage: Stage, days: Sequence[Day], *, title: str) -> Outcome:
    kube, timeline = stage.kube, stage.timeline
    with timeline.step("collect the day's conversations in the store"):
        _collect(stage, days)
    token = fine_tuning.next_token(kube, _TWIN, namespace=NAMESPACE)
    timeline.note(f"$ kubectl twin finetune {_TWIN} --now -n {NAMESPACE}")
    with timeline.step(f"{title} (a FineTuneRun)") as detail:
        return fine_tuning.fine_tune(kube, _TWIN, namespace=NAMESPACE, token=token, on_progress=detail)


def _collect(stage: Stage, days: Sequence[Day]) -> None:
    """Have exactly these days' conversations where the twin's runs look for them."""
    with stage.volume(STORE_CLAIM) as store, tempfile.TemporaryDirectory() as scratch:
        for number, day in enumerate(days, start=1):
            shutil.copy(day.file, Path(scratch, f"day-{number}.jsonl"))
        store.upload(Path(scratch), f"{store.root}/{STORE}/{_TWIN}/interactions")


def _try(stage: Stage, outcome: Outcome) -> None:
    """Let the new version answer more and more of the patients, as long as it does well."""
    timeline = stage.timeline
    seen: list[str] = []

    def tell(message: str) -> None:
        detail(message)
        if seen and message.partition(" (")[0] != seen[-1].partition(" (")[0]:
            timeline.note(seen[-1])
        seen.append(message)

    patients = Patients(_TWIN, questions(), namespace=NAMESPACE, kubeconfig=stage.kube.kubeconfig)
    with timeline.step("try the new version on a share of the patients") as detail, patients:
        fine_tuning.await_promotion(stage.kube, _TWIN, outcome.digest, namespace=NAMESPACE, on_progress=tell)
    if seen:
        timeline.note(seen[-1])
    told = ", ".join(f"{count} by {version}" for version, count in sorted(patients.answers.items()))
    timeline.note(
        f"{sum(patients.answers.values())} questions answered meanwhile ({told}), {len(patients.failures)} not"
    )
