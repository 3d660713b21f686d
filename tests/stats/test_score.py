"""Tango's interval of one row, against a search over all nuisance parameters, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from mlbench import stats


def clustered(sums, counts=None):
    sums = np.atleast_2d(np.asarray(sums, dtype=float))
    counts = np.ones_like(sums) if counts is None else np.atleast_2d(np.asarray(counts, dtype=float))
    clusters = tuple(f"c{index:04}" for index in range(sums.shape[1]))
    return stats.Clustered(rows=tuple("abc"[: len(sums)]), clusters=clusters, sums=sums, counts=counts)


@pytest.mark.parametrize(("up", "down", "size"), [(0, 0, 315), (3, 0, 180), (2, 9, 60), (60, 50, 315), (1, 6, 9)])
def test_interval_of_a_row_difference_is_tangos(up, down, size):
    row = np.array([1.0] * up + [-1.0] * down + [0.0] * (size - up - down))
    low, high = stats.tango(clustered([row]))[0]
    won, lost = (row > 0).mean(), (row < 0).mean()
    for end in (low, high):
        # The likeliest share q of losses if the difference is `end`, by a search over all of them.
        q = np.linspace(max(0, -end), (1 - end) / 2, 2_000_001)[1:-1]
        fit = won * np.log(q + end) + lost * np.log(q) + (1 - won - lost) * np.log(np.maximum(1 - 2 * q - end, 1e-300))
        likeliest = q[np.argmax(fit)]
        score = (won - lost - end) / math.sqrt((2 * likeliest + end - end**2) / size)
        assert abs(score) == pytest.approx(1.959964, abs=2e-3)
    assert low <= won - lost <= high


def test_interval_of_a_row_without_discordant_prompts_has_wilsons_ends():
    upper = proportion_confint(0, 315, method="wilson")[1]
    assert stats.tango(clustered([np.zeros(315)]))[0] == pytest.approx((-upper, upper))


def test_interval_of_a_row_turns_around_with_the_methods():
    row = np.array([1.0, 1.0, -1.0] + [0.0] * 57 + [1.0, 1 / 3])
    low, high = stats.tango(clustered([row, np.roll(row, 1)]))[0]
    assert stats.tango(clustered([-row]))[0] == pytest.approx((-high, -low))


def test_interval_of_a_row_counts_clusters_not_prompts():
    single = clustered([[1.0] * 9 + [-1.0] * 3 + [0.0] * 48])
    whole = clustered([[4.0] * 9 + [-4.0] * 3 + [0.0] * 48], [[4] * 60])
    # Up to Korn and Graubard's correction for estimating the variance between 60 clusters.
    assert list(stats.tango(whole)[0]) == pytest.approx(list(stats.tango(single)[0]), abs=0.005)
