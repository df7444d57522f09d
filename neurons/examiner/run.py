"""One examination: versions, dataset and items fetched by digest, all versions asked the same, the outcomes told.

Of several examinations in one process what is asked of the same version alike is asked once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bettertherapy_api.examination import BASE, OUTCOMES_KEY, Outcomes, Subject
from bettertherapy_api.manifest import BaseModelEntry
from bettertherapy_api.run_progress import REVIEW_KEY, RunStage
from neurons.examiner.examination import NO_JUDGE, Examination, How, Said, Scores, score
from neurons.examiner.hidden import hidden_items, unseen
from neurons.examiner.judging import JudgeSettings, opened
from neurons.examiner.kept import KeptAnswers, KeptCalibrations
from neurons.examiner.learning import controls, learned, lessons
from neurons.examiner.versions import Version, Versions, asked, read_dataset
from neurons.scoring.contrasts import Contrast, safety_contrasts
from neurons.scoring.examination import AT_ONCE, takes_judge
from neurons.scoring.healthbench import Asked
from neurons.scoring.tripwires import tripwires
from neurons.store.model_record import read_record
from neurons.trainer import answers, likelihoods
from neurons.trainer.archive import Archive, request_digest
from neurons.trainer.base import Base
from neurons.trainer.dataset import Dataset, parse_lines
from neurons.trainer.errors import BadArtifact, BadData
from neurons.trainer.held_out import HeldOut, safety_held_out
from neurons.trainer.items import check_held_out, read_items, read_safety
from neurons.trainer.likelihoods import Compared
from neurons.trainer.lora import with_adapter
from neurons.trainer.progress import Progress, say

_NAMED_LINES: Final = 20
_NAMED_IDS: Final = 20


@dataclass(frozen=True, slots=True)
class Voice:
    """One of whom something is asked: an adapter's digest and folder, or the base model where there is neither."""

    digest: str | None
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of each version of a run; two runs with the same digest ask the same."""

    digest: str
    """Of all that an answer depends on besides the adapter."""
    conversations: Sequence[list[dict[str, str]]]
    tokens: Sequence[int]
    compared: Sequence[Compared]

    def __len__(self) -> int:
        """Return how many answers and measurements it takes of each version."""
        return len(self.conversations) + len(self.compared)


class Heard:
    """What a process has heard: what several runs ask the same version alike is asked once."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str | None], Said] = {}

    def said(self, base: Base, asking: Asking, voice: Voice, *, report: Callable[[int], None]) -> Said:
        """Return what a version says; `report` as for `ask`. Raises TrainerError."""
        key = asking.digest, voice.digest
        if key not in self._said:
            self._said[key] = ask(base, asking, voice, report=report)
        return self._said[key]


