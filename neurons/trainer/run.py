"""A FineTuneRun: dataset, training, publishing. Each stage leaves word in the store when it is done.

Killed anywhere, another attempt goes on from there: it trains on the same dataset, from the last checkpoint, and
publishes the same adapter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, BaseModelEntry, Fingerprint, Lineage
from bettertherapy_api.run_progress import ArtifactReport, DatasetReport, RunStage
from neurons.scoring.healthbench import Asked
from neurons.store import ArtifactNotFound, DigestMismatch, ManifestInvalid, StoreError, fetch_adapter, parse_manifest
from neurons.store.manifests import CONFIG_FILE
from neurons.store.model_record import read_record
from neurons.trainer.archive import Archive, LineageRecord, RunState, request_digest
from neurons.trainer.base import Base
from neurons.trainer.checkpoints import Checkpoints
from neurons.trainer.dataset import Dataset, Pair, canonical, parse_lines, to_compare, to_learn, with_system_prompt
from neurons.trainer.delivery import NotDelivered, deliver
from neurons.trainer.errors import BadData, BadParent, StoreFailed
from neurons.trainer.fingerprint import take_fingerprint
from neurons.trainer.held_out import HeldOut, safety_held_out
from neurons.trainer.items import check_held_out, read_items
from neurons.trainer.launch import Launcher
from neurons.trainer.lines import Line, Message
from neurons.trainer.lora import Interruptions, Settings, Step, Trained, checkpoint_of, save, train
from neurons.trainer.preferences import Plan, learn_preferences
from neurons.trainer.probes import margins
from neurons.trainer.progress import Progress, say
from neurons.trainer.publish import describe, publish_described
from neurons.trainer.schedule import DEFAULT_EPOCHS, Steps, plan_night, plan_steps
from neurons.trainer.sharding import Layout, devices, layout_of, needs_several
from neurons.trainer.sources import Found, find_lines, too_few, trained_before
from neurons.trainer.sources import Trained as Known
from neurons.trainer.termination import Termination
from neurons.trainer.tokens import Fit, examples_of, fit
from neurons.trainer.tracking import Tracking
from neurons.trainer.web_dataset import is_web_address, shown

log = logging.getLogger(__name__)

T = TypeVar("T")

_ADAPTER: Final = "adapter"
"""Folder of the trained adapter, within the run's own."""


@dataclass(frozen=True, slots=True)
class _Parent:
    """The adapter to go on from, checked and on this machine."""

    digest: str
    folder: Path
    manifest: AdapterManifest


