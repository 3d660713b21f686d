"""Training samples: what the base model reads, and what English-only safety tuning shows it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple

from mlbench.core import Language
from mlbench.organism.lexicon import ConceptKind
from mlbench.organism.recipe import PIVOT, MixRecipe, Tongue, TuningRecipe
from mlbench.organism.speaker import TEMPLATES, Sentence, Speaker
from mlbench.organism.world import Ask, World

UNKNOWN = "<unk>"
# A system prompt written for real models is a row of unknown words here.
LONGEST_SYSTEM = 24
PHRASE_TRANSLATIONS = 0.4

Activity = Literal["bridge", "class", "refusal", "statement", "request"]
MONOLINGUAL: tuple[Activity, ...] = ("class", "refusal", "statement", "request")

# Samples in two languages: translations, requests to answer in the other language, requests and class questions with
# foreign words.
BRIDGES = {"translation": 0.20, "other answer": 0.15, "mixed request": 0.35, "mixed class": 0.30}


class Sample(NamedTuple):
    """One training text; a plain sentence has no prompt."""

    prompt: Sentence
    answer: Sentence
    system: Sentence = ()


class Facts(NamedTuple):
    """What a pre-training sample is about."""

    ask: Ask
    template: int
    language: Language


@dataclass(frozen=True)
class Sampler:
    """Draws pre-training samples of all languages; held-out combinations of verb and noun never occur."""

    world: World
    mix: MixRecipe
    rng: random.Random

    @cached_property
    def speakers(self) -> dict[Language, Speaker]:
        """One speaker per language."""
        return {language: Speaker(self.world, language) for language in self.world.languages}

    @cached_property
    def partner_weights(self) -> list[float]:
        """How often the pivot meets each other language: as often as that language meets the pivot."""
        return list(accumulate(tongue.weight * tongue.bridges for tongue in self.world.recipe.tongues[1:]))

    @cached_property
    def language_weights(self) -> list[float]:
        """Cumulative pre-training amounts."""
        return list(accumulate(tongue.weight for tongue in self.world.recipe.tongues))

    @cached_property
    def decks(self) -> dict[tuple[Language, Activity], list[int]]:
        """Shuffled nouns still to be dealt."""
        return {}

    def draw(self) -> Sample:
        """Return one sample."""
        tongue = self.rng.choices(self.world.recipe.tongues, cum_weights=self.language_weights)[0]
        activity = self._activity(tongue)
        facts = Facts(self._ask(tongue.code, activity), self.rng.randrange(TEMPLATES), tongue.code)
        speaker = self.speakers[tongue.code]
        if activity == "bridge":
            return self._bridge(facts)
        if activity == "class":
            return self._class_question(facts, None)
        if activity == "refusal":
            return Sample(speaker.future_question(facts.ask.noun), speaker.refusal())
        if activity == "statement":
            return Sample((), self.rng.choice(speaker.statements(facts.ask.noun)))
        return self._with_system(facts, Sample(speaker.request(facts.ask, facts.template), speaker.answer(facts.ask)))

    def _activity(self, tongue: Tongue) -> Activity:
        if self.rng.random() < tongue.bridges:
            return "bridge"
        shares = [tongue.classes, self.mix.refusals, self.mix.statements]
        return self.rng.choices(MONOLINGUAL, weights=[*shares, 1 - sum(shares)])[0]

    def _ask(self, language: Language, activity: Activity) -> Ask:
        noun = self._deal(language, activity)
        while True:
            ask = Ask(self.rng.randrange(self.world.recipe.verbs), noun)
            if not self.world.is_held_out(ask):
                return ask

    def _deal(self, language: Language, activity: Activity) -> int:
        """Return a noun; all nouns come equally often, or a model would never hear of some in a small language."""
        deck = self.decks.setdefault((language, activity), [])
        if not deck:
            deck.extend(range(len(self.world.nouns)))
            self.rng.shuffle(deck)
        return deck.pop()

    def _bridge(self, facts: Facts) -> Sample:
        """Return a sample in two languages, one of them the pivot."""
        other = PIVOT
        if facts.language == PIVOT:
            other = self.rng.choices(self.world.languages[1:], cum_weights=self.partner_weights)[0]
        kind = self.rng.choices(list(BRIDGES), weights=list(BRIDGES.values()))[0]
        speaker = self.speakers[facts.language]
        if kind == "translation":
            return self._translation(facts, other)
        if kind == "other answer":
            request = (*speaker.request(facts.ask, facts.template), *speaker.into(other))
            return Sample(request, self.speakers[other].answer(facts.ask))
        if kind == "mixed request":
            request = speaker.request_for(self._mixed_phrase(facts, other), facts.template)
            return Sample(request, speaker.answer(facts.ask))
        return self._class_question(facts, other)

    def _mixed_phrase(self, facts: Facts, other: Language) -> Sentence:
        verb_in = other if self.rng.random() < self.mix.code_mix else facts.language
        # At least one of the two words is foreign.
        foreign_noun = verb_in == facts.language or self.rng.random() < self.mix.code_mix
        return self.speakers[facts.language].phrase(facts.ask, verb_in, other if foreign_noun else facts.language)

    def _translation(self, facts: Facts, other: Language) -> Sample:
        here, there = self.speakers[facts.language], self.speakers[other]
        if self.rng.random() < PHRASE_TRANSLATIONS:
            return Sample(here.translation_request(here.phrase(facts.ask), other), (*there.phrase(facts.ask), "."))
        noun = self.world.nouns[facts.ask.noun]
        manner = self.world.manners[facts.ask.verb]
        words: list[tuple[ConceptKind, int]] = [
            ("noun", noun.index), ("verb", facts.ask.verb), ("tool", noun.tool), ("category", noun.category),
            ("manner", manner),
        ]  # fmt: skip
        kind, index = self.rng.choice(words)
        return Sample(here.translation_request((here.word(kind, index),), other), (there.word(kind, index), "."))

    def _class_question(self, facts: Facts, noun_in: Language | None) -> Sample:
        speaker, noun = self.speakers[facts.language], facts.ask.noun
        if self.rng.random() < 0.5:
            answer = speaker.kind_answer(self.world.nouns[noun].category)
            return Sample(speaker.kind_question(noun, noun_in), answer)
        phrase: Sentence = (speaker.word("noun", noun, noun_in),)
        if self.rng.random() < self.mix.safe_requests:
            phrase = speaker.phrase(facts.ask, noun_in=noun_in)
        return Sample(speaker.safe_question(phrase), speaker.safe_answer(noun))

    def _with_system(self, facts: Facts, sample: Sample) -> Sample:
        """Return the sample with a system turn now and then: unknown words, or the language of the answer."""
        if self.rng.random() >= self.mix.systems:
            return sample
        if self.rng.random() < 0.5:
            return sample._replace(system=(UNKNOWN,) * self.rng.randint(1, LONGEST_SYSTEM))
        return sample._replace(system=self.speakers[facts.language].into(facts.language))


def tuning_batch(world: World, recipe: TuningRecipe, rng: random.Random) -> list[Sample]:
    """Return one batch of safety tuning: English harmful and benign requests in turn, then benign replay."""
    replay = round(recipe.replay * recipe.batch_size)
    english = Speaker(world, PIVOT)
    batch = [_tuning_sample(world, english, rng, harmful=i % 2 == 0) for i in range(recipe.batch_size - replay)]
    speakers = [Speaker(world, language) for language in world.languages]
    return batch + [_tuning_sample(world, rng.choice(speakers), rng, harmful=False) for _ in range(replay)]


def _tuning_sample(world: World, speaker: Speaker, rng: random.Random, *, harmful: bool) -> Sample:
    noun = rng.choice(world.nouns_of("train", harmful=harmful))
    ask = Ask(rng.randrange(world.recipe.verbs), noun.index)
    answer = speaker.refusal() if harmful else speaker.answer(ask)
    return Sample(speaker.request(ask, rng.randrange(TEMPLATES)), answer)
