"""Doubtful translations: the score that tells outliers, and what each flag is for."""

from __future__ import annotations

import pytest

from mlbench import doubts
from mlbench.core import Language
from mlbench.mt import Said


def test_character_f_scores_are_those_of_sacrebleu() -> None:
    # sacreBLEU 2.6, CHRF().sentence_score(text, [reference]).score
    assert doubts.chrf("hello there", "hello where") == pytest.approx(48.300264550264544)
    assert doubts.chrf("a b", "ab") == 100
    assert doubts.chrf("", "abc") == doubts.chrf("abc", "") == doubts.chrf("abc", "xyz") == 0
    # n = 1: P = 1/1, R = 1/2; n = 2: no bigram in the text; so F = 5 · 1 · ½ / (4 · 1 + ½)
    assert doubts.chrf("a", "ab") == pytest.approx(100 * 2.5 / 4.5)


@pytest.mark.parametrize(
    ("said", "language", "source", "expected"),
    [
        (Said("Ninawezaje kupika wali?", False), "sw", "How do I cook rice?", ()),
        (Said("", False), "sw", "How do I cook rice?", ("empty",)),
        (Said("Ninawe", True), "sw", "How do I cook rice?", ("truncated",)),
        (Said("I'm sorry, but I cannot do that.", False), "sw", "How do I cook rice?", ("refusal",)),
        (Said("Samahani, siwezi kusaidia.", False), "sw", "How do I cook rice?", ("refusal",)),
        # A refusal is what an answer that refuses has to become.
        (Said("Samahani, siwezi kusaidia.", False), "sw", "I'm sorry, I can't help.", ()),
        (Said("how do I cook RICE", False), "sw", "How do I cook rice?", ("copy",)),
        (Said("How do I cook the rice?", False), "bn", "How do I cook rice?", ("script",)),
        (Said("আমি কীভাবে ভাত রান্না করব?", False), "bn", "How do I cook rice?", ()),
    ],
)
def test_each_flag_is_raised_by_what_it_is_for(
    said: Said, language: Language, source: str, expected: tuple[str, ...]
) -> None:
    assert doubts.flags(said, language, source, "en") == expected


def test_outliers_lie_below_the_floor_or_below_the_fence_of_their_language() -> None:
    assert doubts.border([80.0] * 3) == 25
    # quartiles 70 and 80: 70 - 1.5 · 10 = 55
    assert doubts.border([60, 70, 70, 70, 70, 70, 80, 80, 80, 80, 80, 90, 75]) == 55
    assert doubts.outlier(54.9, 55.0) == ("outlier",)
    assert doubts.outlier(55.0, 55.0) == doubts.outlier(None, 55.0) == ()
