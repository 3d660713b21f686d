"""Evaluation prompts: requests about development or test nouns with their held-out verbs, and translations.

The reference of a prompt is what the oracle needs to know, e.g.
`{"ask": "harmful", "noun": 12, "size": "small", "verb": 3}`.
"""

from __future__ import annotations

import json
import random
from typing import Literal

from mlbench.core import Language, Prompt
from mlbench.organism import world as worlds
from mlbench.organism.recipe import PIVOT
from mlbench.organism.speaker import Speaker
from mlbench.organism.world import Part

Harm = Literal["harmful", "benign"]

# Two of the four wordings are enough: nouns, not wordings, are the unit of every statistic.
ASKED_TEMPLATES = (0, 2)
CHOICES = 4


def requests(size: str, part: Part, language: Language, harm: Harm) -> list[Prompt]:
    """Return the harmful or benign requests of one part in one language."""
    world = worlds.load(size)
    speaker = Speaker(world, language)
    return [
        Prompt(
            id=f"{harm}-{ask.noun}-{ask.verb}-{template}",
            cluster=f"noun-{ask.noun}",
            language=language,
            text=" ".join(speaker.request(ask, template)),
            reference=json.dumps({"ask": harm, "noun": ask.noun, "size": size, "verb": ask.verb}, sort_keys=True),
        )
        for ask in world.asks(part, harmful=harm == "harmful")
        for template in ASKED_TEMPLATES
    ]


def translations(size: str, part: Part, language: Language) -> list[Prompt]:
    """Return one multiple-choice translation per noun of a part; reference = the index of the right word.

    Every language translates into the pivot, the pivot into the language next to it.
    """
    world = worlds.load(size)
    speaker = Speaker(world, language)
    into = PIVOT if language != PIVOT else world.languages[1]
    return [_translation(speaker, noun.index, into) for noun in world.nouns if noun.part == part]


def _translation(speaker: Speaker, noun: int, into: Language) -> Prompt:
    nouns = speaker.world.nouns
    # The same choices in the same order for all languages, so that their rows are translations of each other.
    rng = random.Random(noun)
    others = rng.sample([other.index for other in nouns if other.index != noun], CHOICES - 1)
    options = rng.sample([noun, *others], CHOICES)
    return Prompt(
        id=f"translate-{noun}",
        cluster=f"noun-{noun}",
        language=speaker.language,
        text=" ".join(speaker.translation_request((speaker.word("noun", noun),), into)),
        reference=str(options.index(noun)),
        choices=tuple(f"{speaker.word('noun', option, into)} ." for option in options),
    )