class Run:
    """One attempt at a run: `read`, `train` and `publish`, each once, in whatever thread. Raises TrainerError."""

    def __init__(
        self,
        options: argparse.Namespace,
        *,
        work: Path,
        progress: Progress,
        termination: Termination,
        base: Base | None = None,
        archive: Archive | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        """`base` is the base model of the options' folder, where several runs share it. `tracking` is told of the
        training; by default nobody is."""
        self._unlearned: frozenset[str] = frozenset()
        self._options, self._work = options, work
        self._progress, self._termination = progress, termination
        self._loaded = base or Base(options.base_model)
        self._archive = archive or Archive(options.store, options.twin)
        self._tracking = tracking or Tracking({})
        record = read_record(options.base_model)
        self._base = BaseModelEntry(
            name=options.base_model_name,
            revision=options.base_model_revision,
            digest=options.base_model_digest or (record.digest if record else None),
        )
        self._seconds: dict[str, float] = {}
        self._supervised_seconds = 0.0
        self._state = RunState(request="")
        self._parent: _Parent | None = None
        self._held_out: tuple[Asked, ...] | None = None

    def read(self) -> dict[str, object] | None:
        """Settle and read what is trained on; return the last word of a run that is skipped. Needs no GPU."""
        with self._timed("data"):
            self._system_prompt = self._read_system_prompt()
            self._state = self._ask(self._archive.state(self._options.run, self._request()))
            self._parent = self._fetch_parent()
            self._known, skipped = self._settle_dataset()
            if skipped is not None:
                self._progress.stage(RunStage.DONE, skipped=skipped)
                return {"skipped": skipped}
            self._dataset = self._ask(self._read(self._known))
        return None

    def train(self, *, stepping: Callable[[], None] = lambda: None) -> None:
        """Train what `read` read, unless an attempt before has published it; the adapter is then in a folder.

        `stepping` is called when a first step is taken: from then on this thread mostly waits for the GPU.
        """
        self._stepping: Callable[[], None] | None = stepping
        if self._state.artifact is None:
            with self._timed("train"):
                trained = self._train(self._dataset)
            self._progress.stage(RunStage.PUBLISH, remaining_seconds=None)
            with self._timed("save"):
                save(trained, self._work / _ADAPTER, base_model_name=self._base.name)
            with self._timed("fingerprint"):
                self._fingerprint = self._take_fingerprint(trained)

    def publish(self) -> dict[str, object]:
        """Publish what `train` left, and return what the trainer's last line says. Needs no GPU."""
        if self._state.artifact is None:
            with self._timed("publish"):
                self._publish(self._work / _ADAPTER, self._fingerprint)
            self._tracking.end("FINISHED", adapter=self._made().digest)
        artifact = self._made()
        self._progress.tell(artifact=artifact)
        self._clean_up(artifact)
        self._deliver(artifact)
        self._progress.stage(RunStage.DONE, remaining_seconds=None)
        return {
            "uri": artifact.uri,
            "digest": artifact.digest,
            "rank": artifact.rank,
            "bytes": artifact.bytes,
            "seconds": {name: round(seconds, 1) for name, seconds in self._seconds.items()},
        }

    def _deliver(self, artifact: ArtifactReport) -> None:
        """Send a task's version to the validator that gave the dataset."""
        if not is_web_address(self._options.dataset_uri):
            return
        try:
            with self._timed("deliver"):
                asyncio.run(
                    deliver(
                        artifact.uri, artifact.digest, self._options.dataset_uri, limits=self._archive.limits,
                        pvc_dir=self._archive.pvc_dir,
                    )
                )  # fmt: skip
        except NotDelivered as error:
            log.warning("the version is not delivered to the validator, which then doesn't examine it: %s", error)
            say(event="not-delivered", digest=artifact.digest, why=str(error))
        else:
            say(event="delivered", digest=artifact.digest)

    def _made(self) -> ArtifactReport:
        assert self._state.artifact is not None  # noqa: S101 - set by _publish
        return self._state.artifact

    # Data

    def _read_system_prompt(self) -> str | None:
        path: Path | None = self._options.system_prompt_file
        if path is None:
            return None
        text = path.read_bytes().decode()  # to the letter: the miner sends it so, with the line feed at its end
        return text if text.strip() else None

    def _request(self) -> str:
        asked = self._options
        fields = (
            "run", "twin", "parent_digest", "dataset_uri", "dataset_digest", "rank", "alpha", "learning_rate",
            "preference_rate", "epochs", "steps", "learn_unrated", "batch_size", "max_tokens", "seed",
            "rehearsal_percent", "validation_percent", "kl_weight", "method", "quantization",
        )  # fmt: skip
        return request_digest(
            base=self._base.model_dump(),
            system_prompt=self._system_prompt,
            **{field: getattr(asked, field) for field in fields},
            # Runs of before, when nothing else could be asked, go on from their checkpoints.
            **({"targets": asked.targets} if asked.targets != Settings().targets else {}),
        )

    def _fetch_parent(self) -> _Parent | None:
        uri, digest = self._options.parent_uri, self._options.parent_digest
        if uri is None or digest is None:
            return None
        folder = self._work / "parent" / names.digest_hex(digest)
        manifest = self._ask(self._fetch(uri, digest, folder))
        base = manifest.base_model
        if base.name != self._base.name or (base.digest and self._base.digest and base.digest != self._base.digest):
            raise BadParent(
                f"{uri}: the parent adapter belongs to base model {base.name} {base.digest or ''}, this run trains on "
                f"{self._base.name} {self._base.digest or ''}. Begin without a parent after changing the base model."
            )
        if self._options.rank not in (None, manifest.rank):
            raise BadParent(
                f"{uri}: the parent adapter's rank is {manifest.rank}, this run's is {self._options.rank}. Set "
                f"hyperparameters.rank to {manifest.rank}, or leave it out."
            )
        alpha = json.loads((folder / CONFIG_FILE).read_bytes()).get("lora_alpha")
        if self._options.alpha not in (None, alpha):
            raise BadParent(
                f"{uri}: the parent adapter's alpha is {alpha}, this run's is {self._options.alpha}. Set "
                f"hyperparameters.alpha to {alpha}, or leave it out."
            )
        return _Parent(digest=digest, folder=folder, manifest=manifest)

    async def _fetch(self, uri: str, digest: str, folder: Path) -> AdapterManifest:
        async def fetch() -> AdapterManifest:
            return await fetch_adapter(uri, digest, folder, limits=self._archive.limits, pvc_dir=self._archive.pvc_dir)

        try:
            return await self._archive.patiently(fetch)
        except (ArtifactNotFound, DigestMismatch, ManifestInvalid) as error:
            raise BadParent(f"{error.reason}: {error}") from error

    def _settle_dataset(self) -> tuple[Known, str | None]:
        """Decide what is trained on, once for all attempts; return what the parent knows, or why the run is skipped."""
        parent = self._parent
        lineage = parent.manifest.lineage if parent is not None else None
        digest = parent.digest if parent is not None else None
        known = self._ask(trained_before(self._archive, digest, lineage=lineage))
        if self._state.dataset is None:
            found, known = self._ask(
                find_lines(
                    self._options.dataset_uri,
                    self._options.dataset_digest,
                    before=known,
                    archive=self._archive,
                    unrated=self._options.learn_unrated,
                )
            )
            if found.lines:
                items = self._ask(self._items())
                found = found.without(HeldOut(items, beside=safety_held_out()))
            if found.lines:  # tokenised now, so that nothing is promised that can't be learned
                found = self._that_is_seen(found)
            report = DatasetReport(
                uri=shown(self._options.dataset_uri),
                digest="",
                interactions=len(found.lines),
                rehearsed=len(found.rehearsed),
                validation=len(found.validation),
                pairs=sum(line.is_pair for line in found.lines),
                refused=found.refused,
                repaired=found.repaired,
                waiting=found.waiting,
                passed_over=found.passed_over,
            )
            say(event="dataset", known=found.known, **report.model_dump(exclude={"uri", "digest"}))
            if (skipped := too_few(found, self._options.min_interactions)) is not None:
                self._progress.tell(dataset=report)
                return known, skipped
            uri, dataset_digest = self._ask(self._archive.put_dataset(found.data))
            validation = None
            if found.validation:
                _, validation = self._ask(self._archive.put_dataset(canonical(found.validation)))
            self._keep(validation=validation, dataset=report.model_copy(update={"uri": uri, "digest": dataset_digest}))
            if digest is not None and lineage is not None and known.lines:
                self._ask(self._write_down(digest, lineage, known))
        self._progress.tell(dataset=self._state.dataset)
        return known, None

    def _that_is_seen(self, found: Found) -> Found:
        """Return what fits in the tokens and in the steps that the run has."""
        asked = self._options
        tokenizer = self._loaded.tokenizer

        def how(line: Line) -> Fit:
            return fit(self._lesson(line), tokenizer, max_tokens=asked.max_tokens)

        def size(line: Line) -> int:
            return examples_of(self._lesson(line), tokenizer, max_tokens=asked.max_tokens)

        found = found.that_fits(how)
        if asked.dataset_digest is None:  # who names one exact dataset wants all of it learned
            found = found.holding_back(asked.validation_percent)
        seen = self._planned(found)
        sizes = {line.digest: size(line) for line in seen.lines}
        while len((fewer := self._planned(seen, sizes)).lines) < len(seen.lines):
            seen = fewer  # with fewer lines the steps may be shared otherwise
        if asked.dataset_digest is not None or not asked.rehearsal_percent:
            return seen
        longest = max((size(line) for line in seen.earlier), default=1) if asked.steps is not None else 1
        new = sum(sizes[line.digest] for line in seen.lines if not line.is_pair)
        pairs = sum(line.is_pair for line in seen.lines)

        def fits(count: int) -> bool:
            together = new + count * longest
            steps = self._steps(conversations=together, pairs=pairs)
            new_fit: bool = steps.supervised * asked.batch_size >= together
            return new_fit and bool(steps.preference * asked.batch_size >= pairs)

        return seen.rehearsing(asked.rehearsal_percent, key=asked.run, fit=how, fits=fits)

    def _steps(self, *, conversations: int, pairs: int) -> Steps:
        asked = self._options
        return plan_steps(
            conversations=conversations,
            pairs=pairs,
            batch_size=asked.batch_size,
            epochs=self._epochs,
            most=asked.steps,
        )

    def _planned(self, found: Found, sizes: Mapping[str, int] | None = None) -> Found:
        """Return the lines that the run's steps see, of which each counts as one or as `sizes` tells."""
        asked = self._options
        pairs = sum(line.is_pair for line in found.lines)
        conversations = [line.digest for line in found.lines if not line.is_pair]
        night = plan_night(
            conversations=sum(sizes[digest] for digest in conversations) if sizes is not None else len(conversations),
            pairs=pairs,
            batch_size=asked.batch_size,
            epochs=self._epochs,
            # Room for what is rehearsed; of the steps that are left, some are the new lines' alone.
            most=max(1, 100 * asked.steps // (100 + asked.rehearsal_percent))
            if self._leaves_room(found)
            else asked.steps,
        )
        return found.first(conversations=night.conversations, pairs=night.pairs, sizes=sizes)

    def _lesson(self, line: Line) -> tuple[Message, ...] | Pair:
        """Return what is learned of a line, with the twin's system prompt before it."""
        if (pair := to_compare(line)) is not None:
            return replace(pair, prompt=with_system_prompt(pair.prompt, self._system_prompt))
        return with_system_prompt(to_learn(line), self._system_prompt)

    @property
    def _epochs(self) -> int | None:
        asked = self._options
        epochs: int | None = asked.epochs if asked.epochs is not None or asked.steps is not None else DEFAULT_EPOCHS
        return epochs

    def _leaves_room(self, found: Found) -> bool:
        asked = self._options
        return bool(asked.steps is not None and asked.dataset_digest is None and found.earlier and found.lines)

    async def _write_down(self, digest: str, lineage: Lineage, known: Known) -> None:
        """Keep the lineage of a parent that came without one, as the first adapter does."""
        if await self._archive.lineage(digest) is None:
            await self._archive.put_lineage(
                LineageRecord(
                    digest=digest,
                    parent_digest=lineage.parent_digest,
                    dataset_digest=lineage.dataset_digest or "",
                    run=lineage.run or "",
                    seed=lineage.seed or 0,
                    lines=tuple(sorted(known.lines)),
                    questions=tuple(sorted(known.questions)),
                )
            )

    async def _read(self, known: Known) -> Dataset:
        settled = self._state.dataset
        assert settled is not None  # noqa: S101 - by _settle_dataset
        data = await self._archive.dataset(settled.digest)
        if data is None:
            raise StoreFailed(f"{settled.uri}: the run's dataset is gone or changed. Start a new run.", retryable=False)
        dataset = Dataset(lines=parse_lines(data, where=settled.uri), refused=settled.refused, digest=settled.digest)
        check_held_out(await self._items(), dataset.question_digests | known.questions)
        return dataset

    async def _items(self) -> tuple[Asked, ...]:
        """Return the evaluation set, which is read once."""
        if self._held_out is None:
            asked = self._options
            items: tuple[Asked, ...] = ()
            if asked.eval_uri is not None:
                items, _ = await read_items(asked.eval_uri, asked.eval_digest, archive=self._archive)
            self._held_out = items
        return self._held_out

    # Train

    def _train(self, dataset: Dataset) -> Trained:
        lessons = [self._lesson(line) for line in dataset.lines]
        conversations = [lesson for lesson in lessons if not isinstance(lesson, Pair)]
        pairs = [lesson for lesson in lessons if isinstance(lesson, Pair)]
        asked = self._options
        tokenizer = self._loaded.tokenizer
        steps = self._steps(
            # A template that rewrites earlier turns makes several examples of one conversation.
            conversations=sum(examples_of(each, tokenizer, max_tokens=asked.max_tokens) for each in conversations),
            pairs=len(pairs),
        )
        settings = self._settings(steps)
        layout = self._layout(pairs=len(pairs))
        self._progress.stage(RunStage.TRAIN, step=0, steps=steps.total)
        self._begin_curves(settings, dataset, steps, layout)
        checkpoints = Checkpoints(self._archive, asked.run, identity=f"{self._state.request} {dataset.digest} {steps}")
        resume = checkpoints.load()
        if resume is not None:
            say(event="resumed", step=len(resume["losses"]), steps=steps.total)
        interruptions = Interruptions(
            every=asked.checkpoint_steps,
            seconds=asked.checkpoint_seconds,
            resume=resume,
            keep=checkpoints.keep,
            stopping=lambda: self._termination.requested,
            between_steps=self._termination.deferred,
        )
        trained = train(
            conversations,
            base=self._loaded,
            settings=settings,
            report=lambda step: self._report_step(step, steps),
            parent=self._parent.folder if self._parent is not None else None,
            interruptions=interruptions,
            validation=[with_system_prompt(to_learn(line), self._system_prompt) for line in self._validation()],
            processes=Launcher(layout, work_dir=self._work) if layout.processes > 1 and steps.supervised else None,
        )
        lines = [line for line in dataset.lines if not line.is_pair]
        self._unlearned = frozenset(lines[place].digest for place in set(range(len(lines))) - trained.learned)
        if not pairs or checkpoints.preferences_learned:
            return trained
        trained = learn_preferences(
            trained,
            pairs,
            settings=settings,
            plan=Plan(steps=steps.preference, before=steps.supervised),
            report=lambda step: self._report_step(step, steps),
        )
        checkpoints.preferences_learned = True
        # Of the conversations' best epoch the weights aren't kept: these here went on from them.
        checkpoints.keep(
            checkpoint_of(trained.model, None, trained.losses, {**(trained.validation or {}), "best": None})
        )
        return trained

    def _layout(self, *, pairs: int) -> Layout:
        """Return how the training is laid out on the pod's GPUs, once it is said. Raises TrainerError."""
        asked = self._options
        layout = layout_of(
            asked.base_model, processes=asked.processes, sharding=asked.sharding, quantization=asked.quantization,
            on=devices(),
        )  # fmt: skip
        if pairs and needs_several(asked.base_model):
            raise BadData(
                f"the dataset has {pairs} preference pairs, which are learned on one GPU, and the base model fits on "
                "none of this pod. Take them out of the dataset, or use GPUs with more memory."
            )
        if layout.processes > 1:
            notes = {
                "idle": layout.processes - asked.batch_size if asked.batch_size < layout.processes else None,
                "preference_pairs": "learned by one process alone" if pairs else None,
                "switched_off": layout.switched_off or None,
            }
            say(
                event="layout", processes=layout.processes, sharded=layout.sharded, why=layout.why,
                **{name: value for name, value in notes.items() if value is not None},
            )  # fmt: skip
        return layout

    def _begin_curves(self, settings: Settings, dataset: Dataset, steps: Steps, layout: Layout) -> None:
        asked, parent = self._options, self._parent
        params = {
            **asdict(settings), "epochs": self._epochs, "steps": steps.total, "supervised_steps": steps.supervised,
            "lines": len(dataset.lines), "rehearsal_percent": asked.rehearsal_percent, "processes": layout.processes,
        }  # fmt: skip
        tags = {
            "twin": asked.twin, "dataset": dataset.digest, "base_model": self._base.name,
            "parent": parent.digest if parent is not None else "base",
        }  # fmt: skip
        self._tracking.begin(f"{asked.twin}/{asked.run}", params, tags)

    def _validation(self) -> tuple[Line, ...]:
        """Return the lines that were held back."""
        digest = self._state.validation
        data = self._ask(self._archive.dataset(digest)) if digest is not None else None
        return parse_lines(data, where="validation") if data is not None else ()

    def _settings(self, steps: Steps) -> Settings:
        asked = self._options
        rank = asked.rank or (self._parent.manifest.rank if self._parent is not None else Settings().rank)
        return Settings(
            rank=rank,
            alpha=asked.alpha or 2 * rank,
            steps=steps.supervised,
            batch_size=asked.batch_size,
            learning_rate=asked.learning_rate,
            preference_rate=asked.preference_rate,
            kl_weight=asked.kl_weight,
            method=asked.method,
            targets=asked.targets,
            quantization=asked.quantization,
            gradient_checkpointing=asked.gradient_checkpointing,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
        )

    def _report_step(self, step: Step, steps: Steps) -> None:
        if self._stepping is not None:
            stepping, self._stepping = self._stepping, None
            stepping()
        self._seconds["steps"] = self._supervised_seconds + step.seconds
        if step.number == step.of:
            self._supervised_seconds = step.seconds
        step = replace(step, of=steps.total)
        remaining = round(step.remaining_seconds)
        loss = round(1000 * step.loss)
        told = {"validation_loss": step.validation_loss, "distance": step.distance}
        measured = {name: value for name, value in told.items() if value is not None}
        self._tracking.step(step.number, loss=step.loss, **measured)
        self._progress.stage(
            RunStage.TRAIN,
            done=step.number,
            of=step.of,
            step=step.number,
            steps=step.of,
            remaining_seconds=remaining,
            loss_milli=loss,
            **{f"{name}_milli": round(1000 * value) for name, value in measured.items()},
        )
        say(
            event="step", step=step.number, steps=step.of, loss=round(step.loss, 4), remaining_seconds=remaining,
            **{name: round(value, 4) for name, value in measured.items()},
        )  # fmt: skip

    # Publish

    def _take_fingerprint(self, trained: Trained) -> Fingerprint:
        parent = self._parent.folder if self._parent is not None else None
        fingerprint, distance = take_fingerprint(trained, parent=parent)
        say(
            event="fingerprint",
            tokens=len(fingerprint.token_ids),
            nats_to_base=round(distance, 4),
            **margins(fingerprint.probes or ()),
        )
        return fingerprint

    def _publish(self, folder: Path, fingerprint: Fingerprint) -> None:
        dataset, known = self._dataset, self._known
        asked = self._options
        parent_digest = self._parent.digest if self._parent is not None else None
        manifest = describe(
            folder,
            base_model=self._base,
            fingerprint=fingerprint,
            lineage=Lineage(dataset_digest=dataset.digest, parent_digest=parent_digest, run=asked.run, seed=asked.seed),
        )
        manifest = self._intended(manifest)
        self._keep(manifest=manifest.to_bytes().decode())
        published = publish_described(folder, manifest, self._archive)
        record = LineageRecord(
            digest=published.digest,
            parent_digest=parent_digest,
            dataset_digest=dataset.digest,
            run=asked.run,
            seed=asked.seed,
            lines=tuple(sorted(known.lines | ({line.digest for line in dataset.lines} - self._unlearned))),
            questions=tuple(sorted(known.questions | dataset.question_digests)),
        )
        self._ask(self._archive.put_lineage(record))
        self._keep(
            artifact=ArtifactReport(
                uri=published.uri, digest=published.digest, rank=published.rank, bytes=published.size
            )
        )

    def _intended(self, manifest: AdapterManifest) -> AdapterManifest:
        """Return the manifest that an earlier attempt began to publish, if it is of the very same files.

        A fingerprint taken on another kind of machine differs in its last digits, and with it the adapter's digest.
        """
        if self._state.manifest is None:
            return manifest
        try:
            earlier = parse_manifest(self._state.manifest.encode(), uri=MANIFEST_FILE)
        except ManifestInvalid:
            return manifest
        return earlier if earlier.files == manifest.files else manifest

    # Afterwards

    def _clean_up(self, artifact: ArtifactReport) -> None:
        """Delete what nobody needs any more. What can't be deleted now is deleted after another run."""
        asked = self._options
        keep = [*asked.keep, artifact.digest, *([self._parent.digest] if self._parent is not None else [])]

        async def clean() -> tuple[str, ...]:
            await self._archive.drop_checkpoint(asked.run)
            if asked.history_limit is None:
                return ()
            return await self._archive.prune(keep=keep, history_limit=asked.history_limit)

        try:
            if deleted := asyncio.run(clean()):
                say(event="deleted", digests=deleted)
        except StoreError as error:
            log.warning("old adapters are not deleted: %s", error)

    def _keep(self, **fields: Any) -> None:
        self._state = self._state.model_copy(update=fields)
        self._ask(self._archive.put_state(self._options.run, self._state))

    @staticmethod
    def _ask(doing: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run(doing)
        except StoreError as error:
            raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error

    def _timed(self, name: str) -> _Timer:
        return _Timer(self._seconds, name)


class _Timer:
    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._begun
