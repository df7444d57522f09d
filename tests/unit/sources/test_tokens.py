"""English and Nepali words, as texts are found by them."""

from __future__ import annotations

import pytest

from neurons.sources.tokens import content_words, tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The kidneys of babies aren’t fully grown", ["kidney", "baby", "aren", "t", "fully", "grown"]),
        ("Do not take 0.5 mg", ["not", "take", "0.5", "mg"]),
        ("diabetes, virus, stress", ["diabete", "virus", "stress"]),
        ("para\u00adcetamol", ["paracetamol"]),
        ("बच्चाहरूलाई ज्वरो आयो।", ["बच्चा", "ज्वरो", "आयो"]),
        ("घरमा ५ दिन", ["घर", "5", "दिन"]),
        ("बिरामी बीरामि", ["बिरामि", "बिरामि"]),
        ("गर्भावस्था", ["गर्भावस्था"]),
        ("  … !", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert tokens(text) == words


def test_a_vowel_sign_ends_no_word() -> None:
    assert len(tokens("मधुमेह उच्च रक्तचाप")) == 3


def test_content_words_are_as_they_are_written() -> None:
    assert content_words("Is ibuprofen safe with Warfarin tablets and ibuprofen?") == [
        "ibuprofen",
        "safe",
        "warfarin",
        "tablets",
    ]
