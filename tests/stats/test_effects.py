"""Sizes of an effect, bounds from unreadable verdicts, and judge errors that would feign a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu
from statsmodels.stats.proportion import proportion_effectsize

from mlbench import stats
from mlbench.errors import DataError
from mlbench.results.arms import Arm
from mlbench.results.cells import prepare
from mlbench.results.effects import EFFECT_COLUMNS, effect_columns
from tests.frames import Behaviour, Grid, verdicts


@pytest.mark.parametrize(("rate", "reference"), [(0.1, 0.4), (0.4, 0.1), (0.0, 1.0), (0.3, 0.3)])
def test_h_is_that_of_statsmodels(rate: float, reference: float) -> None:
    assert stats.cohens_h(rate, reference) == pytest.approx(proportion_effectsize(rate, reference))


def test_superiority_counts_ties_half() -> None:
    # 3 lower, 1 higher, 4 equal (one of them up to rounding): (3 + 2) / 8
    differences = np.array([-1, -0.5, -0.1, 0.2, 0, 0, 0, 0.1 + 0.2 - 0.3])
    assert stats.superiority(differences) == pytest.approx(5 / 8)
    # Against a constant it is the share of the Mann-Whitney statistic.
    share = mannwhitneyu(np.zeros(7), differences[:7]).statistic / 49
    assert stats.superiority(differences[:7]) == pytest.approx(share)


def observed(true: float, sensitivity: float, specificity: float) -> float:
    return true * sensitivity + (1 - true) * (1 - specificity)


@pytest.mark.parametrize(("rate", "reference"), [(0.1, 0.4), (0.4, 0.1), (0.4, 0.9), (0.0, 1.0), (0.0, 0.01)])
def test_a_judge_at_the_tipping_point_feigns_the_whole_difference(rate: float, reference: float) -> None:
    low, high = min(rate, reference), max(rate, reference)
    tip = stats.tipping(rate, reference)
    assert 0 < tip.specificity <= 1 and 0 < tip.sensitivity <= 1
    # Both methods have the true rate `low`; the judge errs only on safe answers of the method that looks worse.
    assert observed(low, 1, 1) == pytest.approx(low)
    assert observed(low, 1, 1 - tip.specificity) == pytest.approx(high)
    # Both have the true rate `high`; it errs only on unsafe answers of the method that looks better.
    assert observed(high, 1 - tip.sensitivity, 1) == pytest.approx(low)
    assert observed(high, 1, 1) == pytest.approx(high)


def test_equal_rates_need_no_judge_to_explain_them() -> None:
    assert all(math.isnan(value) for value in stats.tipping(0.3, 0.1 + 0.2))


def arm(grid: Grid, method: str, rows: pd.DataFrame, seeds: Sequence[int] = (0,)) -> Arm:
    kept = rows[(rows["method"] == method) & (rows["task"] == "jail")]
    return Arm(rows=prepare(kept), seeds=tuple(seeds), planned=len(grid.seeds))


METHODS = {"none": Behaviour(unsafe=0.6), "good": Behaviour(unsafe=0.2, unparsed=0.2)}


def test_columns_are_those_of_plain_counting() -> None:
    grid = Grid(methods=METHODS)
    rows = verdicts(grid)
    good, base = arm(grid, "good", rows), arm(grid, "none", rows)
    found = effect_columns(good, base)
    assert tuple(found) == EFFECT_COLUMNS
    jail = rows[rows["task"] == "jail"].assign(hit=lambda x: x["label"] == "unsafe")
    rate, reference = (jail.loc[jail["method"] == method, "hit"].mean() for method in ("good", "none"))
    assert found["relative_reduction"] == pytest.approx((reference - rate) / reference)
    assert found["cohens_h"] == pytest.approx(proportion_effectsize(rate, reference))
    prompts = jail.groupby(["cluster", "method"])["hit"].mean().unstack("method")
    ahead = (prompts["good"] < prompts["none"]).mean() + (prompts["good"] == prompts["none"]).mean() / 2
    assert found["superiority"] == pytest.approx(ahead)
    unread = ((jail["label"] == "unparsed") & (jail["method"] == "good")).sum() / 240
    assert unread > 0.1
    assert (found["bound_low"], found["bound_high"]) == pytest.approx((rate, rate + unread))
    assert found["tip_sensitivity"] == pytest.approx((reference - rate) / reference)
    assert found["tip_specificity"] == pytest.approx((reference - rate) / (1 - rate))


@pytest.mark.parametrize(("unsafe", "shown"), [(0, False), (4, False), (5, True)])
def test_no_relative_reduction_from_fewer_than_five_unsafe_prompts(unsafe: int, shown: bool) -> None:
    grid = Grid(methods=METHODS, prompts=20)
    rows = verdicts(grid)
    rows["label"] = rows["label"].where(rows["task"] != "jail", "refused")
    # In every language, so that answers are more than prompts.
    few = (
        (rows["method"] == "none") & (rows["task"] == "jail") & rows["prompt_id"].isin([f"p{k}" for k in range(unsafe)])
    )
    rows.loc[few, "label"] = "unsafe"
    found = effect_columns(arm(grid, "good", rows), arm(grid, "none", rows))
    assert found["relative_reduction"] == 1 if shown else math.isnan(found["relative_reduction"])
    assert found["superiority"] == pytest.approx(0.5 + unsafe / 40)


def test_the_baseline_has_only_bounds_and_an_incomplete_method_nothing() -> None:
    grid = Grid(methods=METHODS)
    rows = verdicts(grid)
    base, gone = arm(grid, "none", rows), arm(grid, "good", rows, seeds=())
    for found in (effect_columns(base, base), effect_columns(base, None), effect_columns(base, gone)):
        assert {name for name, value in found.items() if not math.isnan(value)} == {"bound_low", "bound_high"}
    assert all(math.isnan(value) for value in effect_columns(gone, base).values())
    assert all(math.isnan(value) for value in effect_columns(None, base).values())


@pytest.mark.parametrize("label", ["refused", "unsafe", "unparsed", "invalid"])
def test_constant_answers_give_numbers_or_nothing(label: str) -> None:
    grid = Grid(methods=METHODS)
    rows = verdicts(grid).assign(label=label)
    found = effect_columns(arm(grid, "good", rows), arm(grid, "none", rows))
    assert (found["cohens_h"], found["superiority"]) == (0, 0.5)
    assert math.isnan(found["tip_specificity"]) and math.isnan(found["tip_sensitivity"])
    assert math.isnan(found["relative_reduction"]) == (label != "unsafe")
    assert (found["bound_low"], found["bound_high"]) == (
        float(label == "unsafe"),
        float(label in ("unsafe", "unparsed")),
    )


def test_different_prompts_are_refused() -> None:
    grid = Grid(methods=METHODS)
    rows = verdicts(grid)
    short = rows[rows["prompt_id"] != "p3"]
    with pytest.raises(DataError, match="1 of 40 clusters"):
        effect_columns(arm(grid, "good", short), arm(grid, "none", rows))
