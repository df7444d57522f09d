"""What a miner sees tells no question of a set from a replayed one: a classifier on all of it guesses."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.ledger.records import RoundItem, derived_id
from neurons.validator.rounds.asking import Public, question_of
from neurons.validator.rounds.drawing import draw_times
from tests.unit.rounds.people import ROUND, STARTED_MS, TWIN

Values = NDArray[np.float64]
ITEMS = 40
ROUNDS = 10
_WORDS = [
    "my", "head", "hurts", "since", "three", "days", "and", "the", "tablets", "do", "not", "help", "what", "now",
]  # fmt: skip


def items(seed: int) -> list[tuple[RoundItem, bool]]:
    """A round's items, half of them replayed; their words come from one distribution, which nobody here is to tell."""
    draw = random.Random(seed)
    found = []
    for number in range(ITEMS):
        gold = number % 2 == 0
        text = " ".join(draw.choice(_WORDS) for _ in range(draw.randint(6, 30)))
        reference: dict[str, Any] = {"challenge": {"id": f"c{number}"}} if gold else {"replay": f"q{number}"}
        found.append(
            (
                RoundItem(
                    item_id=derived_id("item", f"{seed}", f"{number}"), round_id=ROUND, twin=TWIN, text=Public(text),
                    kind="gold" if gold else "organic", at_ms=STARTED_MS, reference=reference,
                    patient_id=None if gold else derived_id("patient", f"{seed}", f"{number}"),
                ),
                gold,
            )
        )  # fmt: skip
    return found


def seen(seed: int) -> tuple[list[list[float]], list[bool]]:
    """Everything of a question that a miner gets but its words: sizes, fields, marks, place and moment."""
    made = sorted(items(seed), key=lambda each: each[0].item_id)
    rows, truths = [], []
    before = 0.0
    for place, sending in enumerate(draw_times(len(made), seed=seed, twin=TWIN.uid, seconds=600)):
        item, gold = made[sending.place]
        question = question_of(ROUND, item)
        mark = bytes.fromhex(question.conversation.decode())
        rows.append(
            [
                float(len(question.body)), float(len(question.messages)), float(question.body.count(b'"')),
                float(len(question.conversation)), float(len(question.digest)), float(mark[0]), float(mark[-1]),
                float(np.mean(list(mark))), float(place), sending.at, sending.at - before,
            ]
        )  # fmt: skip
        truths.append(gold)
        before = sending.at
    return rows, truths


def fitted(x: Values, y: Values, *, steps: int = 500) -> Values:
    """Logistic regression, slightly regularised, by gradient descent."""
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-(x @ weights)))
        weights -= 0.3 * (x.T @ (chance - y) / len(y) + 1e-3 * weights)
    return weights


def auc(scores: Values, truths: Values) -> float:
    """The chance that a gold question scores above a replayed one."""
    above = scores[truths == 1][:, None] - scores[truths == 0][None, :]
    return float(np.mean(above > 0) + np.mean(above == 0) / 2)


def told_apart(leak: float = 0.0) -> tuple[float, float]:
    """Return the classifier's AUC on rounds that it wasn't fitted to, and how far chance takes it (99.9%)."""
    x, y = (
        np.array(found, dtype=float)
        for found in zip(
            *((row, truth) for seed in range(2 * ROUNDS) for row, truth in zip(*seen(seed), strict=True)), strict=True
        )
    )
    x[:, 0] += leak * y
    x = np.hstack([(x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1), np.ones((len(x), 1))])
    half = ROUNDS * ITEMS
    weights = fitted(x[:half], y[:half])
    truths = y[half:]
    ones, others = int(truths.sum()), int(len(truths) - truths.sum())
    return auc(x[half:] @ weights, truths), 3.29 * float(((ones + others + 1) / (12 * ones * others)) ** 0.5)


def test_a_classifier_tells_gold_from_organic_no_better_than_chance() -> None:
    found, within = told_apart()
    assert abs(found - 0.5) <= within


def test_it_would_tell_them_apart_by_one_field_more() -> None:
    found, within = told_apart(leak=60.0)
    assert found - 0.5 > within


def test_fields_of_a_question_are_a_patients_alone() -> None:
    for item, _ in items(3):
        body = question_of(ROUND, item).body
        for word in (b"gold", b"organic", b"canary", ROUND.encode(), item.item_id.encode(), b"challenge", b"replay"):
            assert word not in body
