"""`python -m neurons.examiner.adopting`: brings what a miner delivered for a task to where the examiner finds versions.

It trains nothing and needs no model. What is delivered is looked at as any adapter from elsewhere: its digest, every
file, the tensors, the base model, the parent that it was to begin from and the task that it was made for. Then come, by
addresses that the validator signed, what the miner was given and what no miner was. All of it lies by its digest, so
another attempt does nothing twice.

One JSON object is the last line on standard output; progress goes where a trainer's does. Exit status: 0 done, 1 failed
for good, 75 worth another try, 2 wrong arguments. `BadArtifact` and `NearCopy` are the miner's own fault; all else says
nothing of it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bettertherapy_api import names
from bettertherapy_api.manifest import AdapterManifest
from bettertherapy_api.run_progress import ArtifactReport, DatasetReport, LastWord, RunStage
from neurons.arguments import filled, filled_path
from neurons.examiner.copies import check_own_work
from neurons.store import (
    AdapterInvalid,
    ArtifactNotFound,
    DigestMismatch,
    FolderNotFound,
    ManifestInvalid,
    StoreError,
    WeightsNotFinite,
    fetch_adapter,
    publish_adapter,
)
from neurons.trainer.archive import Archive, LineageRecord
from neurons.trainer.arguments import add_progress, digest, name
from neurons.trainer.dataset import MAX_DATASET_BYTES, Dataset, parse_lines
from neurons.trainer.errors import BadArtifact, BadData, StoreFailed, TrainerError
from neurons.trainer.progress import Progress
from neurons.trainer.reporting import TERMINATION_LOG, TRY_AGAIN, failure_report, finish, progress_of_environment
from neurons.trainer.web_dataset import fetch, shown


def main(arguments: Sequence[str] | None = None, *, termination_log: Path = TERMINATION_LOG) -> int:
    """Adopt the version and return the exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with (
        progress_of_environment(configmap=options.progress_configmap) as progress,
        tempfile.TemporaryDirectory(dir=options.work_dir) as work,
    ):
        try:
            said = adopt(options, work=Path(work), progress=progress)
        except TrainerError as error:
            progress.tell(failure=failure_report(error))
            finish(LastWord(failure=failure_report(error)).model_dump(by_alias=True), termination_log)
            return TRY_AGAIN if error.retryable else 1
        finish(said, termination_log)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    program = argparse.ArgumentParser(
        prog="python -m neurons.examiner.adopting", description="Bring a delivered version to where it is examined."
    )
    add = program.add_argument
    add("--run", required=True, type=name, metavar="NAME", help="the FineTuneRun's name")
    add("--twin", required=True, type=name, metavar="NAME")
    add("--store", required=True, type=filled, metavar="URI", help="root of the adapter store")
    add("--base-model-name", required=True, type=filled, metavar="NAME", help="the pool's baseModel.name")
    add("--delivered", required=True, type=filled, metavar="URI", help="folder in which the miner's version lies")
    add("--adapter-digest", required=True, type=digest, metavar="sha256:…")
    add("--task", required=True, type=name, metavar="UUID", help="the task that it was made for")
    add("--parent-uri", type=filled, metavar="URI", help="where that is")
    add("--parent-digest", type=digest, metavar="sha256:…", help="what it was to begin from; absent: the base model")
    add("--dataset-uri", required=True, type=filled, metavar="URL", help="what the miner was given")
    add("--dataset-digest", required=True, type=digest, metavar="sha256:…")
    add(
        "--earlier", type=digest, action="append", default=[], metavar="sha256:…",
        help="a version that was reported before, and that this one must not be nearly; as often as it takes",
    )  # fmt: skip
    add("--held-out-uri", type=filled, metavar="URL", help="what no miner was given")
    add("--held-out-digest", type=digest, metavar="sha256:…")
    add_progress(program)
    add("--work-dir", type=filled_path, metavar="DIR", help="scratch space")
    return program


