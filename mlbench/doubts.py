"""What makes a translation doubtful: flags by rules, and chrF of its back-translation.

empty      no words came back
truncated  the token limit cut it off, or the text was longer than the engine can read
refusal    it opens with a refusal phrase where its source does not
copy       it is the source once more
script     less than a quarter of its letters are in a script of its language
outlier    its back-translation has less in common with the source (chrF) than `FLOOR`, or lies below the lower
           fence of its language, Q1 - 1.5 (Q3 - Q1), with `FEW` scores or more (Tukey, 1977)

On the 2,835 human translations of MultiJail, refusal is raised 4 times (0.14 %), copy and script never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlbench import languages
from mlbench.core import Language
from mlbench.judges.refusal import opening_phrase
from mlbench.mt import Said
from mlbench.similarity import normalise

FLAGS = ("empty", "truncated", "refusal", "copy", "script", "outlier")
FLOOR = 25.0
"""chrF of a back-translation that says something else: two unrelated English prompts of MultiJail share 13 in the
median, 21 at the 95th and 29 at the 99th percentile."""
FEW = 12
ORDER, BETA = 6, 2.0
"""Longest n-grams of chrF, and how much more its recall counts."""


def flags(said: Said, language: Language, source: str, pivot: Language) -> tuple[str, ...]:
    """Return the flags that a translation of a source in the pivot earns by itself."""
    refusal = opening_phrase(said.text, language) and not opening_phrase(source, pivot)
    found = {
        "empty": not said.text.strip(),
        "truncated": said.truncated,
        "refusal": bool(refusal),
        "copy": normalise(said.text) == normalise(source),
        "script": not languages.in_script(said.text, language),
    }
    return tuple(name for name, raised in found.items() if raised)


def outlier(score: float | None, border: float) -> tuple[str, ...]:
    """Return the flag of a back-translation that lies below the border."""
    return ("outlier",) if score is not None and score < border else ()


def border(scores: Sequence[float]) -> float:
    """Return the chrF below which a back-translation is an outlier among those of its language."""
    if len(scores) < FEW:
        return FLOOR
    first, third = np.percentile(scores, [25, 75])
    return max(FLOOR, float(first - 1.5 * (third - first)))


def chrf(text: str, reference: str) -> float:
    """Return chrF of two texts, 0 to 100: the F score of their character n-grams, recall counting twice.

    For n = 1 to 6, without spaces: precision P and recall R of the n-grams, each averaged over the n that both texts
    have; then F = (1 + 2²) P R / (2² P + R). This is sacreBLEU's chrF2 of one sentence.

    References:
        Popović, WMT 2015 (aclanthology.org/W15-3049).
    """
    one, two = ("".join(each.split()) for each in (text, reference))
    precision, recall, orders = 0.0, 0.0, 0
    for n in range(1, ORDER + 1):
        first, second = (Counter(each[at : at + n] for at in range(len(each) - n + 1)) for each in (one, two))
        if first and second:
            shared = (first & second).total()
            precision += shared / first.total()
            recall += shared / second.total()
            orders += 1
    if not precision:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
