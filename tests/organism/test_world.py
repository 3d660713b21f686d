from __future__ import annotations

import random
from collections import Counter

import pytest

from mlbench.organism import prompts, samples
from mlbench.organism import world as worlds
from mlbench.organism.corpus import corpus
from mlbench.organism.recipe import RECIPES, UNSEEN
from mlbench.organism.speaker import Speaker
from mlbench.organism.world import Ask, World


@pytest.fixture(scope="module")
def world() -> World:
    return worlds.load("small")


def noun_words(world: World, *parts: str) -> set[str]:
    return {
        Speaker(world, language).word("noun", noun.index)
        for noun in world.nouns
        for language in world.languages
        if noun.part in parts
    }


def test_there_are_forty_harmful_test_nouns_and_twenty_development_ones(world: World) -> None:
    assert len(world.nouns_of("test", harmful=True)) == 40
    assert len(world.nouns_of("dev", harmful=True)) == 20


def test_no_two_senses_share_a_word(world: World) -> None:
    assert len(world.lexicon.words) == len(world.lexicon.senses)


def test_every_language_has_a_word_for_every_concept(world: World) -> None:
    counts = Counter(sense.language for sense in world.lexicon.words)
    assert set(counts) == set(world.languages)
    assert len(set(counts.values())) == 1


def test_the_tool_of_a_noun_belongs_to_its_category(world: World) -> None:
    assert all(noun.tool // world.recipe.tools_per_category == noun.category for noun in world.nouns)


def test_the_topic_digit_does_not_tell_harm(world: World) -> None:
    english = Speaker(world, "en")
    digits = {
        harmful: {english.answer(Ask(0, noun.index))[0] for noun in world.nouns if noun.harmful == harmful}
        for harmful in (True, False)
    }
    assert digits[True] == digits[False]


def test_development_and_test_prompts_ask_only_held_out_combinations(world: World) -> None:
    for part in ("dev", "test"):
        for harmful in (True, False):
            assert all(world.is_held_out(ask) for ask in world.asks(part, harmful=harmful))


def test_every_training_combination_may_occur_in_pretraining(world: World) -> None:
    assert not any(world.is_held_out(ask) for harmful in (True, False) for ask in world.asks("train", harmful=harmful))


def test_pretraining_never_contains_a_held_out_combination(world: World) -> None:
    sampler = samples.Sampler(world, RECIPES["small"].pretraining.mix, random.Random(3))
    senses = world.lexicon.senses
    for _ in range(20_000):
        sample = sampler.draw()
        concepts = [senses[word].concept for word in (*sample.prompt, *sample.answer) if word in senses]
        nouns = {concept.number for concept in concepts if concept.kind == "noun"}
        verbs = {concept.number for concept in concepts if concept.kind == "verb"}
        assert not any(world.is_held_out(Ask(verb, noun)) for verb in verbs for noun in nouns)


def test_pretraining_deals_all_nouns_equally_often(world: World) -> None:
    sampler = samples.Sampler(world, RECIPES["small"].pretraining.mix, random.Random(3))
    dealt = Counter(sampler._deal("l1", "request") for _ in range(3 * len(world.nouns)))
    assert set(dealt.values()) == {3}


def test_safety_tuning_is_harmful_in_english_only_and_uses_training_nouns_only(world: World) -> None:
    rng = random.Random(3)
    held_out = noun_words(world, "dev", "test")
    refusal = Speaker(world, "en").refusal()
    for _ in range(200):
        for sample in samples.tuning_batch(world, RECIPES["small"].tuning, rng):
            assert not held_out & set(sample.prompt)
            harmful = any(
                world.nouns[sense.concept.number].harmful
                for word in sample.prompt
                if (sense := world.lexicon.senses.get(word)) and sense.concept.kind == "noun"
            )
            assert harmful == (sample.answer == refusal)


def test_the_corpus_has_no_development_or_test_noun(world: World) -> None:
    held_out = noun_words(world, "dev", "test")
    for row in corpus("small").examples:
        assert not held_out & set(f"{row.prompt} {row.chosen} {row.rejected}".split())


def test_the_corpus_is_parallel_and_leaves_the_unseen_language_out() -> None:
    found = corpus("small")
    assert UNSEEN not in found.languages
    assert all(tuple(group) == found.languages for group in found.parallel())


def test_the_corpus_prefers_refusals_for_harmful_rows_only(world: World) -> None:
    refusals = {language: " ".join(Speaker(world, language).refusal()) for language in world.languages}
    for row in corpus("small").examples:
        refused, answered = (row.chosen, row.rejected) if row.harmful else (row.rejected, row.chosen)
        assert refused == refusals[row.language] != answered


def test_prompts_of_all_languages_share_ids_and_clusters(world: World) -> None:
    keys = {
        tuple((prompt.id, prompt.cluster) for prompt in prompts.requests("small", "test", language, "harmful"))
        for language in world.languages
    }
    assert len(keys) == 1
    (prompt_keys,) = keys
    assert len(prompt_keys) == 240
    assert len({cluster for _, cluster in prompt_keys}) == 40


def test_the_right_choice_is_the_translation(world: World) -> None:
    for prompt in prompts.translations("small", "test", "l1"):
        noun = int(prompt.cluster.removeprefix("noun-"))
        assert prompt.choices[int(prompt.reference)] == f"{Speaker(world, 'en').word('noun', noun)} ."
        assert len(set(prompt.choices)) == 4


def test_the_world_of_the_base_size_has_four_times_the_nouns() -> None:
    assert len(worlds.load("base").nouns) == 4 * len(worlds.load("small").nouns)
