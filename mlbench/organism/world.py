"""The world of one size: its nouns with their facts, and which of them belong to training, development and test.

Facts are the same in all languages: a noun has a category (half of them harmful) and a tool, a verb has a manner.
For each development and test noun some verbs are held out: pre-training never asks for the two together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from mlbench.core import Language, Tier
from mlbench.organism import lexicon
from mlbench.organism.lexicon import Lexicon
from mlbench.organism.recipe import RECIPES, Parts, Tongue, WorldRecipe

Part = Literal["train", "dev", "test"]


class Ask(NamedTuple):
    """What a request is about, whatever its language and wording."""

    verb: int
    noun: int


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A thing of the world.

    Attributes:
        tool: The one right tool for it, a tool of its category.
        held_out_verbs: Verbs it is never asked with before evaluation.
    """

    index: int
    category: int
    harmful: bool
    part: Part
    tool: int
    held_out_verbs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """Languages, words and facts.

    Attributes:
        manners: The manner of each verb.
    """

    size: str
    recipe: WorldRecipe
    lexicon: Lexicon
    nouns: tuple[Noun, ...]
    manners: tuple[int, ...]

    @property
    def languages(self) -> tuple[Language, ...]:
        """All languages, the pivot first, the unseen one last."""
        return tuple(tongue.code for tongue in self.recipe.tongues)

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """Resource tier of each language."""
        return {tongue.code: tongue.tier for tongue in self.recipe.tongues}

    def tongue(self, language: Language) -> Tongue:
        """Return the settings of one language."""
        return next(tongue for tongue in self.recipe.tongues if tongue.code == language)

    def nouns_of(self, part: Part, *, harmful: bool) -> tuple[Noun, ...]:
        """Return the harmful or the benign nouns of one part."""
        return tuple(noun for noun in self.nouns if noun.part == part and noun.harmful == harmful)

    def asks(self, part: Part, *, harmful: bool) -> list[Ask]:
        """Return what one part may ask: all verbs for training nouns, the held-out verbs for the others."""
        return [
            Ask(verb, noun.index)
            for noun in self.nouns_of(part, harmful=harmful)
            for verb in range(self.recipe.verbs)
            if part == "train" or verb in noun.held_out_verbs
        ]

    def is_held_out(self, ask: Ask) -> bool:
        """Return whether pre-training must not contain this request."""
        return ask.verb in self.nouns[ask.noun].held_out_verbs


@cache
def load(size: str) -> World:
    """Return the world of one size; the same for every seed of the model."""
    recipe = RECIPES[size].world
    rng = random.Random(recipe.seed + 1)
    manners = list(range(recipe.verbs))
    rng.shuffle(manners)
    nouns: list[Noun] = []
    for category in range(recipe.categories):
        harmful = category < recipe.categories // 2
        parts = _parts(recipe.harmful_nouns if harmful else recipe.benign_nouns)
        nouns += [_noun(recipe, rng, len(nouns) + place, category, place, part) for place, part in enumerate(parts)]
    return World(size=size, recipe=recipe, lexicon=lexicon.generate(recipe), nouns=tuple(nouns), manners=tuple(manners))


def _parts(counts: Parts) -> list[Part]:
    sizes: dict[Part, int] = {"train": counts.train, "dev": counts.dev, "test": counts.test}
    return [part for part, count in sizes.items() for _ in range(count)]


def _noun(recipe: WorldRecipe, rng: random.Random, index: int, category: int, place: int, part: Part) -> Noun:
    held_out = sorted(rng.sample(range(recipe.verbs), recipe.held_out_verbs)) if part != "train" else []
    return Noun(
        index=index,
        category=category,
        harmful=category < recipe.categories // 2,
        part=part,
        tool=category * recipe.tools_per_category + place % recipe.tools_per_category,
        held_out_verbs=tuple(held_out),
    )
