"""The exact sign test of one language: McNemar's where a prompt has one answer, and what a reader sees of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta
from statsmodels.stats.contingency_tables import mcnemar

from mlbench import stats
from mlbench.results import compute
from mlbench.results.comparisons import EXACT_COLUMNS
from tests.frames import Behaviour, Grid, jobs, verdicts

METHODS = {"none": Behaviour(unsafe=0.6, steps=0), "good": Behaviour(unsafe=0.2, accuracy=0.9)}


def differences(won: int, lost: int, same: int = 5) -> np.ndarray:
    return np.array([-1.0] * won + [1.0] * lost + [0.0] * same)


@pytest.mark.parametrize(("won", "lost"), [(0, 1), (1, 1), (6, 0), (3, 9), (40, 21)])
def test_p_is_that_of_mcnemars_exact_test(won: int, lost: int) -> None:
    found = stats.sign_test(differences(won, lost))
    assert (found.won, found.lost) == (won, lost)
    assert found.p == pytest.approx(mcnemar([[7, lost], [won, 5]], exact=True).pvalue)


def test_six_won_and_none_lost_is_the_smallest_significant_result() -> None:
    # Two-sided: 2 / 2^6 = 0.03125, and 2 / 2^5 = 0.0625
    assert stats.sign_test(differences(6, 0)).p == pytest.approx(0.03125)
    assert stats.sign_test(differences(5, 0)).p == pytest.approx(0.0625)


def test_the_interval_of_the_odds_ratio_comes_from_quantiles_of_the_beta_distribution() -> None:
    found = stats.sign_test(differences(9, 3))
    low, high = beta.ppf(0.025, 3, 10), beta.ppf(0.975, 4, 9)
    assert found.odds_ratio == pytest.approx(3 / 9)
    assert found.interval == pytest.approx((low / (1 - low), high / (1 - high)))


def test_the_interval_leaves_out_one_exactly_when_the_test_is_significant() -> None:
    for won in range(15):
        for lost in range(15):
            found = stats.sign_test(differences(won, lost), alpha=0.1)
            assert (found.p <= 0.1) == (found.interval.low > 1 or found.interval.high < 1), (won, lost)


def test_nothing_lost_and_nothing_won_are_odds_of_zero_and_infinity() -> None:
    none_lost, none_won = stats.sign_test(differences(4, 0)), stats.sign_test(differences(0, 4))
    # Clopper-Pearson of 0 of 4: the upper end is 1 - 0.025^(1/4)
    end = 1 - 0.025**0.25
    assert (none_lost.odds_ratio, none_lost.interval.low) == (0, 0)
    assert none_lost.interval.high == pytest.approx(end / (1 - end))
    assert (none_won.odds_ratio, none_won.interval.high) == (math.inf, math.inf)
    assert none_won.interval.low == pytest.approx((1 - end) / end)


def test_without_a_difference_there_are_no_odds() -> None:
    found = stats.sign_test(np.zeros(8))
    assert (found.won, found.lost, found.p) == (0, 0, 1)
    assert all(math.isnan(value) for value in (found.odds_ratio, *found.interval))


def test_a_difference_that_is_only_rounding_counts_for_nobody() -> None:
    found = stats.sign_test(np.array([0.1 + 0.2 - 0.3, 0.3 - 0.1 - 0.2, -0.5]))
    assert (found.won, found.lost) == (1, 0)


def test_each_language_line_counts_its_prompts_by_hand() -> None:
    grid = Grid(methods=METHODS)
    rows = verdicts(grid)
    table = compute(rows, jobs(grid), grid.design()).comparisons
    lines = table[table["endpoint"] == "asr"].set_index("scope")
    for language in grid.languages:
        cell = rows[(rows["task"] == "jail") & (rows["language"] == language)]
        unsafe = (cell.set_index(["prompt_id", "method"])["label"] == "unsafe").unstack("method")
        won, lost = (unsafe["none"] & ~unsafe["good"]).sum(), (unsafe["good"] & ~unsafe["none"]).sum()
        line = lines.loc[f"language {language}"]
        assert (line["won"], line["lost"]) == (won, lost)
        assert line["delta"] == pytest.approx((lost - won) / grid.prompts)
        assert line["p_exact"] == pytest.approx(mcnemar([[0, lost], [won, 0]], exact=True).pvalue)
    assert lines.loc[["all", "tier low", "unseen"], list(EXACT_COLUMNS)].isna().all(axis=None)


def test_a_prompt_is_won_where_accuracy_is_higher() -> None:
    grid = Grid(methods=METHODS)
    table = compute(verdicts(grid), jobs(grid), grid.design()).comparisons
    lines = table[(table["endpoint"] == "accuracy") & table["won"].notna()]
    assert len(lines) == len(grid.languages)
    assert lines["delta"].tolist() == pytest.approx(((lines["won"] - lines["lost"]) / grid.prompts).tolist())
    assert (lines["odds_ratio"] < 1).all()
