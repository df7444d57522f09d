"""Evaluation set and the platform's safety items: read from the store, held against what the twin was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

from neurons.scoring import ItemError
from neurons.scoring.benchmarks import read_set
from neurons.scoring.contrasts import Contrast, parse_contrasts, safety_contrasts
from neurons.scoring.healthbench import Asked
from neurons.scoring.items import MAX_BYTES
from neurons.store import ArtifactNotFound, open_store
from neurons.trainer.archive import Archive
from neurons.trainer.errors import BadData

_NAMED_IDS: Final = 20


async def read_items(uri: str, digest: str | None, *, archive: Archive) -> tuple[tuple[Asked, ...], str]:
    """Read the twin's evaluation set; return its items and its digest.

    Raises BadData for one that is missing, changed or malformed, and StoreError.
    """
    data = await _read(uri, "evaluation set", "gate.evalSetRef", archive=archive)
    actual = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest is not None and actual != digest:
        raise BadData(
            f"{uri}: the evaluation set's digest is {actual}, expected {digest}. Set gate.evalSetRef.digest to that of "
            "the file that you reviewed."
        )
    try:
        items = read_set(data)
    except ItemError as error:
        raise BadData(f"{uri}: {str(error).removesuffix('.')}. Correct the evaluation set.") from error
    if not items:
        raise BadData(f"{uri}: the evaluation set is empty. Add items.")
    return items, actual


async def read_safety(uri: str, digest: str | None, *, archive: Archive) -> tuple[Contrast, ...]:
    """Read the safety items of the platform's own. Raises BadData, without a word of theirs, and StoreError."""
    data = await _read(uri, "safety set", "the MinerPool's fineTune.safetySetRef", archive=archive)
    try:
        items = parse_contrasts(data, digest=digest)
    except ItemError as error:
        raise BadData(f"{uri}: {error}. Correct what the MinerPool's fineTune.safetySetRef names.") from error
    own = safety_contrasts()
    if twice := sorted({each.id for each in own} & {each.id for each in items}):
        raise BadData(
            f"{uri}: {len(twice)} ids of it are those of the product's own safety items, as {twice[0]}. Give them "
            "others."
        )
    return items


async def _read(uri: str, what: str, field: str, *, archive: Archive) -> bytes:
    folder, _, name = uri.rpartition("/")
    try:
        location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
        data = await location.read(name, at_most=MAX_BYTES)
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    if data is None:
        raise BadData(f"{uri}: there is no {what}. Check {field}.uri.")
    return data


def check_held_out(items: Sequence[Asked], trained_questions: Collection[str]) -> None:
    """Raise BadData, with ids, for items whose question is trained on: they would measure memory."""
    overlap = [item.id for item in items if item.question_digest in trained_questions]
    if overlap:
        told = ", ".join(overlap[:_NAMED_IDS]) + (" and more" if len(overlap) > _NAMED_IDS else "")
        raise BadData(
            f"{len(overlap)} items of the evaluation set are questions of what this twin was trained on: {told}. Take "
            "them out of the evaluation set."
        )
