"""Learn the second look's weights from labelled messages: `python -m neurons.emergency.training SETS [--estimate]`.

For developers; needs scipy, which no gateway has. The same messages give the same weights: nothing in it is random.
Thresholds are set across authors: what is learned from all others says what each message of an author scores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize

from neurons.conversation import text_of
from neurons.emergency.assessing import PLAIN, overruled, rules_alone, seen_in, sentences_with_rules, words_in
from neurons.emergency.classifier import KIND_SIZE, Weights, kind_places
from neurons.emergency.features import SIZE, Group, Places, whole
from neurons.emergency.kinds import Kind

AUTHORS: Final = ("training-a", "training-b", "training-c", "training-f", "training-g", "training-h", "training-i")
"""Sets whose authors knew nothing of the rules: what estimates are made of."""
BESIDE: Final = ("training-d", "training-j", "development", "test", "second", "unseen", "unseen-after")
"""Further sets to learn from. Never `blind` or `blind-two`: they are what the whole is measured with."""
AFTER: Final = ("training-e",)
"""Written with the errors on the authors' sets in view: learned from in the end, and never for an estimate."""
STRENGTH: Final = 10.0
"""C of the regression; by trying 3, 10 and 30 across authors, which differ little."""
SHARES: Final = {Group.WORDS: 1.0, Group.LETTERS: 1.0, Group.STRETCHES: 1.0, Group.CONCEPTS: 0.5}
"""What groups weigh; the list's concepts less, for the list was mended by some of the sets."""
MOST_FALSE: Final = 0.09
"""False alarms across authors that thresholds allow. Most of these authors' messages that are none resemble one."""
SECONDED: Final = 1.0
"""By so much less than the threshold a score may be where a rule matches."""
LEAST_TELLING: Final = 0.5
"""What a feature counts at least that both sorts have equally often; 0.25 found as much across authors."""
KIND_STRENGTH: Final = 40.0
"""The same C where kinds are told apart."""
_WEIGHTS: Final = Path(__file__).with_name("weights.npz")

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Messages:
    """Labelled messages as matrices: a row a message."""

    authors: npt.NDArray[np.str_]
    languages: npt.NDArray[np.str_]
    styles: npt.NDArray[np.str_]
    kinds: Sequence[frozenset[Kind]]
    are_emergencies: Flags
    rules: Sequence[Mapping[str, Kind]]
    """What matches each by itself."""
    words: Sequence[int]
    features: Any
    """Groups side by side, SIZE columns each; a row of each has the length of its share."""
    sentences: Any
    """The same of sentences in which a rule matches by itself."""
    sentence_of: npt.NDArray[np.int64]
    """The rows of their messages."""
    for_kinds: Any


@dataclass(frozen=True, slots=True)
class Scored:
    """What messages score."""

    whole: Scores
    best: Scores
    """The message's, or that of a sentence in which a rule matches, whichever is more."""

    @classmethod
    def by(cls, messages: Messages, weights: Scores, bias: float) -> Scored:
        """Return what messages score by these weights."""
        whole = messages.features @ weights + bias
        best = whole.copy()
        np.maximum.at(best, messages.sentence_of, messages.sentences @ weights + bias)
        return cls(whole, best)


def read(folder: Path, names: Sequence[str]) -> Messages:
    """Read sets. Of conversations nothing is learned: what they tell isn't in their newest message alone."""
    rows = []
    for name in names:
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if len(row["messages"]) == 1:
                rows.append((name, row))
    texts = [text_of(row["messages"][0]) for _, row in rows]
    seen = [seen_in(text) for text in texts]
    found = [whole(each) for each in seen]
    telling = [sentences_with_rules(text) for text in texts]
    kinds = [frozenset(Kind(each) for each in row["kinds"]) for _, row in rows]
    return Messages(
        authors=np.array([name for name, _ in rows]),
        languages=np.array([row["language"] for _, row in rows]),
        styles=np.array([row["style"] for _, row in rows]),
        kinds=kinds,
        are_emergencies=np.array([bool(each) for each in kinds]),
        rules=[rules_alone(text) for text in texts],
        words=[words_in(each) for each in seen],
        features=_features(found),
        sentences=_features([whole([sentence]) for each in telling for sentence in each]),
        sentence_of=np.repeat(np.arange(len(rows)), [len(each) for each in telling]),
        for_kinds=_matrix([kind_places(each) for each in found], KIND_SIZE),
    )


