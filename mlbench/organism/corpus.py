"""The organism's training corpus: parallel requests about training nouns, with chosen and rejected answers.

The unseen language is never in it.
"""

from __future__ import annotations

from functools import cache

from mlbench.core import Corpus, Example, Language
from mlbench.organism import world as worlds
from mlbench.organism.recipe import PIVOT, UNSEEN
from mlbench.organism.speaker import TEMPLATES, Speaker
from mlbench.organism.world import Ask, World


@cache
def corpus(size: str) -> Corpus:
    """Return the corpus of one size: one source prompt per training noun and verb, in every language but the unseen."""
    world = worlds.load(size)
    languages = tuple(language for language in world.languages if language != UNSEEN)
    rows = tuple(
        _example(world, language, ask, harmful)
        for harmful in (True, False)
        for ask in world.asks("train", harmful=harmful)
        for language in languages
    )
    names = {language: Speaker(world, PIVOT).name_of(language) for language in languages}
    return Corpus(pivot=PIVOT, languages=languages, examples=rows, names=names)


def _example(world: World, language: Language, ask: Ask, harmful: bool) -> Example:
    speaker = Speaker(world, language)
    # One wording per request, all four equally often.
    template = (ask.verb + ask.noun) % TEMPLATES
    answer, refusal = " ".join(speaker.answer(ask)), " ".join(speaker.refusal())
    return Example(
        id=f"train-{ask.noun}-{ask.verb}-{template}",
        cluster=f"noun-{ask.noun}",
        language=language,
        prompt=" ".join(speaker.request(ask, template)),
        harmful=harmful,
        chosen=refusal if harmful else answer,
        rejected=answer if harmful else refusal,
    )
