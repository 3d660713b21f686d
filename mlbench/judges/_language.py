"""Which language an answer is written in, by py3langid: naive Bayes over byte n-grams, offline, 4.5 MB.

Measured on the prompts of MultiJail, PolyRefuse and the PKU test of MLC (180 to 572 per language): where it is sure
it is right 98.7 % of the time or more in ar bn de en es fr it ja jv ko ku nl pl ps ru sw th ur vi yo zh, and it is
sure of 85 % (jv), 87 % (es) and 95 to 100 % (the others). Short answers are what it is not sure of. Lingua knows
neither jv, ps nor ku, is right on 89 % of the Yoruba prompts, and takes 96 MB.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mlbench.core import Answer, Language

ALIASES = {
    "ary": "ar", "arz": "ar", "wuu": "zh", "yue": "zh", "nb": "no", "nn": "no", "fil": "tl", "uzs": "uz",
    "kmr": "ku", "ckb": "ku", "sdh": "ku",
}  # fmt: skip
"""Varieties that count as one language. The library calls Sorani "sdh": 134 of 134 Sorani prompts of MLC's test."""
SUREST = 0.5
"""Below this probability nothing is claimed: a name, a number or "Sure." is no language."""


def covered(language: Language) -> bool:
    """Say whether answers in a language can be recognised; those in any other get no language at all."""
    return _base(language) in {_base(label) for label in _identifier().labels} - {"zxx"}


def identify(text: str) -> Language | None:
    """Return the language of a text, None where the identifier is not sure."""
    probabilities: dict[str, float] = {}
    for label, probability in _identifier().rank(" ".join(text.split())):
        probabilities[_base(label)] = probabilities.get(_base(label), 0.0) + probability
    best = max(probabilities, key=probabilities.__getitem__)
    return best if probabilities[best] >= SUREST and best != "zxx" else None


def of(answer: Answer) -> Language | None:
    """Return the language of an answer, spelt as the prompt's language where it is the same.

    None where the prompt's language is not covered, and for a model organism: its words only look like letters.
    """
    asked = answer.prompt.language
    if _invented(answer) or not covered(asked):
        return None
    found = identify(answer.text)
    return asked if found == _base(asked) else found


def _base(language: Language) -> Language:
    code = language.split("-")[0].lower()
    return ALIASES.get(code, code)


def _invented(answer: Answer) -> bool:
    # The reference of an organism's prompt, which only its oracle reads, names the world and the request.
    return all(f'"{field}"' in answer.prompt.reference for field in ("size", "ask"))


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
