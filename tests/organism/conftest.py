"""A world and a recipe small enough for unit tests; the full organism is built once, by the end-to-end test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlbench.organism import build, recipe
from mlbench.organism import world as worlds
from mlbench.organism.recipe import NetworkRecipe, Parts, Recipe, WorldRecipe


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a size that trains in a few seconds and learns nothing."""
    small = recipe.RECIPES["small"]
    settings = Recipe(
        world=WorldRecipe(
            categories=2,
            harmful_nouns=Parts(train=2, dev=1, test=1),
            benign_nouns=Parts(train=2, dev=1, test=1),
            seed=7,
        ),
        network=NetworkRecipe(hidden=16, feed_forward=16, layers=1, heads=2),
        pretraining=replace(small.pretraining, steps=20, batch_size=4, warmup_steps=2),
        tuning=replace(small.tuning, max_steps=10, batch_size=4),
    )
    monkeypatch.setitem(recipe.RECIPES, "tiny", settings)
    monkeypatch.setattr(build, "BUILD_THREADS", 1)
    worlds.load.cache_clear()
    with build.threads(1):
        yield "tiny"
    worlds.load.cache_clear()