class Examiner:
    """One attempt at an examination: `prepare`, `listen` and `conclude`. Raises TrainerError."""

    def __init__(
        self, options: argparse.Namespace, *, work: Path, progress: Progress, archive: Archive | None = None
    ) -> None:
        self._options, self._progress = options, progress
        self._archive = archive or Archive(options.store, options.twin, create=False)
        self._kept = KeptAnswers(options.kept)
        record = read_record(options.base_model)
        self._base = BaseModelEntry(
            name=options.base_model_name, revision=options.base_model_revision,
            digest=options.base_model_digest or (record.digest if record else None),
        )  # fmt: skip
        self._versions = Versions(self._archive, base=self._base, work=work)
        self._begun = time.monotonic()
        self._lessons: tuple[Compared, ...] = ()
        """What a version from elsewhere was given to learn."""
        self._controls: tuple[Compared, ...] = ()
        """And what of the same doctor's it was not."""
        self._said: dict[str, Said] = {}
        """By side, as `answers` names them."""
        self.asking: Asking | None = None
        """What is asked; None where that is nothing."""
        self.unheard: dict[str, Voice] = {}
        """Whom that has still to be asked, by side."""

    @property
    def name(self) -> str:
        """The run's name."""
        name: str = self._options.run
        return name

    def prepare(self) -> None:
        """Fetch what is examined and with what, and look what is known already."""
        options = self._options
        self._progress.stage(RunStage.EVALUATE, remaining_seconds=None)
        child = self._versions.child(
            options.child_digest, run=options.trained_by or options.run, parent_digest=options.parent_digest
        )
        self._own, self._items_digest = self._items()
        if options.dataset_digest is not None:
            dataset = self._adopted_dataset(options.dataset_digest)
            self._lessons = lessons(dataset, self._system_prompt())
            self._controls = controls(self._own, self._system_prompt())
        else:
            dataset = self._check_dataset(child, self._own)
        self._dataset = dataset.digest
        self._platform, self._trained = self._platforms_items(dataset)
        # Without items of its own nothing can be concluded, and the safety items needn't be asked.
        languages = options.languages
        every = (*safety_contrasts(), *self._platform)
        contrasts = tuple(each for each in every if languages is None or each.language in languages)
        self._examination = Examination(self._own, tripwires(), contrasts) if self._own else Examination(())
        self._platforms_asked = sum(each in self._platform for each in contrasts) if self._own else 0
        if not self._own and not self._lessons:
            self._said = {answers.PARENT: Said(), answers.CHILD: Said()}
            return
        self.asking = asking = self._asking()
        digests: dict[str, str | None] = {answers.PARENT: options.parent_digest, answers.CHILD: child.digest}
        if options.anchor is not None:
            digests[answers.ANCHOR] = None if options.anchor == BASE else options.anchor
        for side, digest in digests.items():
            if digest is not None and (said := self._kept.get(digest, asking.digest)) is not None:
                self._said[side] = said
            elif (voice := self._voice(side, digest, child)) is not None:
                self.unheard[side] = voice
        self._all = max(1, len(self.unheard) * len(asking))
        self._digests = [digest for digest in digests.values() if digest is not None]

    def listen(self, base: Base, heard: Heard, *, report: Callable[[], None] = lambda: None) -> None:
        """Ask all of `unheard`; `report` is told whenever some of it is answered."""
        self._hearing = time.monotonic()

        def told(answered: int) -> None:
            self.told(answered)
            report()

        while self.unheard:
            assert self.asking is not None  # noqa: S101 - else nobody is unheard
            voice = next(iter(self.unheard.values()))
            self.hear(voice, heard.said(base, self.asking, voice, report=told))

    def hear(self, voice: Voice, said: Said) -> None:
        """Take what a version said to `asking`."""
        assert self.asking is not None  # noqa: S101 - else nobody is asked
        for side in [side for side, each in self.unheard.items() if each.digest == voice.digest]:
            del self.unheard[side]
            self._said[side] = said
        if voice.digest is not None:
            self._kept.put(voice.digest, self.asking.digest, said)

    def told(self, answered: int) -> None:
        """Tell that the next version gave so many of its answers."""
        assert self.asking is not None  # noqa: S101
        done = self._all - len(self.unheard) * len(self.asking) + answered
        remaining = round((time.monotonic() - self._hearing) / max(1, done) * (self._all - done))
        self._progress.stage(RunStage.EVALUATE, done=done, of=self._all, remaining_seconds=remaining)
        say(event="examination", examined=self.name, answered=done, of=self._all)

    def conclude(self) -> dict[str, object]:
        """Score what was said, tell the outcomes, and return what the last line says. Raises BadArtifact for a version
        from elsewhere that has not learned what it was given: it is compared with nothing, and spends no try."""
        options = self._options
        if self.asking is not None:
            self._kept.drop_others(self._digests)
        first = len(self._examination.contrasts)
        parent, child = (self._said[side].logprobs[first:] for side in (answers.PARENT, answers.CHILD))
        learning = learned(parent, child, of=len(self._lessons)) if self._lessons else None
        if learning is not None and learning.can_be_told and not learning.is_shown:
            raise BadArtifact(
                f"what was delivered is not the work that was asked for: {learning.told()}: it has not learned them."
            )
        scores = self._scored()
        judging = scores.judging.model_copy(
            update={"platform_items": self._platforms_asked, "platform_trained": self._trained}
        )
        subject = Subject(
            run=options.run, run_uid=options.run_uid, twin=options.twin, child=options.child_digest,
            parent=options.parent_digest, anchor=options.anchor, dataset=self._dataset,
        )  # fmt: skip
        outcomes = Outcomes.of(
            scores.scored, subject=subject, items_digest=self._items_digest, tripped=scores.tripped,
            failure=scores.failure, ungraded=scores.ungraded, judging=judging,
            learning=learning,
        )  # fmt: skip
        self._progress.attach({OUTCOMES_KEY: outcomes.to_json(), REVIEW_KEY: scores.review.to_json()})
        self._progress.stage(RunStage.DONE, remaining_seconds=0)
        return {
            "examined": options.child_digest, "items": len(self._own), "rows": len(outcomes.rows),
            "tripped": len(scores.tripped), "ungraded": len(scores.ungraded), "failure": scores.failure,
            "seconds": round(time.monotonic() - self._begun, 1),
        }  # fmt: skip

    def _scored(self) -> Scores:
        """Return what the versions came to; a judge is asked only where an item takes one."""
        options, settings = self._options, JudgeSettings.of(self._options)
        parent, child = self._said[answers.PARENT], self._said[answers.CHILD]
        anchor = self._said.get(answers.ANCHOR)

        async def scored() -> Scores:
            if settings is None or not any(map(takes_judge, self._examination.items)):
                how = NO_JUDGE if options.no_judge is None else How(unjudged=options.no_judge)
                return await score(self._examination, parent, child, anchor=anchor, how=how)
            async with opened(settings, kept=KeptCalibrations(options.kept)) as bench:
                how = How(
                    judge=bench.judge, unjudged=bench.why, language=settings.language, seconds=settings.seconds,
                    at_once=max(AT_ONCE, settings.concurrency),
                )  # fmt: skip
                return await score(self._examination, parent, child, anchor=anchor, how=how)

        self._progress.stage(RunStage.EVALUATE, done=1, of=1, remaining_seconds=None)
        return asyncio.run(scored())

    def _items(self) -> tuple[tuple[Asked, ...], str | None]:
        """Return the twin's own items, and their digest."""
        options = self._options
        if options.eval_uri is None:
            return (), None
        items, digest = asked(read_items(options.eval_uri, options.eval_digest, archive=self._archive))
        in_words = [item.id for item in items if takes_judge(item)]
        if in_words and JudgeSettings.of(options) is None and options.no_judge is None:
            told = ", ".join(in_words[:_NAMED_IDS]) + (" and more" if len(in_words) > _NAMED_IDS else "")
            raise BadData(
                f"{len(in_words)} items of the evaluation set take a judge, and gate.judgeRef names none: {told}. Name "
                "one, give their criteria phrases (`any`), or take them out."
            )
        return items, digest

    def _platforms_items(self, dataset: Dataset) -> tuple[tuple[Contrast, ...], int]:
        """Return the safety items of the platform's own, and how many more there are of which the dataset has the like.

        Trainers don't know them, so they can't leave such lines out; that is no fault of the run's.
        """
        options = self._options
        if options.safety_uri is None:
            return (), 0
        items = asked(read_safety(options.safety_uri, options.safety_digest, archive=self._archive))
        known = HeldOut((), items)
        suspects = [line for line in dataset.lines if known.has(line)]
        if not suspects:
            return items, 0
        unseen = tuple(item for item in items if not any(map(HeldOut((), [item]).has, suspects)))
        return unseen, len(items) - len(unseen)

    def _check_dataset(self, child: Version, items: tuple[Asked, ...]) -> Dataset:
        """Return what the version was trained on; raise BadData where that holds what it is asked.

        The trainer leaves such lines out. Here that is looked at again, by another program.
        """
        lineage = child.manifest.lineage
        digest = lineage.dataset_digest
        assert digest is not None  # noqa: S101 - by Versions.child
        data = asked(read_dataset(self._archive, digest))
        dataset = Dataset(lines=parse_lines(data, where=digest), refused={}, digest=digest)
        record = asked(self._archive.lineage(child.digest))
        check_held_out(items, dataset.question_digests | frozenset(record.questions if record is not None else ()))
        held_out = HeldOut(items, beside=safety_held_out())
        if places := [number for number, line in enumerate(dataset.lines, start=1) if held_out.has(line)]:
            told = ", ".join(map(str, places[:_NAMED_LINES])) + (" and more" if len(places) > _NAMED_LINES else "")
            raise BadData(
                f"the dataset {digest} holds what the version is examined with, but for a few words, in "
                f"{len(places)} lines ({told}): the examination would measure memory. Start a new run."
            )
        return dataset

    def _adopted_dataset(self, digest: str) -> Dataset:
        """Return what a version from elsewhere was given to learn; of the items those are left that it has not the like
        of, beside what its trainer was never given."""
        options = self._options
        dataset = self._kept_dataset(digest)
        items, digests = list(self._own), [self._items_digest] if self._items_digest is not None else []
        if options.held_out_digest is not None:
            known = {item.id for item in items}
            hidden = hidden_items(self._kept_dataset(options.held_out_digest).lines)
            items += [item for item in hidden if item.id not in known]
            digests.append(options.held_out_digest)
        self._own = unseen(items, dataset)
        self._items_digest = digests[0] if len(digests) == 1 else _digest_of(digests)
        return dataset

    def _kept_dataset(self, digest: str) -> Dataset:
        data = asked(read_dataset(self._archive, digest))
        return Dataset(lines=parse_lines(data, where=digest), refused={}, digest=digest)

    def _asking(self) -> Asking:
        system_prompt = self._system_prompt()
        conversations = self._examination.conversations(system_prompt)
        tokens = self._examination.answer_tokens(self._options.answer_tokens)
        compared = [*self._examination.compared(system_prompt), *self._lessons, *self._controls]
        digest = request_digest(
            base=self._base.model_dump(), conversations=conversations, tokens=tokens,
            compared=[(each.conversation, each.continuations) for each in compared], made_with=answers.made_with(),
        )  # fmt: skip
        return Asking(digest, conversations, tokens, compared)

    def _system_prompt(self) -> str | None:
        path: Path | None = self._options.system_prompt_file
        if path is None:
            return None
        text = path.read_bytes().decode()  # to the letter: the miner sends it so, with the line feed at its end
        return text if text.strip() else None

    def _voice(self, side: str, digest: str | None, child: Version) -> Voice | None:
        """Return whom to ask for a side, fetched. An anchor that is gone is left out: None."""
        options = self._options
        if digest is None:
            return Voice(None, None)
        if side == answers.CHILD:
            return Voice(digest, child.folder)
        if side == answers.PARENT:
            return Voice(digest, self._versions.parent(options.parent_uri or "", digest).folder)
        anchor = self._versions.anchor(options.anchor_uri or "", digest)
        return None if anchor is None else Voice(digest, anchor.folder)


def _digest_of(digests: Sequence[str]) -> str | None:
    """Return the digest of several sets of items as one."""
    return "sha256:" + hashlib.sha256(" ".join(digests).encode()).hexdigest() if digests else None


def ask(base: Base, asking: Asking, voice: Voice, *, report: Callable[[int], None]) -> Said:
    """Put it all to one version; `report` is told how much is answered. Raises TrainerError.

    One version at a time, so that all get the same batches: what one says depends on nobody who is asked beside it.
    """
    cut: list[int] = []
    model = base.model() if voice.folder is None else with_adapter(base.model(), voice.folder)
    try:
        told = (
            answers.answer(
                model, base.tokenizer, asking.conversations, max_new_tokens=asking.tokens, report=report,
                cut=cut.append,
            )
            if asking.conversations
            else []
        )  # fmt: skip
        measured = likelihoods.logprobs(
            model, base.tokenizer, asking.compared, report=lambda done: report(len(asking.conversations) + done)
        )
    finally:
        del model
        base.restore()
    return Said(told, measured, frozenset(cut))