def adopt(
    options: argparse.Namespace, *, work: Path, progress: Progress, archive: Archive | None = None,
    loopback: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Adopt the version; returns what the last line says. Raises TrainerError. `loopback`: as in tests."""
    archive = archive or Archive(options.store, options.twin)
    progress.stage(RunStage.DATA)
    dataset = asyncio.run(_dataset(archive, options.dataset_uri, options.dataset_digest, loopback=loopback))
    if options.held_out_uri is not None and options.held_out_digest is not None:
        asyncio.run(_dataset(archive, options.held_out_uri, options.held_out_digest, loopback=loopback))
    uri = f"{archive.uri}/datasets/{names.digest_hex(options.dataset_digest)}.jsonl"
    report = DatasetReport(uri=uri, digest=options.dataset_digest, interactions=len(dataset.lines))
    progress.tell(dataset=report)
    progress.stage(RunStage.PUBLISH)
    artifact = asyncio.run(_adopted(options, archive, dataset, work))
    progress.tell(artifact=artifact)
    progress.stage(RunStage.DONE, remaining_seconds=None)
    return {"uri": artifact.uri, "digest": artifact.digest, "rank": artifact.rank, "bytes": artifact.bytes}


async def _adopted(
    options: argparse.Namespace, archive: Archive, dataset: Dataset, work: Path
) -> ArtifactReport:  # fmt: skip
    wanted: str = options.adapter_digest
    folder = work / names.digest_hex(wanted)

    async def get() -> AdapterManifest:
        return await fetch_adapter(
            options.delivered, wanted, folder, limits=archive.limits, pvc_dir=archive.pvc_dir
        )  # fmt: skip

    async def put(manifest: AdapterManifest) -> str:
        return await publish_adapter(
            folder, archive.store, archive.twin, manifest, limits=archive.limits, pvc_dir=archive.pvc_dir
        )

    try:
        manifest = await archive.patiently(get)
    except (DigestMismatch, ManifestInvalid, AdapterInvalid, WeightsNotFinite) as error:
        raise BadArtifact(f"what the miner delivered is not taken: {error.reason}: {error}") from error
    except (ArtifactNotFound, FolderNotFound) as error:
        raise StoreFailed(
            f"the miner delivered no adapter {wanted}, so there is nothing to examine ({options.delivered}).",
            retryable=False,
        ) from error
    except StoreError as error:
        raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
    _check(manifest, options)
    await check_own_work(options, archive, folder)
    try:
        uri = await archive.patiently(lambda: put(manifest))
        before = await archive.lineage(options.parent_digest) if options.parent_digest is not None else None
        await archive.put_lineage(
            LineageRecord(
                digest=wanted, parent_digest=options.parent_digest, dataset_digest=dataset.digest, run=options.run,
                seed=manifest.lineage.seed or 0,
                lines=tuple(sorted({line.digest for line in dataset.lines} | set(before.lines if before else ()))),
                questions=tuple(sorted(dataset.question_digests | set(before.questions if before else ()))),
            )
        )  # fmt: skip
    except StoreError as error:
        raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
    return ArtifactReport(uri=uri, digest=wanted, rank=manifest.rank, bytes=sum(entry.size for entry in manifest.files))


def _check(manifest: AdapterManifest, options: argparse.Namespace) -> None:
    """Raise BadArtifact for a version of another base model, another parent or another task."""
    lineage = manifest.lineage
    for what, said, expected in (
        ("base model", manifest.base_model.name, options.base_model_name),
        ("parent", lineage.parent_digest, options.parent_digest),
        ("run", lineage.run, f"task-{options.task}"),
    ):
        if said != expected:
            raise BadArtifact(
                f"the delivered adapter's manifest names the {what} {said or 'none'}, and the task's is "
                f"{expected or 'none'}: it is another's version."
            )
    if options.adapter_digest == options.parent_digest:
        raise BadArtifact("what was delivered is the version that the task began from.")


async def _dataset(archive: Archive, uri: str, wanted: str, *, loopback: bool) -> Dataset:
    """Return the dataset, put into the archive; from there where it is already. Raises TrainerError."""
    try:
        data = await archive.dataset(wanted)
        if data is None:
            data = await archive.patiently(lambda: fetch(uri, at_most=MAX_DATASET_BYTES, loopback=loopback))
        if "sha256:" + hashlib.sha256(data).hexdigest() != wanted:
            raise BadData(f"{shown(uri)}: the gateway gives another dataset than {wanted}.")
        await archive.put_dataset(data)
    except StoreError as error:
        raise StoreFailed(f"{error.reason}: {error}", retryable=error.retryable) from error
    return Dataset(lines=parse_lines(data, where=shown(uri)), refused={}, digest=wanted)


if __name__ == "__main__":
    sys.exit(main())