def _features(found: Sequence[Mapping[Group, Places]]) -> Any:
    return sparse.hstack(
        [share * _matrix([each[group] for each in found], SIZE) for group, share in SHARES.items()], format="csr"
    )


def _matrix(places: Sequence[Places], size: int) -> Any:
    """Return rows of length 1 that have the same number at each of their places."""
    ends = np.cumsum([0, *(len(each) for each in places)])
    values = np.concatenate([np.full(len(each), max(1, len(each)) ** -0.5) for each in places])
    return sparse.csr_array((values, np.concatenate(places), ends), shape=(len(places), size))


def learn(features: Any, labels: Flags) -> tuple[Scores, float]:
    """Return the weights and the bias of a logistic regression that holds back least what tells most.

    As Wang and Manning's NB-SVM (2012) does: a feature is scaled by how much oftener it is in messages of one sort,
    and shares STRENGTH with it.
    """
    used = np.unique(features.indices)
    telling = _telling(features[:, used], labels)
    features = sparse.csr_array(features[:, used] @ sparse.diags_array(telling))
    across = features.T.tocsr()
    sign = np.where(labels, 1.0, -1.0)

    def loss(weights: Scores) -> tuple[float, Scores]:
        margin = sign * (features @ weights[:-1] + weights[-1])
        pull = -sign / (1 + np.exp(np.clip(margin, -60, 60)))
        value = STRENGTH * np.logaddexp(0, -margin).sum() + 0.5 * weights[:-1] @ weights[:-1]
        return float(value), np.append(STRENGTH * (across @ pull) + weights[:-1], STRENGTH * pull.sum())

    found = minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights = np.zeros(len(SHARES) * SIZE)
    weights[used] = found.x[:-1] * telling
    return weights, float(found.x[-1])


def _telling(features: Any, labels: Flags) -> Scores:
    """Return of each column how unequally often it is set in both sorts of messages, 1 about the middle."""
    is_set = sparse.csr_array((np.ones(len(features.data)), features.indices, features.indptr), shape=features.shape)
    shares = [(is_set[which].sum(axis=0) + 1.0) for which in (labels, ~labels)]
    first, second = (np.asarray(each).ravel() / each.sum() for each in shares)
    ratios: Scores = np.abs(np.log(first / second))
    scaled: Scores = ratios / np.sqrt((ratios**2).mean())
    return LEAST_TELLING + (1 - LEAST_TELLING) * scaled


def _learn_kinds(features: Any, kinds: Sequence[frozenset[Kind]], known: Sequence[Kind]) -> tuple[Scores, Scores]:
    """Return a row of weights and a bias a kind, of a logistic regression over all kinds of emergencies."""
    wanted = np.array([[kind in each for kind in known] for each in kinds], dtype=np.float64)
    wanted /= wanted.sum(axis=1, keepdims=True)
    across, shape = features.T.tocsr(), (features.shape[1] + 1, len(known))

    def loss(flat: Scores) -> tuple[float, Scores]:
        weights = flat.reshape(shape)
        scores = features @ weights[:-1] + weights[-1]
        scores -= scores.max(axis=1, keepdims=True)
        likely = np.exp(scores)
        total = likely.sum(axis=1, keepdims=True)
        value = KIND_STRENGTH * (wanted * (np.log(total) - scores)).sum() + 0.5 * (weights[:-1] ** 2).sum()
        pull = KIND_STRENGTH * (likely / total - wanted)
        return float(value), np.vstack([across @ pull + weights[:-1], pull.sum(axis=0)]).ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 60}).x.reshape(
        shape
    )
    return found[:-1].T, found[-1]


def across_authors(messages: Messages) -> Scored:
    """Return what each message of AUTHORS scores by what is learned from all others; nan of other sets' messages."""
    scores = Scored(*(np.full(len(messages.authors), np.nan) for _ in range(2)))
    for author in AUTHORS:
        own = messages.authors == author
        found = Scored.by(messages, *learn(messages.features[~own], messages.are_emergencies[~own]))
        scores.whole[own], scores.best[own] = found.whole[own], found.best[own]
    return scores


