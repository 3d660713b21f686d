"""Differences over seeds and prompts, against scipy, formulas by hand, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from mlbench import stats
from mlbench.results.arms import arms
from mlbench.results.cells import grid as cell_grid
from mlbench.results.cells import per_seed, planned_jobs, prepare
from mlbench.results.seeds import seed_intervals, seeds
from tests.frames import Behaviour, Grid, jobs, verdicts


def values(rng, *, seed_sd=0.0, prompt_sd=0.2, noise=0.1, count=3, prompts=40):
    prompt = rng.normal(0, prompt_sd, prompts)
    return prompt + rng.normal(0, seed_sd, (count, 1)) + rng.normal(0, noise, (count, prompts))


def test_seeds_that_change_nothing_give_the_t_interval_over_prompts():
    row = np.random.default_rng(0).normal(0.05, 0.2, 40)
    found = stats.seed_difference(np.tile(row, (3, 1)), np.zeros((3, 40)))
    expected = scipy_stats.ttest_1samp(row, 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.sd == 0
    assert math.isnan(found.p_seeds)


def test_prompts_that_do_not_differ_give_the_paired_t_interval_over_seeds():
    shift = np.array([[-0.10], [-0.04], [-0.07]])
    found = stats.seed_difference(np.zeros((3, 40)) + shift, np.zeros((3, 40)))
    expected = scipy_stats.ttest_1samp(shift.ravel(), 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.p_seeds == pytest.approx(expected.pvalue)
    assert found.sd == pytest.approx(0.03)


def test_interval_is_howes_by_hand():
    # Means of the seeds 0.1 and 0.3, of the prompts 0.1, 0.2 and 0.3; no interaction.
    # Variance of their mean between seeds 0.02 / 2 with 1 degree of freedom, between prompts 0.01 / 3 with 2;
    # t quantiles of 75 %: 1 and 0.8165.
    data = np.array([[0.0, 0.1, 0.2], [0.2, 0.3, 0.4]])
    found = stats.seed_difference(data, np.zeros((2, 3)), alpha=0.5)
    half = math.sqrt(1**2 * 0.01 + 0.8165**2 * 0.01 / 3)
    assert found.interval == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert stats.seed_difference(data, np.zeros((2, 3))).interval == (-1, 1)  # t of one degree of freedom is 12.7


def test_noise_is_not_counted_twice():
    # Prompts and seeds do not differ but by noise: each part holds it once, and it is taken off that of prompts.
    rng = np.random.default_rng(0)
    data = values(rng, prompt_sd=0, noise=0.3, count=4, prompts=4000)
    # Noise counted twice would be 17 % wider.
    half = scipy_stats.t.ppf(0.975, 3) * data.mean(axis=1).std(ddof=1) / 2
    found = stats.seed_difference(data, np.zeros((4, 4000)))
    assert (found.interval.high - found.interval.low) / 2 == pytest.approx(half, rel=0.05)


def test_p_is_the_level_at_which_the_interval_reaches_zero():
    rng = np.random.default_rng(4)
    one, two = values(rng, seed_sd=0.02) + 0.06, values(rng, seed_sd=0.02)
    for paired in (True, False):
        p = stats.seed_difference(one, two, paired=paired).p
        assert 0 < p < 1
        assert stats.seed_difference(one, two, paired=paired, alpha=p).interval.low == pytest.approx(0, abs=1e-9)


def test_seeds_of_different_numbers_are_compared_as_independent():
    rng = np.random.default_rng(4)
    one, two = values(rng, seed_sd=0.05, count=5) + 0.06, values(rng, seed_sd=0.05, count=3)
    found = stats.seed_difference(one, two, paired=False)
    welch = scipy_stats.ttest_ind(one.mean(axis=1), two.mean(axis=1), equal_var=False)
    assert found.p_seeds == pytest.approx(welch.pvalue)
    assert found.delta == pytest.approx(one.mean() - two.mean())


def test_a_single_seed_says_nothing_about_new_seeds():
    found = stats.seed_difference(np.full((1, 9), 0.5), np.zeros((3, 9)), paired=False)
    assert found.delta == 0.5
    assert np.isnan([*found.interval, found.p, found.p_seeds, found.sd]).all()


def test_data_that_never_vary_keep_an_interval_but_no_p():
    found = stats.seed_difference(np.zeros((3, 40)), np.zeros((3, 40)))
    assert found.interval.low < 0 < found.interval.high
    assert math.isnan(found.p)


def test_values_of_clusters_have_the_macro_rate_as_their_mean_and_its_error_as_their_spread():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 6, (3, 400)).astype(float)
    sums = rng.binomial(counts.astype(int), 0.3).astype(float)
    names = tuple(f"c{index:03}" for index in range(400))
    data = stats.Clustered(rows=("a", "b", "c"), clusters=names, sums=sums, counts=counts)
    found = stats.cluster_values(data)
    assert found.mean() == pytest.approx(data.macro())
    drawn = stats.draw_rates(data, resamples=4000).mean(axis=1)
    assert found.std(ddof=1) / math.sqrt(400) == pytest.approx(drawn.std(), rel=0.05)


@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.1])
def test_interval_covers_differences_of_methods_trained_again(seed_sd):
    rng = np.random.default_rng(2)
    found = [
        stats.seed_difference(values(rng, seed_sd=seed_sd), values(rng, seed_sd=seed_sd)).interval for _ in range(600)
    ]
    covered = np.mean([low <= 0 <= high for low, high in found])
    # 93 to 97 %, give or take three standard errors of 600 runs.
    assert 0.93 - 0.027 <= covered <= 0.97 + 0.027


METHODS = {"none": Behaviour(unsafe=0.6), "good": Behaviour(unsafe=0.1), "copy": Behaviour(copies="none")}


def tables(grid, rows):
    design, rows, planned = grid.design(), prepare(rows), planned_jobs(jobs(grid))
    cells = per_seed(rows, cell_grid(rows, planned), alpha=design.alpha)
    found = arms(rows, cells, design)
    return seeds(found, ["organism"], design), seed_intervals(found, ["organism"], design).set_index("method")


def test_every_seed_has_its_line():
    grid = Grid(methods=METHODS, seeds=(0, 1, 2))
    rows = verdicts(grid)
    lines, _ = tables(grid, rows)
    unsafe = rows[rows["task"] == "jail"].assign(hit=lambda x: x["label"] == "unsafe")
    expected = unsafe.groupby(["method", "seed"])["hit"].mean()
    refused = rows[rows["task"] == "benign"].assign(hit=lambda x: x["label"] == "refused")
    assert len(lines) == 9
    for line in lines.to_dict("records"):
        assert line["asr"] == pytest.approx(expected[line["method"], line["seed"]])
        assert line["delta"] == pytest.approx(line["asr"] - expected["none"].mean())
        mine = (refused["method"] == line["method"]) & (refused["seed"] == line["seed"])
        assert line["over_refusal"] == pytest.approx(refused.loc[mine, "hit"].mean())
        assert line["invalid"] == 0


def test_interval_over_seeds_holds_the_difference():
    grid = Grid(methods=METHODS, seeds=(0, 1, 2))
    lines, intervals = tables(grid, verdicts(grid))
    good, base = intervals.loc["good"], intervals.loc["none"]
    delta = lines.loc[lines["method"] == "good", "delta"].mean()
    assert good["seed_low"] < delta < good["seed_high"] < 0
    assert good["seed_p"] < 0.05
    assert good["seeds_agree"]
    assert pd.isna(base[["seed_low", "seed_high", "seed_p", "seed_p_paired"]]).all()


def test_a_single_seed_has_no_interval_over_seeds():
    grid = Grid(methods=METHODS)
    lines, intervals = tables(grid, verdicts(grid))
    assert len(lines) == 3
    assert intervals[["seed_low", "seed_high", "seed_p", "seed_p_paired"]].isna().all().all()


def test_seeds_that_change_nothing_give_the_interval_over_prompts():
    grid = Grid(methods=METHODS, seeds=(0, 1, 2))
    one = verdicts(Grid(methods=METHODS))
    rows = pd.concat([one.assign(seed=seed) for seed in grid.seeds], ignore_index=True)
    _, intervals = tables(grid, rows)
    _, fixed = tables(Grid(methods=METHODS, seeds=(0,)), one)
    assert fixed["seed_low"].isna().all()
    good = intervals.loc["good"]
    assert good["seed_p"] < 0.01
    assert pd.isna(good["seed_p_paired"])
    assert good["seed_low"] < good["seed_high"] < 0


def test_a_method_with_fewer_seeds_is_compared_as_independent():
    grid = Grid(methods=METHODS, seeds=(0, 1, 2))
    rows = verdicts(grid)
    fewer = rows[~((rows["method"] == "good") & (rows["seed"] == 2))]
    lines, intervals = tables(grid, fewer)
    assert (lines["method"] == "good").sum() == 2
    assert np.isfinite(intervals.loc["good", ["seed_low", "seed_high", "seed_p"]].astype(float)).all()
