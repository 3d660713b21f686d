"""Losses within a margin: the score test beside two one-sided t-tests on the means of prompts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.weightstats import ttost_paired

from mlbench import stats


def losses(mean: float, seed: int) -> np.ndarray:
    """Return 300 prompt-level losses of a method, multiples of 1/8 as with eight languages."""
    drawn = np.random.default_rng(seed).normal(mean, 0.2, 300)
    return np.asarray(np.clip(np.round(8 * drawn) / 8, -1, 1), dtype=np.float64)


def single(mean: float, seed: int) -> np.ndarray:
    """Return 1,000 losses in one language: -1, 0 or 1, a fifth of them not 0."""
    share = (0.2 + mean) / 2
    drawn = np.random.default_rng(seed).random(1000)
    return np.where(drawn < share, 1.0, np.where(drawn < 0.2, -1.0, 0.0))


MEANS, MARGINS = [-0.06, -0.03, -0.01, 0.0, 0.01, 0.03, 0.06], [0.02, 0.04]


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("margin", MARGINS)
def test_the_score_test_decides_as_paired_t_tests_do(mean: float, margin: float) -> None:
    data = single(mean, 3)
    both, below, above = ttost_paired(data, np.zeros(len(data)), -margin, margin)
    # below: the loss is -margin or less; above: it is margin or more
    assert stats.not_inferior(-data, margin) == pytest.approx(below[1], abs=0.02)
    assert stats.not_inferior(data, margin) == pytest.approx(above[1], abs=0.02)
    assert stats.equivalent(data, margin) == pytest.approx(both, abs=0.02)
    assert (stats.equivalent(data, margin) < 0.05) == (both < 0.05)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("margin", MARGINS)
def test_the_score_test_decides_as_paired_t_tests_do_over_several_languages(mean: float, margin: float) -> None:
    data = losses(mean, 3)
    both, _, above = ttost_paired(data, np.zeros(len(data)), -margin, margin)
    for found, expected in ((stats.not_inferior(data, margin), above[1]), (stats.equivalent(data, margin), both)):
        assert found == pytest.approx(expected, abs=0.005)


def test_few_small_losses_do_not_exclude_large_ones_elsewhere() -> None:
    # Three of 300 prompts lose one of eight languages. A t-test is sure (p < 1e-50); prompts lost in all of them, of
    # which none happens to be here, are reckoned in: the step is (3/8 + 5) / 8, and most of the variance is theirs.
    data = np.array([1 / 8] * 3 + [0.0] * 297)
    mean, step = 3 / 8 / 300, (3 / 8 + 5) / 8
    share = (0.02 - mean) / (step - mean)
    variance = (1 - share) * 3 / 64 / 300 + share * step**2 - 0.02**2
    assert stats.not_inferior(data, 0.02) == pytest.approx(norm.cdf((mean - 0.02) / (variance / 300) ** 0.5))
    assert 0.001 < stats.not_inferior(data, 0.02) < 0.01


def test_a_gain_excludes_a_loss_and_is_no_equivalence() -> None:
    gains = losses(-0.2, 1)
    assert stats.not_inferior(gains, 0.02) < 1e-6
    assert stats.equivalent(gains, 0.02) > 0.99


def test_prompts_without_any_difference_are_equivalent_only_when_they_are_many() -> None:
    # A t-test has no variance here. With 1 - 0.02 of 300 kept: z = -0.02 / sqrt(0.02 · 0.98 / 300)
    assert stats.equivalent(np.zeros(300), 0.02) == pytest.approx(0.006679, abs=1e-5)
    assert stats.equivalent(np.zeros(100), 0.02) > 0.05
