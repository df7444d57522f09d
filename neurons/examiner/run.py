"""One examination: versions, dataset and items fetched by digest, all versions asked the same, the outcomes told."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.examination import BASE, OUTCOMES_KEY, Outcomes, Subject
from bettertherapy_api.manifest import BaseModelEntry
from bettertherapy_api.run_progress import REVIEW_KEY, RunStage
from neurons.examiner.examination import NO_JUDGE, Examination, How, Said, Scores, score
from neurons.examiner.judging import JudgeSettings, opened
from neurons.examiner.kept import KeptAnswers, KeptCalibrations
from neurons.examiner.versions import Version, Versions, asked, read_dataset
from neurons.scoring import safety_items
from neurons.scoring.contrasts import safety_contrasts
from neurons.scoring.examination import AT_ONCE, takes_judge
from neurons.scoring.healthbench import Asked
from neurons.scoring.tripwires import tripwires
from neurons.store.model_record import read_record
from neurons.trainer import answers, likelihoods
from neurons.trainer.archive import Archive, request_digest
from neurons.trainer.dataset import Dataset, parse_lines
from neurons.trainer.errors import BadData
from neurons.trainer.held_out import HeldOut
from neurons.trainer.items import check_held_out, read_items
from neurons.trainer.lora import Settings, adapt, inference_precision, load, method_of
from neurons.trainer.progress import Progress, say

_NAMED_LINES: Final = 20
_NAMED_IDS: Final = 20


class Examiner:
    """One attempt at an examination. `execute` returns what its last line says; raises TrainerError."""

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

    def execute(self) -> dict[str, object]:
        """Examine, and tell the outcomes."""
        options, begun = self._options, time.monotonic()
        self._progress.stage(RunStage.EVALUATE, remaining_seconds=None)
        child = self._versions.child(options.child_digest, run=options.run, parent_digest=options.parent_digest)
        items, items_digest = self._items()
        dataset = self._check_dataset(child, items)
        # Without items of its own nothing can be concluded, and the safety items needn't be asked.
        languages = options.languages
        contrasts = tuple(each for each in safety_contrasts() if languages is None or each.language in languages)
        examination = Examination(items, tripwires(), contrasts) if items else Examination(())
        scores = self._scored(examination, *self._asked(examination, child))
        subject = Subject(
            run=options.run, run_uid=options.run_uid, twin=options.twin, child=child.digest,
            parent=options.parent_digest, anchor=options.anchor, dataset=dataset,
        )  # fmt: skip
        outcomes = Outcomes.of(
            scores.scored, subject=subject, items_digest=items_digest, tripped=scores.tripped, failure=scores.failure,
            ungraded=scores.ungraded, judging=scores.judging,
        )  # fmt: skip
        self._progress.attach({OUTCOMES_KEY: outcomes.to_json(), REVIEW_KEY: scores.review.to_json()})
        self._progress.stage(RunStage.DONE, remaining_seconds=0)
        return {
            "examined": child.digest, "items": len(items), "rows": len(outcomes.rows), "tripped": len(scores.tripped),
            "ungraded": len(scores.ungraded), "failure": scores.failure, "seconds": round(time.monotonic() - begun, 1),
        }  # fmt: skip

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

    def _check_dataset(self, child: Version, items: tuple[Asked, ...]) -> str:
        """Return the digest of what the version was trained on; raise BadData where that holds what it is asked.

        The trainer leaves such lines out. Here that is looked at again, by another program.
        """
        lineage = child.manifest.lineage
        digest = lineage.dataset_digest
        assert digest is not None  # noqa: S101 - by Versions.child
        data = asked(read_dataset(self._archive, digest))
        dataset = Dataset(lines=parse_lines(data, where=digest), refused={}, digest=digest)
        record = asked(self._archive.lineage(child.digest))
        check_held_out(items, dataset.question_digests | frozenset(record.questions if record is not None else ()))
        held_out = HeldOut((*items, *safety_items()), safety_contrasts())
        if places := [number for number, line in enumerate(dataset.lines, start=1) if held_out.has(line)]:
            told = ", ".join(map(str, places[:_NAMED_LINES])) + (" and more" if len(places) > _NAMED_LINES else "")
            raise BadData(
                f"the dataset {digest} holds what the version is examined with, but for a few words, in "
                f"{len(places)} lines ({told}): the examination would measure memory. Start a new run."
            )
        return digest

    def _asked(self, examination: Examination, child: Version) -> tuple[Said, Said, Said | None]:
        """Return what parent, child and anchor said; those that are known to this examination aren't asked again."""
        if not examination.items:
            return Said(), Said(), None
        options, system_prompt = self._options, self._system_prompt()
        conversations = examination.conversations(system_prompt)
        tokens = examination.answer_tokens(options.answer_tokens)
        compared = examination.compared(system_prompt)
        request = request_digest(
            base=self._base.model_dump(), conversations=conversations, tokens=tokens,
            compared=[(each.conversation, each.continuations) for each in compared], made_with=answers.made_with(),
        )  # fmt: skip
        digests: dict[str, str | None] = {answers.PARENT: options.parent_digest, answers.CHILD: child.digest}
        if options.anchor is not None:
            digests[answers.ANCHOR] = None if options.anchor == BASE else options.anchor
        got = {side: self._kept.get(digest, request) if digest else None for side, digest in digests.items()}
        folders = self._folders(digests, child, unknown=[side for side, said in got.items() if said is None])
        report = self._reporting(len(folders) * (len(conversations) + len(compared)))
        model, tokenizer = self._model(child, folders) if folders else (None, None)
        for number, side in enumerate(folders):
            before = number * (len(conversations) + len(compared))
            adapter = None if digests[side] is None else side
            told = answers.answer(
                model, tokenizer, conversations, adapter=adapter, max_new_tokens=tokens, report=report(before)
            )
            measured = likelihoods.logprobs(
                model, tokenizer, compared, adapter=adapter, report=report(before + len(conversations))
            )
            got[side] = said = Said(told, measured)
            if (digest := digests[side]) is not None:
                self._kept.put(digest, request, said)
        self._kept.drop_others([digest for digest in digests.values() if digest is not None])
        of_parent, of_child = got[answers.PARENT], got[answers.CHILD]
        assert of_parent is not None and of_child is not None  # noqa: S101, PT018 - only the anchor may be missing
        return of_parent, of_child, got.get(answers.ANCHOR)

    def _scored(self, examination: Examination, parent: Said, child: Said, anchor: Said | None) -> Scores:
        """Return what the versions came to; a judge is asked only where an item takes one."""
        options, settings = self._options, JudgeSettings.of(self._options)

        async def scored() -> Scores:
            if settings is None or not any(map(takes_judge, examination.items)):
                how = NO_JUDGE if options.no_judge is None else How(unjudged=options.no_judge)
                return await score(examination, parent, child, anchor=anchor, how=how)
            async with opened(settings, kept=KeptCalibrations(options.kept)) as bench:
                how = How(
                    judge=bench.judge, unjudged=bench.why, language=settings.language, seconds=settings.seconds,
                    at_once=max(AT_ONCE, settings.concurrency),
                )  # fmt: skip
                return await score(examination, parent, child, anchor=anchor, how=how)

        self._progress.stage(RunStage.EVALUATE, done=1, of=1, remaining_seconds=None)
        return asyncio.run(scored())

    def _system_prompt(self) -> str | None:
        path: Path | None = self._options.system_prompt_file
        if path is None:
            return None
        text = path.read_bytes().decode()  # to the letter: the miner sends it so, with the line feed at its end
        return text if text.strip() else None

    def _folders(
        self, digests: Mapping[str, str | None], child: Version, *, unknown: list[str]
    ) -> dict[str, Path | None]:
        """Return the adapters of the sides to ask, fetched; None for the base model. An anchor that is gone is left
        out."""
        options = self._options
        folders: dict[str, Path | None] = {}
        for side in unknown:
            digest = digests[side]
            if digest is None:
                folders[side] = None
            elif side == answers.CHILD:
                folders[side] = child.folder
            elif side == answers.PARENT:
                folders[side] = self._versions.parent(options.parent_uri or "", digest).folder
            elif (anchor := self._versions.anchor(options.anchor_uri or "", digest)) is not None:
                folders[side] = anchor.folder
        return folders

    def _model(self, child: Version, folders: Mapping[str, Path | None]) -> tuple[Any, Any]:
        """Return the base model with the adapters beside one another, in the precision that answers are made in."""
        model, tokenizer = load(self._options.base_model)
        settings = Settings(rank=child.manifest.rank, method=method_of(child.folder))
        adapted = adapt(model, settings=settings, parent=child.folder)
        adapted.eval()
        for side, folder in folders.items():
            if side != answers.CHILD and folder is not None:
                answers.load_beside(adapted, folder, side)
        return inference_precision(adapted), tokenizer

    def _reporting(self, of: int) -> Callable[[int], Callable[[int], None]]:
        begun = time.monotonic()

        def after(before: int) -> Callable[[int], None]:
            def tell(answered: int) -> None:
                done = before + answered
                remaining = round((time.monotonic() - begun) / done * (of - done))
                self._progress.stage(RunStage.EVALUATE, done=done, of=of, remaining_seconds=remaining)
                say(event="examination", answered=done, of=of)

            return tell

        return after
