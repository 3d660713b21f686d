"""Tango's interval for the difference of two rates of one row: it holds at low rates too.

Two methods that are both safe differ on a few prompts only; the percentile and t intervals of such a difference are
too narrow, and of no discordant prompt they make nothing at all.

References:
    Tango, Statistics in Medicine 17 (1998): the score interval of a paired difference.
    Dean and Pagano, Journal of Survey Statistics and Methodology 3 (2015): score intervals with an effective size.
"""

from __future__ import annotations

import numpy as np

from mlbench.stats.rates import Clustered, FloatArray, Interval, quantile, row_size

HALVINGS = 50  # of an interval of length 2 at most: the ends are exact to 2e-15


def tango(difference: Clustered, *, alpha: float = 0.05) -> tuple[Interval, ...]:
    """Return one interval per row of "method less reference", `sums` being differences of the two.

    With one answer to one prompt per cluster this is Tango's interval. Otherwise the differences of clusters, in
    units of an average cluster, take the place of discordant prompts, and the size is the effective one.
    """
    rates, prompts = difference.rates(), difference.counts.sum(axis=1)
    won = np.maximum(difference.sums, 0).sum(axis=1) / prompts
    lost = won - rates
    simple = won + lost - rates**2
    size = np.array([row_size(difference, row, float(simple[row]), alpha) for row in range(len(rates))])
    z = quantile(1 - alpha / 2)
    lows, highs = _end(won, lost, size, z), _end(won, lost, size, -z)
    return tuple(Interval(float(low), float(high)) for low, high in zip(lows, highs, strict=True))


def _end(up: FloatArray, down: FloatArray, size: FloatArray, z: float) -> FloatArray:
    """Return the difference at which the score is `z`, (rows,), by halving the side of the rate on which it lies."""
    rate = up - down
    low, high = (np.full_like(rate, -1.0), rate.copy()) if z > 0 else (rate.copy(), np.full_like(rate, 1.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = _score(up, down, size, middle) > z
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _score(up: FloatArray, down: FloatArray, size: FloatArray, difference: FloatArray) -> FloatArray:
    """Return by how many standard errors the rate lies above a supposed difference; it falls in the difference."""
    # q, the likeliest share of prompts lost if the difference is D: 2 q² - (u + d - (2 - u + d) D) q - d D (1 - D) = 0
    linear = -up - down + (2 - up + down) * difference
    root = np.sqrt(np.maximum(linear**2 + 8 * down * difference * (1 - difference), 0))
    share = (root - linear) / 4
    variance = np.maximum(2 * share + difference * (1 - difference), 1e-15) / size
    return np.asarray((up - down - difference) / np.sqrt(variance), dtype=np.float64)
