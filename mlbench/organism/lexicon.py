"""Words: every concept of the world has one generated word in each language; no two languages share a word.

Only the pivot's function words are real English, so that a reader can follow the examples.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mlbench.core import Language
from mlbench.organism.recipe import PIVOT, WorldRecipe

ConceptKind = Literal["category", "noun", "tool", "verb", "manner", "function", "language"]

FUNCTION_WORDS = (
    "how", "to", "tell", "me", "please", "explain", "use", "then", "with", "is", "safe", "danger",
    "kind", "yes", "no", "sorry", "cannot", "help", "future", "of", "in", "translate",
)  # fmt: skip
CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"
# Few consonants per language give each one a sound of its own.
CONSONANTS_PER_LANGUAGE = 9


class Concept(NamedTuple):
    """Something that has a word in every language."""

    kind: ConceptKind
    number: int


class Sense(NamedTuple):
    """What a word means, and in which language."""

    language: Language
    concept: Concept


FUNCTIONS = {word: Concept("function", number) for number, word in enumerate(FUNCTION_WORDS)}


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Words by sense and senses by word."""

    words: Mapping[Sense, str]
    senses: Mapping[str, Sense]


def concepts(recipe: WorldRecipe) -> list[Concept]:
    """Return all concepts of a world, in the order in which words are made for them."""
    harmful, benign = recipe.harmful_nouns, recipe.benign_nouns
    nouns_per_pair = harmful.train + harmful.dev + harmful.test + benign.train + benign.dev + benign.test
    counts: dict[ConceptKind, int] = {
        "category": recipe.categories,
        "noun": recipe.categories // 2 * nouns_per_pair,
        "tool": recipe.categories * recipe.tools_per_category,
        "verb": recipe.verbs,
        "manner": recipe.verbs,
        "function": len(FUNCTION_WORDS),
        "language": len(recipe.tongues),
    }
    return [Concept(kind, number) for kind, count in counts.items() for number in range(count)]


def generate(recipe: WorldRecipe) -> Lexicon:
    """Return the lexicon of a world: unique words of two or three syllables."""
    rng = random.Random(recipe.seed)
    senses: dict[str, Sense] = {}
    real = {concept: word for word, concept in FUNCTIONS.items()}
    for tongue in recipe.tongues:
        consonants = rng.sample(CONSONANTS, CONSONANTS_PER_LANGUAGE)
        for concept in concepts(recipe):
            is_real = tongue.code == PIVOT and concept in real
            word = real[concept] if is_real else _new_word(rng, consonants, senses)
            senses[word] = Sense(tongue.code, concept)
    return Lexicon(words={sense: word for word, sense in senses.items()}, senses=senses)


def _new_word(rng: random.Random, consonants: list[str], taken: Mapping[str, Sense]) -> str:
    while True:
        word = "".join(rng.choice(consonants) + rng.choice(VOWELS) for _ in range(rng.choice([2, 3])))
        if word not in taken and word not in FUNCTIONS:
            return word
