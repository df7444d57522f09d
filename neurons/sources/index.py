"""A corpus' BM25 index: the same for the same corpus, wherever and whenever it is built, and kept by its digest."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bm25s
import numpy as np

from neurons.sources.corpus import Corpus
from neurons.sources.tokens import RECIPE, tokens

K1: Final = 1.5
B: Final = 0.75
_SUMS: Final = "digests.json"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document by its place in the corpus, and its BM25 score."""

    place: int
    score: float


class Index:
    """What a corpus is searched by."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @classmethod
    def build(cls, corpus: Corpus) -> Index:
        """Build it from titles and texts; `make bench BENCH_ARGS=sources` tells what that takes."""
        vocabulary: dict[str, int] = {}
        ids = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in tokens(f"{each.title}\n{each.text}")]
            for each in corpus.documents
        ]
        if not vocabulary:
            vocabulary[""] = 0  # a corpus without a word is searched in vain, and breaks nothing
            ids[0] = [0]
        engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        engine.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(engine)

    def search(self, claim: str, *, limit: int) -> Sequence[Hit]:
        """Return the likest documents; of those with equal scores the earlier in the corpus."""
        asked = self._engine.get_tokens_ids(list(dict.fromkeys(tokens(claim))))
        if not asked:
            return ()
        scores = self._engine.get_scores_from_ids(asked)
        found = np.flatnonzero(scores > 0)
        if len(found) > limit:
            # all that are as good as the last one taken, so that equals are told apart by their place, not by chance
            least = np.partition(scores[found], -limit)[-limit]
            found = found[scores[found] >= least]
        order = np.lexsort((found, -scores[found]))[:limit]
        return tuple(Hit(int(found[each]), float(scores[found[each]])) for each in order)

    def save(self, folder: Path) -> None:
        """Write it to a folder that isn't there yet, whole or not at all."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            self._engine.save(partial, show_progress=False)
            (partial / _SUMS).write_text(json.dumps(_sums(partial), sort_keys=True))
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Index | None:
        """Read one that was saved; None when there is none, or when it isn't as it was written."""
        try:
            if json.loads((folder / _SUMS).read_text()) != _sums(folder):
                return None
            return cls(bm25s.BM25.load(folder, show_progress=False))
        except (OSError, ValueError, KeyError):
            return None


def index_of(corpus: Corpus, *, cache: Path | None) -> Index:
    """Return a corpus' index, from the cache or built anew and kept there. A cache that can't be written is none."""
    if cache is None:
        return Index.build(corpus)
    recipe = f"{RECIPE} {bm25s.__version__} lucene {K1} {B}"
    name = hashlib.sha256(f"{corpus.digest}\n{recipe}".encode()).hexdigest()
    folder = cache / name
    if (kept := Index.load(folder)) is not None:
        return kept
    built = Index.build(corpus)
    try:
        shutil.rmtree(folder, ignore_errors=True)  # one that wasn't as it was written
        built.save(folder)
    except OSError as error:
        _log.warning("an index couldn't be kept in %s (%s); it is built anew at each start", cache, error.strerror)
    return built


def _sums(folder: Path) -> dict[str, str]:
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.iterdir())
        if each.name != _SUMS and each.is_file()
    }
