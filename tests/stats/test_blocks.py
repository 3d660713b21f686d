"""Ranks over blocks: the worked example of Demšar (2006), degenerate blocks, and the table of a shootout."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from mlbench import stats
from mlbench.results import Design
from mlbench.results.arms import Arm
from mlbench.results.blocks import Blocks, blocks

# Table 6 of Demšar, JMLR 7 (2006): ranks of four classifiers on 14 data sets.
RANKS = np.array([
    [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1],
    [2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3], [3, 1, 4, 2],
])  # fmt: skip


def test_the_worked_example_of_demsar() -> None:
    found = stats.rank_blocks(RANKS / 10)
    assert found.ranks.tolist() == RANKS.tolist()
    assert found.ranks.mean(axis=0).round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    # χ² = 12 N / k (k + 1) (Σ R² - k (k + 1)² / 4) = 9.28, over 1 - Σ (t³ - t) / N k (k² - 1) for the equal ranks:
    # three pairs and one block of four
    statistic = 12 * 14 / 20 * ((RANKS.mean(axis=0) ** 2).sum() - 25) / (1 - (3 * 6 + 60) / (14 * 4 * 15))
    assert found.p == pytest.approx(chi2.sf(statistic, 3))
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(("methods", "reach"), [(3, 2.343), (4, 2.569), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_printed_table(methods: int, reach: float) -> None:
    rates = np.random.default_rng(0).random((12, methods))
    expected = reach * math.sqrt(methods * (methods + 1) / (6 * 12))
    assert stats.rank_blocks(rates).critical_difference == pytest.approx(expected, rel=3e-4)


def test_pairs_differ_exactly_when_their_ranks_are_further_apart_than_the_critical_difference() -> None:
    rng = np.random.default_rng(1)
    found = stats.rank_blocks(rng.normal(size=(12, 8)) + 0.4 * np.arange(8), alpha=0.1)
    mean = found.ranks.mean(axis=0)
    apart = np.abs(mean[:, None] - mean) > found.critical_difference
    assert (apart == (found.pairs < 0.1)).all()
    assert 0 < apart.sum() < 8 * 7
    assert (np.diag(found.pairs) == 1).all()


def test_methods_that_are_equal_in_every_block_do_not_differ() -> None:
    found = stats.rank_blocks(np.tile([[0.1], [0.4], [0.2]], (1, 3)))
    assert found.p == 1
    assert (found.ranks == 2).all() and (found.pairs == 1).all()
    # 0.1 + 0.2 and 0.3 are equal rates
    assert stats.rank_blocks(np.array([[0.1 + 0.2, 0.3, 0.4]] * 3)).ranks[0].tolist() == [1.5, 1.5, 3]


DESIGN = Design(methods=("a", "b", "c", "d"), baseline="a", primary=("jail", "pku"), pivot="en")


def arm(tasks: Mapping[str, Mapping[str, list[int]]]) -> Arm:
    """Return the arm of task -> language -> whether each answer was unsafe."""
    rows = [
        {"task": task, "cell": f"{task} {language}", "asr": float(unsafe)}
        for task, languages in tasks.items()
        for language, answers in languages.items()
        for unsafe in answers
    ]
    return Arm(rows=pd.DataFrame(rows), seeds=(0,), planned=1)


def flat(rate: int, other: int) -> Arm:
    """Return an arm with so many of ten answers unsafe in each language of the two tasks."""
    return arm({"jail": {"en": [1] * rate + [0] * (10 - rate)}, "pku": {"en": [1] * other + [0] * (10 - other)}})


def test_a_block_is_one_model_on_one_task_with_languages_of_equal_weight() -> None:
    uneven = arm({"jail": {"en": [1, 1], "th": [0, 0, 0, 1]}, "pku": {"en": [0, 1]}})
    made = {("m", name, "asr"): part for name, part in zip("abc", (uneven, flat(3, 6), flat(9, 4)), strict=True)}
    found = blocks(made, ["m"], DESIGN)
    assert found.count == 2 and found.picture_only and found.left_out == ("d",)
    # a on jail: (1 + 1/4) / 2
    assert found.ranks.to_dict("records") == [
        {"model": "m", "task": "jail", "method": "a", "asr": 0.625, "rank": 2.0},
        {"model": "m", "task": "jail", "method": "b", "asr": 0.3, "rank": 1.0},
        {"model": "m", "task": "jail", "method": "c", "asr": 0.9, "rank": 3.0},
        {"model": "m", "task": "pku", "method": "a", "asr": 0.5, "rank": 2.0},
        {"model": "m", "task": "pku", "method": "b", "asr": 0.6, "rank": 3.0},
        {"model": "m", "task": "pku", "method": "c", "asr": 0.4, "rank": 1.0},
    ]
    assert found.p == pytest.approx(1)


def test_methods_are_ordered_by_their_mean_rank() -> None:
    rates = {"a": (9, 8), "b": (1, 2), "c": (5, 6), "d": (7, 1)}
    made = {(model, name, "asr"): flat(*rate) for model in "mnop" for name, rate in rates.items()}
    found = blocks(made, list("mnop"), DESIGN)
    assert found.mean_ranks.to_dict("list") == {"method": ["b", "d", "c", "a"], "mean_rank": [1.5, 2.0, 2.5, 4.0]}
    assert list(found.pairs.index) == list(found.pairs.columns) == ["b", "d", "c", "a"]
    # eight blocks: CD = 2.569 sqrt(4 · 5 / 48) = 1.658
    assert found.count == 8 and not found.picture_only and found.left_out == ()
    assert found.critical_difference == pytest.approx(1.658, abs=1e-3)
    assert [name for name in "dca" if found.pairs.loc["b", name] < 0.05] == ["a"]


def test_a_method_that_is_incomplete_on_one_model_is_left_out_everywhere() -> None:
    made = {(model, name, "asr"): flat(at, at) for model in "mn" for at, name in enumerate("abcd")}
    made["n", "b", "asr"] = Arm(rows=made["n", "b", "asr"].rows.iloc[:0], seeds=(), planned=1)
    found = blocks(made, ["m", "n"], DESIGN)
    assert set(found.ranks["method"]) == {"a", "c", "d"} and found.left_out == ("b",)
    assert found.ranks["rank"].max() == 3


def is_empty(found: Blocks) -> bool:
    tables = found.ranks, found.mean_ranks, found.pairs
    return all(table.empty for table in tables) and math.isnan(found.p) and found.picture_only


def test_too_few_blocks_or_methods_give_an_empty_result() -> None:
    one_task = {("m", name, "asr"): arm({"jail": {"en": [0, at % 2]}}) for at, name in enumerate("abcd")}
    assert is_empty(blocks(one_task, ["m"], DESIGN))
    two_methods = {("m", name, "asr"): flat(1, 2) for name in "ab"}
    assert is_empty(blocks(two_methods, ["m"], DESIGN))
    assert is_empty(blocks({}, ["m"], DESIGN))
