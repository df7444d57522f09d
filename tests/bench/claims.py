"""Claims with known truth against the source that they cite: what the check says of them, beside similarity's guess.

Half of the claims are wrong, each against the same quotation as its right twin. Without a judge the check says nothing
of a claim that isn't a sentence of its source; with one (`--judge URL --judge-model NAME`) its graders are calibrated
first, as in a round. The baseline calls a claim supported that is as like its quotation as right ones are.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy

from bettertherapy_api.round_progress import OrderedJudge
from neurons.lessons.embedding import EmbedderMissing
from neurons.lessons.model import load_embedder
from neurons.scoring.facts import Cited, Standing, check_fact
from neurons.scoring.judge import Panel
from neurons.sources.corpus import digest_of_corpus
from neurons.sources.local import LocalCorpus
from neurons.validator.rounds.judging import open_panel, seats_of
from tests.bench.registry import BenchmarkError, Options
from tests.bench.results import Figure, Result, Spread

CLAIMS: Final = Path(__file__).with_name("claims.jsonl")
RESAMPLES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, and whether its quotation supports it."""

    pair: str
    text: str
    supported: bool
    quote: str


def measure(options: Options) -> Result:
    """Check all claims."""
    claims = read_claims()
    told = asyncio.run(_told(claims, options))
    right = sum(each.supported for each in claims)
    figures = [
        *(_figures("the check, by a calibrated judge", claims, told.judged) if told.judged else ()),
        *_figures("the check, without a judge", claims, told.unjudged),
        _count("the check, without a judge", "sentences of the sources, as claims: supported", told.sentences, right),
        *_figures("similarity of claim and quotation", claims, similar(claims)),
    ]
    return Result(
        name="claims",
        title="Claims against the source that they cite",
        how=f"{len(claims)} claims written for this project, half of them wrong, each beside the words of MedlinePlus "
        "that tell (tests/bench/claims.jsonl). Balanced accuracy: the mean of right claims called supported and wrong "
        "ones not called so, with a bootstrap of whole pairs. Similarity: cosine of bge-small's embeddings, above the "
        "bound that is best on all other pairs.",
        figures=tuple(figures),
        notes=(
            "Many of the wrong claims use other words than their quotation, which is what similarity sees: it calls "
            "supported what denies a quotation in its own words.",
            *(() if told.judged else (
                "No judge was named, and no model that packages carry can judge: what a judge adds is not measured.",
            )),
        ),
        command='make bench BENCH_ARGS="claims --judge URL --judge-model NAME"',
    )  # fmt: skip


def read_claims() -> list[Claim]:
    """Return the claims."""
    rows = [json.loads(line) for line in CLAIMS.read_text().splitlines()]
    return [
        Claim(each["id"].rpartition("-")[0], each["claim"], bool(each["supported"]), each["source"]["quote"])
        for each in rows
    ]


@dataclass(frozen=True, slots=True)
class _Told:
    unjudged: list[Standing]
    judged: list[Standing] | None
    sentences: int


async def _told(claims: Sequence[Claim], options: Options) -> _Told:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quotes.jsonl"
        quotes = list(dict.fromkeys(each.quote for each in claims))
        path.write_text(
            "".join(json.dumps({"id": f"q{n}", "title": "quote", "text": q}) + "\n" for n, q in enumerate(quotes))
        )
        corpus = await LocalCorpus.open(
            path, digest=digest_of_corpus(path), name="corpus", licence="as its source says"
        )
        places = {each.text: each for each in corpus.corpus.documents}

        async def check(text: str, quote: str, judge: Panel | None) -> Standing:
            citation = corpus._passage(places[quote], 0.0).cite()
            cited = Cited(claim=text, citation=citation, quote=quote)
            return (await check_fact(cited, sources={"corpus": corpus}, judge=judge, seconds=300)).standing

        async def all_of(judge: Panel | None) -> list[Standing]:
            return [await check(each.text, each.quote, judge) for each in claims]

        judged = None
        if options.judge:
            seats = seats_of(OrderedJudge(endpoint=options.judge, model=options.judge_model), key=None)
            panel, _ = await open_panel(seats, kept=(), finder=None)  # nothing here is of a patient
            if panel is None:
                raise BenchmarkError("the judge did not pass its calibration, so it may not count")
            judged = await all_of(panel)
            await panel.close()
        whole = [await check(each.quote, each.quote, None) for each in claims if each.supported]
        return _Told(await all_of(None), judged, sum(each is Standing.SUPPORTED for each in whole))


def similar(claims: Sequence[Claim]) -> list[Standing]:
    """Return what similarity alone says of each claim. Raises BenchmarkError without its model."""
    try:
        embedder = load_embedder()
    except EmbedderMissing as error:
        raise BenchmarkError(str(error)) from None
    one = embedder.embed([each.text for each in claims])
    alike = (one * embedder.embed([each.quote for each in claims])).sum(axis=1)
    truth = numpy.array([each.supported for each in claims])
    pairs = numpy.array([each.pair for each in claims])
    said = []
    for value, pair in zip(alike, pairs, strict=True):
        others = pairs != pair
        bounds = numpy.unique(alike[others])
        accuracies = [
            (alike[others & truth] >= each).mean() + (alike[others & ~truth] < each).mean() for each in bounds
        ]
        bound = bounds[int(numpy.argmax(accuracies))]
        said.append(Standing.SUPPORTED if value >= bound else Standing.UNCHECKED)
    return said


def balanced(claims: Sequence[Claim], said: Sequence[Standing]) -> float:
    """Return the mean of right claims that are called supported and of wrong ones that are not, in percent."""
    right = [got is Standing.SUPPORTED for each, got in zip(claims, said, strict=True) if each.supported]
    wrong = [got is not Standing.SUPPORTED for each, got in zip(claims, said, strict=True) if not each.supported]
    return 50 * (sum(right) / len(right) + sum(wrong) / len(wrong))


def _interval(claims: Sequence[Claim], said: Sequence[Standing]) -> tuple[float, float]:
    draw = numpy.random.default_rng(13)
    pairs = sorted({each.pair for each in claims})
    hits = {pair: [0.0, 0.0] for pair in pairs}
    for each, got in zip(claims, said, strict=True):
        hits[each.pair][not each.supported] = float((got is Standing.SUPPORTED) == each.supported)
    table = numpy.array([hits[pair] for pair in pairs])
    means = [50 * table[draw.integers(0, len(pairs), len(pairs))].mean(axis=0).sum() for _ in range(RESAMPLES)]
    low, high = numpy.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _figures(who: str, claims: Sequence[Claim], said: Sequence[Standing]) -> list[Figure]:
    low, high = _interval(claims, said)
    value = balanced(claims, said)
    wrong = Counter(got for each, got in zip(claims, said, strict=True) if not each.supported)
    half = len(claims) // 2
    accuracy = Figure(
        subject=who, figure=f"balanced accuracy; 95% interval {low:.0f} to {high:.0f}", unit="%", digits=1,
        spread=Spread.of([value]),
    )  # fmt: skip
    return [
        accuracy,
        _count(
            who, "claims that it says something of", sum(got is not Standing.UNCHECKED for got in said), len(claims)
        ),
        _count(who, "wrong claims called supported", wrong[Standing.SUPPORTED], half),
    ]


def _count(who: str, what: str, value: int, of: int) -> Figure:
    return Figure(subject=who, figure=f"{what} (of {of})", unit="", digits=0, spread=Spread.of([float(value)]))