def alarms(messages: Messages, scores: Scored, threshold: float) -> Flags:
    """Return which messages raise an alarm, each a conversation of its own."""
    rated = np.where(scores.best >= threshold + PLAIN, scores.best, scores.whole)
    kept = [
        len(rules) > len(overruled(rules, score=score, seconding=threshold - SECONDED, words=words))
        for rules, score, words in zip(messages.rules, rated.tolist(), messages.words, strict=True)
    ]
    found: Flags = (scores.whole >= threshold) | np.array(kept)
    return found


def threshold_of(messages: Messages, scores: Scored) -> float:
    """Return the least threshold, in tenths, that raises no more than MOST_FALSE among AUTHORS' messages."""
    none = np.isin(messages.authors, AUTHORS) & ~messages.are_emergencies
    fitting = (each / 10 for each in range(-40, 60) if alarms(messages, scores, each / 10)[none].mean() <= MOST_FALSE)
    return next(fitting)


def trained(messages: Messages, threshold: float) -> Weights:
    """Return the weights that are learned from all messages."""
    weights, bias = learn(messages.features, messages.are_emergencies)
    rows, scales = {}, {}
    for place, (group, share) in enumerate(SHARES.items()):
        rows[group], scales[group] = _as_bytes(share * weights[place * SIZE : (place + 1) * SIZE])
    known = tuple(kind for kind in Kind if any(kind in each for each in messages.kinds))
    which = np.flatnonzero(messages.are_emergencies).tolist()
    kind_weights, kind_biases = _learn_kinds(messages.for_kinds[which], [messages.kinds[each] for each in which], known)
    kind_rows, kind_scale = _as_bytes(kind_weights)
    return Weights(
        rows=rows,
        scales=scales,
        bias=bias,
        threshold=threshold,
        seconding=threshold - SECONDED,
        kinds=known,
        kind_rows=kind_rows,
        kind_scale=kind_scale,
        kind_biases=kind_biases.astype(np.float32),
    )


def _as_bytes(weights: Scores) -> tuple[npt.NDArray[np.int8], float]:
    scale = float(np.abs(weights).max()) / 127
    return np.round(weights / scale).astype(np.int8), scale


def estimate(messages: Messages, scores: Scored, threshold: float) -> str:
    """Return a table: what is found of each author's messages by what was learned from the others'."""
    ours = np.isin(messages.authors, AUTHORS)
    found = alarms(messages, scores, threshold)
    have_rules = np.array([bool(rules) for rules in messages.rules])
    lines = [f"threshold {threshold:.1f}; recall and false alarms, and in brackets the rules' alone"]
    for label, which in (
        ("all", ours),
        *((author, messages.authors == author) for author in AUTHORS),
        *((language, ours & (messages.languages == language)) for language in ("en", "ne-Latn", "ne")),
        *((style, ours & (messages.styles == style)) for style in ("direct", "indirect", "hard")),
    ):
        shares = []
        for those in (which & messages.are_emergencies, which & ~messages.are_emergencies):
            if those.any():
                shares.append(
                    f"{found[those].sum()} of {those.sum()} {found[those].mean():.1%} ({have_rules[those].mean():.1%})"
                )
        lines.append(f"{label}: {', '.join(shares)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write weights.npz, and with --estimate what is found across authors."""
    parser = argparse.ArgumentParser(prog="python -m neurons.emergency.training", description=__doc__)
    parser.add_argument("sets", type=Path, help="the folder of the labelled messages, tests/unit/emergency/sets")
    parser.add_argument("--estimate", action="store_true", help="print what is found across authors")
    given = parser.parse_args(arguments)
    before = read(given.sets, (*AUTHORS, *BESIDE))
    scores = across_authors(before)
    threshold = threshold_of(before, scores)
    if given.estimate:
        sys.stdout.write(estimate(before, scores, threshold) + "\n")
    weights = trained(read(given.sets, (*AUTHORS, *BESIDE, *AFTER)), threshold)
    with _WEIGHTS.open("wb") as stream:
        weights.write(stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
