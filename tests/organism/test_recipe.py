from __future__ import annotations

from dataclasses import replace

import pytest

from mlbench.errors import UserError
from mlbench.organism import recipe


def test_a_source_without_a_seed_means_seed_zero() -> None:
    assert recipe.parse("organism:small") == ("small", 0)


def test_a_source_may_name_its_seed() -> None:
    assert recipe.parse("organism:base@12") == ("base", 12)


@pytest.mark.parametrize("source", ["organism:smal", "organism:", "organism", "organisms:small", "organism:smal@3"])
def test_an_unknown_size_is_refused_with_the_nearest_name(source: str) -> None:
    with pytest.raises(UserError) as error:
        recipe.parse(source)
    assert "organism:small" in str(error.value)


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "²"])
def test_a_seed_that_is_no_whole_number_is_refused(seed: str) -> None:
    with pytest.raises(UserError, match="not a whole number"):
        recipe.parse(f"organism:small@{seed}")


def test_the_key_depends_on_size_seed_and_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {recipe.content_key("small", 0), recipe.content_key("small", 1), recipe.content_key("base", 0)}
    small = recipe.RECIPES["small"]
    monkeypatch.setitem(recipe.RECIPES, "small", replace(small, tuning=replace(small.tuning, replay=0.5)))
    keys.add(recipe.content_key("small", 0))
    assert len(keys) == 4


def test_the_key_is_the_same_every_time() -> None:
    assert recipe.content_key("small", 3) == recipe.content_key("small", 3)
