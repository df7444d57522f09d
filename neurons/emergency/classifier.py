"""The second look at a message: whether it tells of an emergency in words that the list doesn't have.

A linear model over hashed features, learned from labelled messages (`python -m neurons.emergency.training`). Its
weights are numbers alone (weights.npz, read without pickle); a message takes some tenths of a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, BinaryIO, Final, cast
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from neurons.emergency.features import SIZE, Group, Places, Seen, windows
from neurons.emergency.kinds import Kind

NAME: Final = "classifier"
"""Stands among the rules that matched."""
KIND_SIZE: Final = 1 << 13
"""Of a row of a kind's weights; features are folded into it."""
KIND_GROUPS: Final = (Group.WORDS, Group.CONCEPTS)
_LIKELY: Final = 0.3
"""A kind's advice is shown from this likelihood among all kinds; below, what holds for any."""
_CRISIS: Final = 0.2
"""A crisis line is offered sooner than other advice."""
_CRISES: Final = (Kind.SUICIDE, Kind.SELF_HARM)

Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


class WeightsError(Exception):
    """The weights aren't what this version reads."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model makes of a message."""

    score: float
    """The logarithm of the odds, by the training's messages, that it is an emergency."""
    kinds: tuple[Kind, ...]
    """The likely ones, if it is one by the score alone; `Kind.OTHER` when none stands out."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What was learned: small whole numbers, and what one of them counts."""

    rows: Mapping[Group, Bytes]
    """Of each group SIZE weights."""
    scales: Mapping[Group, float]
    bias: float
    threshold: float
    """The score from which it is an alarm by itself."""
    seconding: float
    """The score from which it is one where a rule matches; below, the rule took something else for an emergency."""
    kinds: tuple[Kind, ...]
    kind_rows: Bytes
    """A row of KIND_SIZE a kind."""
    kind_scale: float
    kind_biases: Floats

    @classmethod
    def read(cls, stream: BinaryIO) -> Weights:
        """Read what `write` wrote; raises WeightsError."""
        try:
            with np.load(stream, allow_pickle=False) as parts:
                found = {name: parts[name] for name in parts.files}
            weights = cls(
                rows={group: found[f"row_{group}"] for group in Group},
                scales={group: float(found[f"scale_{group}"]) for group in Group},
                bias=float(found["bias"]),
                threshold=float(found["threshold"]),
                seconding=float(found["seconding"]),
                kinds=tuple(Kind(each) for each in found["kinds"].tolist()),
                kind_rows=found["kind_rows"],
                kind_scale=float(found["kind_scale"]),
                kind_biases=found["kind_biases"],
            )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise WeightsError(f"the classifier's weights can't be read: {error}") from None
        if any(row.shape != (SIZE,) or row.dtype != np.int8 for row in weights.rows.values()):
            raise WeightsError(f"the classifier's weights aren't rows of {SIZE} bytes")
        if weights.kind_rows.shape != (len(weights.kinds), KIND_SIZE) or weights.kind_rows.dtype != np.int8:
            raise WeightsError(f"the classifier's weights of kinds aren't rows of {KIND_SIZE} bytes")
        return weights

    def write(self, stream: BinaryIO) -> None:
        """Write them as a compressed npz."""
        parts: dict[str, Any] = {f"row_{group}": self.rows[group] for group in Group}
        parts |= {f"scale_{group}": np.float64(self.scales[group]) for group in Group}
        np.savez_compressed(
            stream, bias=np.float64(self.bias), threshold=np.float64(self.threshold),
            seconding=np.float64(self.seconding), kinds=np.array([each.value for each in self.kinds]),
            kind_rows=self.kind_rows, kind_scale=np.float64(self.kind_scale), kind_biases=self.kind_biases, **parts,
        )  # fmt: skip


class Classifier:
    """Scores messages by weights."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def opinion(self, seen: Sequence[Seen]) -> Opinion:
        """Return what is made of the stretch of a message that scores highest."""
        score, features = max(((self.score(each), each) for each in windows(seen)), key=lambda each: each[0])
        return Opinion(score, self._kinds(features) if score >= self.weights.threshold else ())

    def score(self, features: Mapping[Group, Places]) -> float:
        """Return the logarithm of the odds that features are an emergency's."""
        known = self.weights
        found = known.bias
        for group, places in features.items():
            if len(places):
                total = int(known.rows[group][places].sum(dtype=np.int64))
                found += known.scales[group] * total / len(places) ** 0.5
        return found

    def _kinds(self, features: Mapping[Group, Places]) -> tuple[Kind, ...]:
        known = self.weights
        scores = known.kind_biases.astype(np.float64)
        places = kind_places(features)
        scores += known.kind_scale * known.kind_rows[:, places].sum(axis=1, dtype=np.int64) / max(1, len(places)) ** 0.5
        odds = np.exp(scores - scores.max())
        likely = dict(zip(known.kinds, (odds / odds.sum()).tolist(), strict=True))
        found = tuple(kind for kind in Kind if likely.get(kind, 0) >= (_CRISIS if kind in _CRISES else _LIKELY))
        return found or (Kind.OTHER,)


def kind_places(features: Mapping[Group, Places]) -> Places:
    """Return where the features stand by which kinds are told apart."""
    return np.unique(np.concatenate([features[group] & (KIND_SIZE - 1) for group in KIND_GROUPS]))


@cache
def classifier() -> Classifier:
    """Return the one that comes with this package; raises WeightsError."""
    with resources.files("neurons.emergency").joinpath("weights.npz").open("rb") as stream:
        return Classifier(Weights.read(cast("BinaryIO", stream)))
