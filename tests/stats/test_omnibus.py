"""Cochran's Q: do the methods differ at all in a cell?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import cochrans_q
from statsmodels.stats.multitest import multipletests

from mlbench import stats
from mlbench.results.arms import Arm, Key
from mlbench.results.arms import arms as find_arms
from mlbench.results.cells import grid as find_grid
from mlbench.results.cells import per_seed, planned_jobs, prepare
from mlbench.results.omnibus import COLUMNS, comparable, omnibus
from tests.frames import Behaviour, Grid, jobs, verdicts

THREE = {"none": Behaviour(unsafe=0.6, steps=0), "good": Behaviour(unsafe=0.2), "fair": Behaviour(unsafe=0.4)}


def found_arms(grid: Grid, rows: pd.DataFrame | None = None) -> dict[Key, Arm]:
    prepared = prepare(verdicts(grid) if rows is None else rows)
    cells = per_seed(prepared, find_grid(prepared, planned_jobs(jobs(grid))), alpha=0.05)
    return find_arms(prepared, cells, grid.design())


@pytest.mark.parametrize("methods", [2, 3, 7])
def test_binary_outcomes_give_the_statistic_of_statsmodels(methods: int) -> None:
    rng = np.random.default_rng(methods)
    outcomes = (rng.random((50, methods)) < np.linspace(0.2, 0.5, methods)).astype(float)
    found, expected = stats.cochran_q(outcomes), cochrans_q(outcomes)
    assert (found.q, found.df) == (pytest.approx(expected.statistic), expected.df)
    assert found.p == pytest.approx(expected.pvalue)


def test_means_over_seeds_keep_the_permutation_variance() -> None:
    # Given the numbers of each block, E[Q] under permutations within blocks is k - 1, whatever the numbers are.
    rng = np.random.default_rng(0)
    outcomes = rng.integers(0, 4, size=(30, 4)) / 3
    drawn = [stats.cochran_q(rng.permuted(outcomes, axis=1)).q for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_outcomes_do_not_differ(value: float) -> None:
    assert stats.cochran_q(np.full((6, 3), value)) == (0, 2, 1)


def test_one_method_differs_from_nothing() -> None:
    found = stats.cochran_q(np.ones((6, 1)))
    assert math.isnan(found.q) and math.isnan(found.p)


def test_every_cell_of_a_model_is_tested_and_corrected_together() -> None:
    grid = Grid(methods=THREE, models=("a", "b"))
    rows = verdicts(grid)
    table = omnibus(found_arms(grid, rows), ["a", "b"], grid.design())
    assert list(table.columns) == COLUMNS
    assert table[["model", "language"]].values.tolist() == [[m, x] for m in "ab" for x in sorted(grid.languages)]
    for line in table.to_dict("records"):
        cell = rows[
            (rows["model"] == line["model"]) & (rows["task"] == "jail") & (rows["language"] == line["language"])
        ]
        unsafe = (cell.set_index(["prompt_id", "method"])["label"] == "unsafe").unstack("method")
        expected = cochrans_q(unsafe.to_numpy(dtype=float))
        assert (line["q"], line["p"]) == pytest.approx((expected.statistic, expected.pvalue))
        assert (line["task"], line["methods"], line["prompts"], line["df"]) == ("jail", 3, 40, 2)
    for _, part in table.groupby("model"):
        assert part["p_holm"].tolist() == pytest.approx(multipletests(part["p"], method="holm")[1].tolist())


def test_near_duplicates_are_one_block() -> None:
    grid = Grid(methods=THREE, per_cluster=4)
    rows = verdicts(grid)
    line = omnibus(found_arms(grid, rows), ["organism"], grid.design()).set_index("language").loc["it"]
    cell = rows[(rows["task"] == "jail") & (rows["language"] == "it")].assign(hit=lambda x: x["label"] == "unsafe")
    sums = cell.groupby(["cluster", "method"])["hit"].sum().unstack("method").to_numpy(dtype=float)
    spread = ((sums - sums.mean(axis=1, keepdims=True)) ** 2).sum()
    assert line["prompts"] == 10
    assert line["q"] == pytest.approx(2 * ((sums.sum(axis=0) - sums.sum(axis=0).mean()) ** 2).sum() / spread)


def test_an_incomplete_method_is_left_out_and_a_single_one_is_not_tested() -> None:
    grid = Grid(methods=THREE)
    rows = verdicts(grid)
    short = rows[~((rows["method"] == "fair") & (rows["prompt_id"] == "p3"))]
    assert set(omnibus(found_arms(grid, short), ["organism"], grid.design())["methods"]) == {2}
    alone = Grid(methods={"none": THREE["none"]})
    table = omnibus(found_arms(alone), ["organism"], alone.design())
    assert table.empty and list(table.columns) == COLUMNS


def test_the_largest_set_of_methods_on_the_same_prompts_is_compared() -> None:
    grid = Grid(methods=THREE)
    rows = verdicts(grid)
    odd = (rows["method"] == "none") & (rows["prompt_id"] == "p3")
    rows.loc[odd, "cluster"] = "another"
    assert list(comparable(found_arms(grid, rows), "organism", grid.design())) == ["good", "fair"]


def test_seeds_of_different_number_are_still_the_same_prompts() -> None:
    grid = Grid(methods=THREE, seeds=(0, 1, 2), per_cluster=3)
    rows = verdicts(grid)
    lost = (rows["method"] == "good") & (rows["seed"] == 2) & (rows["prompt_id"] == "p0")
    found = found_arms(grid, rows[~lost])
    assert found["organism", "good", "asr"].seeds == (0, 1)
    assert list(comparable(found, "organism", grid.design())) == ["none", "good", "fair"]
