"""The set of questions in the image, and the claims to try judges with: whole, and quoted as their sources have it."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from neurons.scoring import score_answer
from neurons.validator.rounds.challenges import OWN, AskedChoice, SourceNamed, load_challenges
from neurons.validator.rounds.scoring import Scorer
from tests.unit.rounds.people import ROUND, STARTED_MS, TWIN, item_of

DATA = Path(os.environ.get("BETTERTHERAPY_DATA", "../shared/data")) / "medquad.jsonl.gz"
CLAIMS = Path(__file__).parents[2] / "bench" / "claims.jsonl"
needs_medquad = pytest.mark.skipif(
    not DATA.is_file(), reason="MedQuAD is not here; BETTERTHERAPY_DATA names its folder"
)


def claims() -> list[dict[str, object]]:
    return [json.loads(line) for line in CLAIMS.read_text().splitlines()]


def quotes() -> dict[str, SourceNamed]:
    found = {each.id: source for each in load_challenges(OWN).challenges for source in each.sources}
    source = TypeAdapter(SourceNamed)
    return found | {str(each["id"]): source.validate_python(each["source"]) for each in claims()}


def test_it_is_large_and_has_many_topics_and_each_question_its_source() -> None:
    challenges = load_challenges(OWN).challenges
    topics = Counter(each.topic for each in challenges)
    assert len(challenges) >= 150
    assert len(topics) >= 10
    assert min(topics.values()) >= 10
    assert all(each.sources and all(source.quote for source in each.sources) for each in challenges)
    assert sum(each.language == "ne" for each in challenges) >= 10
    assert len({each.prompt for each in challenges}) > 0.6 * len(challenges)


def test_a_choices_right_words_score_and_no_others_do() -> None:
    for each in load_challenges(OWN).challenges:
        if isinstance(each, AskedChoice):
            assert score_answer(each, f"It is this: {each.options[each.answer]}.") == 1.0, each.id
            for letter, words in each.options.items():
                if letter != each.answer:
                    assert score_answer(each, f"It is this: {words}.") == 0.0, (each.id, letter)


async def test_without_a_judge_its_canaries_say_nothing_of_a_judge() -> None:
    asked = [
        item_of(each, round_id=ROUND, twin=TWIN, at_ms=STARTED_MS)
        for each in load_challenges(OWN).challenges
        if each.known is not None
    ]
    assert asked
    found = await Scorer(judge=None, sources={}).canaries(asked)
    assert (found.judged, found.distrusted) == (0, frozenset())


def test_half_the_claims_are_wrong_and_each_is_there_once() -> None:
    found = claims()
    assert len({each["id"] for each in found}) == len(found) >= 200
    assert sum(bool(each["supported"]) for each in found) == len(found) // 2


@needs_medquad
def test_every_quote_stands_in_its_source() -> None:
    pages: dict[str, list[str]] = {}
    with gzip.open(DATA, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            pages.setdefault(row["url"].replace("http://www.nlm.nih.gov/medlineplus/", ""), []).append(row["answer"])
    missing = []
    for name, source in quotes().items():
        page = source.place.rpartition("/")[2]
        texts = [
            " ".join(text.split()) for url, found in pages.items() if url.rpartition("/")[2] == page for text in found
        ]
        if not any(" ".join(source.quote.split()) in text for text in texts):
            missing.append(name)
    assert missing == []
