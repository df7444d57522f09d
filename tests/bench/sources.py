"""Local retrieval: the right text among the first k by BM25, and what a search takes, on two public files.

PubMedQA: its questions to its own contexts. MedQuAD: its questions to titles and answers; questions are not
indexed, since they follow a pattern. The files are not in this repository; BETTERTHERAPY_DATA names their folder.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from neurons.sources.corpus import Corpus
from neurons.sources.documents import Document
from neurons.sources.index import Index
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread, percentile

SEED: Final = 13
QUESTIONS: Final = 500
RECALLS: Final = (1, 5, 10)


def measure(options: Options) -> Result:
    """Measure."""
    folder = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data"))
    if not (folder / "pubmedqa.json").is_file() or not (folder / "medquad.jsonl.gz").is_file():
        raise BenchmarkError(
            f"{folder} has no pubmedqa.json and medquad.jsonl.gz; name their folder in BETTERTHERAPY_DATA"
        )
    figures: list[Figure] = []
    for subject, (documents, questions) in (("PubMedQA", _pubmedqa(folder)), ("MedQuAD", _medquad(folder))):
        figures += _measured(subject, documents, questions)
    return Result(
        name="sources",
        title="Medical sources on disk",
        how=(
            "BM25 (bm25s) with the words of neurons.sources.tokens. PubMedQA: 500 questions to the contexts of the "
            f"same 500 papers, without titles. MedQuAD: {QUESTIONS} questions drawn by the seed {SEED} to 16,407 "
            "titles and answers; an answer with the same title and text counts as the right one."
        ),
        figures=tuple(figures),
        notes=(),
    )


def _measured(subject: str, documents: Sequence[Document], questions: Sequence[tuple[str, int]]) -> list[Figure]:
    begun = time.process_time()
    index = Index.build(Corpus(f"sha256:{'0' * 64}", tuple(documents), (), 0))
    built = time.process_time() - begun
    ranks, samples = [], []
    for question, right in questions:
        begun = time.thread_time()
        hits = index.search(question, limit=max(RECALLS))
        samples.append((time.thread_time() - begun) * 1000)
        same = (documents[right].title, documents[right].text)
        ranks.append(next((rank for rank, hit in enumerate(hits, start=1)
                           if (documents[hit.place].title, documents[hit.place].text) == same), None))  # fmt: skip
    found = [
        Figure(subject=subject, figure=f"right text among the first {k} (of {len(ranks)})", unit="%", digits=1,
               spread=Spread.of([100 * sum(rank is not None and rank <= k for rank in ranks) / len(ranks)]))
        for k in RECALLS
    ]  # fmt: skip
    return [
        *found,
        Figure(subject=subject, figure="processor time of one search", unit="ms", spread=Spread.of(samples), digits=2,
               p99=percentile(samples, 99)),
        Figure(subject=subject, figure=f"processor time of indexing {len(documents)} texts", unit="s", digits=1,
               spread=Spread.of([built])),
    ]  # fmt: skip


def _pubmedqa(folder: Path) -> tuple[list[Document], list[tuple[str, int]]]:
    rows = json.loads((folder / "pubmedqa.json").read_text())
    documents = [Document(id=key, title="", text="\n".join(row["CONTEXTS"])) for key, row in rows.items()]
    return documents, [(row["QUESTION"], place) for place, row in enumerate(rows.values())]


def _medquad(folder: Path) -> tuple[list[Document], list[tuple[str, int]]]:
    with gzip.open(folder / "medquad.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    documents = [Document(id=row["question_id"], title=row["focus"], text=row["answer"]) for row in rows]
    asked = random.Random(SEED).sample(range(len(rows)), QUESTIONS)
    return documents, [(rows[place]["question"], place) for place in asked]
