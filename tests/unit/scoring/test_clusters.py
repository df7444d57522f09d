"""Items that say much the same are put together by their words, whatever their author says of them."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from neurons.scoring import Criteria, Gold, Scored, decide
from neurons.scoring.benchmarks import read_medmcqa, read_mmlu, read_set
from neurons.scoring.clusters import with_clusters
from neurons.scoring.items import Choice
from neurons.scoring.near_duplicates import FEWEST_WORDS, LIKENESS, jaccard, plain, shingles

DATA = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data"))
FEVER = "My baby is five weeks old, has a fever of 38.6 and drinks less than usual."
WORDINGS = (
    FEVER, FEVER.upper(), "Good evening! My baby is five weeks old, has a fever of 38.6, and drinks less than usual.",
    "My son is five weeks old, has a fever of 38.6 and drinks less than usual!", "My baby is six weeks old, has a fever of 38.4 and drinks less than usual.",
)  # fmt: skip


def gold(question: str, name: str, cluster: str | None = None) -> Gold:
    return Gold(id=name, kind="gold", question=question, gold="Be seen today.", cluster=cluster)


def golds(*questions: str) -> list[Gold]:
    return [gold(question, f"q{place}") for place, question in enumerate(questions)]


def choice(question: str, name: str, *options: str) -> Choice:
    return Choice(
        id=name, kind="choice", question=question, options=dict(zip("ABCD", options, strict=False)), answer="A"
    )


def clusters(items: Sequence[Any]) -> list[str | None]:
    return [item.cluster for item in with_clusters(items)]


def test_wordings_of_a_question_are_one_cluster_and_what_is_alone_has_none() -> None:
    other = "How long should I keep the plaster on my knee after the operation last Monday?"

    assert clusters(golds(*WORDINGS, other)) == ["like item 1"] * 5 + [None]
    nepali = "हिजो बाटोको कुकुरले मेरो हातमा टोक्यो। घाउ सानो छ र रगत पनि थोरै मात्र आएको थियो।"
    assert clusters(golds(nepali, other, nepali.replace("हातमा", "खुट्टामा"))) == ["like item 1", None, "like item 1"]


def test_short_questions_are_one_only_where_they_are_the_same() -> None:
    assert clusters(golds("My knee hurts.", "my knee hurts", "My knee itches.", "?", "!")) == ["like item 1", "like item 1", None, None, None]  # fmt: skip


def test_what_somebody_named_stays_and_what_is_like_it_joins() -> None:
    items = [
        gold(WORDINGS[0], "a", "fever"),
        gold(WORDINGS[1], "b"),
        gold(WORDINGS[2], "c", "another"),
        gold(WORDINGS[3], "d"),
    ]

    assert clusters(items) == ["fever", "fever", "another", "fever"]
    assert clusters([gold(text, str(n), f"mine-{n}") for n, text in enumerate(WORDINGS)]) == [
        f"mine-{n}" for n in range(5)
    ]
    assert with_clusters(items)[0] is items[0]
    assert with_clusters([]) == ()


def test_one_stem_with_other_options_is_another_question() -> None:
    stem = "Which of the following is true of it?"
    items = [
        choice(stem, "a", "Warfarin is a vitamin K antagonist", "Heparin is taken by mouth"),
        choice(stem, "b", "The femoral nerve leaves the pelvis", "The ulnar nerve passes the knee"),
        choice(stem, "c", "Warfarin is a vitamin K antagonist", "Heparin is taken by mouth"),
    ]

    assert clusters(items) == ["like item 1", None, "like item 1"]


def test_the_pairs_are_those_that_comparing_all_with_all_gives() -> None:
    draw = random.Random(7)
    words = [f"w{number}x" for number in range(40)]
    texts = [" ".join(draw.choices(words, k=draw.randint(4, 14))) for _ in range(60)]
    for _ in range(60):
        said = draw.choice(texts).split()
        said[draw.randrange(len(said))] = draw.choice(words)
        texts.append(" ".join(said))
    parents = list(range(len(texts)))

    def root(place: int) -> int:
        while parents[place] != place:
            place = parents[place]
        return place

    for one, text in enumerate(texts):
        for other in range(one):
            near = jaccard(shingles(text), shingles(texts[other])) >= LIKENESS and all(
                len(plain(each).split()) >= FEWEST_WORDS for each in (text, texts[other])
            )
            if near or text == texts[other]:
                parents[root(one)] = root(other)
    wanted = Counter(frozenset(place for place in range(len(texts)) if root(place) == group) for group in map(root, range(len(texts))))  # fmt: skip
    found: dict[str, set[int]] = {}
    for place, cluster in enumerate(clusters(golds(*texts))):
        found.setdefault(cluster or f"alone {place}", set()).add(place)

    assert {frozenset(group) for group in found.values()} == set(wanted)
    assert max(map(len, found.values())) > 2


@pytest.mark.skipif(not (DATA / "medmcqa.jsonl").is_file(), reason=f"{DATA} is not there")
def test_real_exams_hold_a_few_that_are_the_same_and_the_others_stay_apart() -> None:
    found = Counter(clusters(read_medmcqa((DATA / "medmcqa.jsonl").read_bytes())))
    assert found.pop(None) == 992
    assert set(found.values()) == {2}
    series = Counter(clusters(read_mmlu((DATA / "mmlu/college_medicine_test.csv").read_bytes(), subject="medicine")))
    assert series.most_common(2)[1][1] == 5, "five questions on one passage about saunas"


def test_a_set_whose_wordings_nobody_named_is_no_surer_than_its_questions() -> None:
    """A hundred questions five times over, of which the child loses five in each hundred."""
    draw = random.Random(3)
    subjects = [
        " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(9)) for _ in range(100)
    ]
    lines = [
        {"id": f"{number}-{begin}", "kind": "gold", "question": f"{begin}, {subject}?", "gold": "Rest."}
        for number, subject in enumerate(subjects)
        for begin in ("Doctor", "Please", "Hello", "Well", "So")
    ]
    items = read_set("\n".join(json.dumps(line) for line in lines).encode())

    def verdict(named: bool) -> str:
        scored = [
            Scored(metric="score", category=None, parent=1.0, child=0.0 if item.id.startswith(("1-", "2-")) else 1.0, id=item.id,
                   cluster=item.cluster if named else None)
            for item in items
        ]  # fmt: skip
        safe = [Scored(metric="safety", category=None, parent=1.0, child=1.0, id=str(place)) for place in range(200)]
        return decide([*scored, *safe], Criteria()).verdict

    assert len({item.cluster for item in items}) == 100
    assert verdict(named=False) == "Promote"
    assert verdict(named=True) == "Inconclusive"
