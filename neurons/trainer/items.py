"""The twin's own evaluation set: read from the store, and held against what the twin was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

from neurons.scoring import ItemError
from neurons.scoring.benchmarks import read_set
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
    folder, _, name = uri.rpartition("/")
    try:
        location = open_store(folder, limits=archive.limits, pvc_dir=archive.pvc_dir)
        data = await location.read(name, at_most=MAX_BYTES)
    except ArtifactNotFound as error:
        raise BadData(f"{uri}: {error}") from error
    if data is None:
        raise BadData(f"{uri}: there is no evaluation set. Check gate.evalSetRef.uri.")
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


def check_held_out(items: Sequence[Asked], trained_questions: Collection[str]) -> None:
    """Raise BadData, with ids, for items whose question is trained on: they would measure memory."""
    overlap = [item.id for item in items if item.question_digest in trained_questions]
    if overlap:
        told = ", ".join(overlap[:_NAMED_IDS]) + (" and more" if len(overlap) > _NAMED_IDS else "")
        raise BadData(
            f"{len(overlap)} items of the evaluation set are questions of what this twin was trained on: {told}. Take "
            "them out of the evaluation set."
        )
