"""Rates of one method and their intervals; clusters are resampled, never answers.

References:
    Kish, Survey Sampling (1965): clusters of unequal size.
    Korn and Graubard, Survey Methodology 24 (1998): intervals with an effective sample size.
    Dean and Pagano, Journal of Survey Statistics and Methodology 3 (2015): the same for the Wilson interval.
    Hesterberg, The American Statistician 69 (2015) 371: the expanded percentile interval of the bootstrap.
    Miller, arXiv 2411.00640: clustered errors for language-model evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.errors import DataError, shorten

FloatArray = NDArray[np.float64]

BATCH_NUMBERS = 2_000_000  # 16 MB of doubles per batch of resamples


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """Outcomes summed within clusters.

    Attributes:
        rows: What is weighed equally in the macro rate: languages, or pairs of task and language.
        clusters: Names of the clusters, sorted.
        sums: Outcomes per row and cluster, seeds averaged, (rows, clusters).
        counts: Prompts per row and cluster, 0 where a row lacks the cluster, (rows, clusters).
        repeats: Answers to a prompt, over which `sums` are averaged: seeds times samples.
    """

    rows: tuple[str, ...]
    clusters: tuple[str, ...]
    sums: FloatArray
    counts: FloatArray
    repeats: float = 1.0

    def __post_init__(self) -> None:
        if not self.rows or not self.clusters:
            raise DataError("there are no rows to compute a rate from")
        shape = (len(self.rows), len(self.clusters))
        assert self.sums.shape == self.counts.shape == shape, (self.sums.shape, self.counts.shape, shape)
        empty = [row for row, n in zip(self.rows, self.counts.sum(axis=1), strict=True) if n == 0]
        if empty:
            raise DataError(f"no prompts at all in {shorten(empty)}")

    def rates(self) -> FloatArray:
        """Return the rate of each row, (rows,)."""
        return np.asarray(self.sums.sum(axis=1) / self.counts.sum(axis=1), dtype=np.float64)

    def macro(self) -> float:
        """Return the mean of the rows' rates, each row with the same weight."""
        return float(self.rates().mean())

    def keep(self, clusters: NDArray[np.bool_]) -> Clustered:
        """Return the same outcomes on some of the clusters, (clusters,)."""
        names = tuple(name for name, kept in zip(self.clusters, clusters, strict=True) if kept)
        return replace(self, clusters=names, sums=self.sums[:, clusters], counts=self.counts[:, clusters])


class Interval(NamedTuple):
    """An interval, both ends in the unit of the value."""

    low: float
    high: float


def wilson(data: Clustered, *, alpha: float = 0.05) -> tuple[Interval, ...]:
    """Return one Wilson interval per row, with the effective sample size of clustered prompts.

    With one answer to one prompt per cluster this is the plain Wilson interval.
    """
    return tuple(
        wilson_interval(rate, row_size(data, row, rate * (1 - rate), alpha), alpha)
        for row, rate in enumerate(data.rates().tolist())
    )


def row_size(data: Clustered, row: int, simple: float, alpha: float) -> float:
    """Return the effective sample size of one row, given the variance of a single independent prompt."""
    held = data.counts[row] > 0
    sums, counts = data.sums[row, held], data.counts[row, held]
    # The ratio Σ s / Σ n is off by (s_c - p n_c) / Σ n in each cluster.
    errors = (sums - sums.sum() / counts.sum() * counts) / counts.sum()
    return _effective_size(simple, errors, counts, repeats=data.repeats, alpha=alpha)


def _effective_size(simple: float, errors: FloatArray, counts: FloatArray, *, repeats: float, alpha: float) -> float:
    """Return how many independent prompts have a rate that varies as much; never more than there are answers.

    Where nothing varies it is the number of clusters: such data do not say how alike the prompts of a cluster are.

    Args:
        simple: Variance of a single independent prompt.
        errors: Each cluster's part in the error of the rate, (clusters,).
        counts: Prompts of each cluster, (clusters,).
    """
    clusters, prompts, spread = len(counts), float(counts.sum()), float((errors**2).sum())
    if clusters < 2 or prompts <= 1 or simple <= 1e-15 or spread <= 1e-15:
        return float(clusters)
    # Clusters of unequal size say as much about the variance as (Σ n)² / Σ n² equal ones (Kish).
    equal = max(2.0, prompts**2 / float((counts**2).sum()))
    variance = equal / (equal - 1) * spread
    size = prompts / (prompts - 1) * simple / variance * _few_clusters(equal, prompts, 1 - alpha / 2)
    return min(size, prompts * repeats)


@cache
def _few_clusters(clusters: float, prompts: float, tail: float) -> float:
    """Return Korn and Graubard's correction: few clusters estimate the variance badly."""
    from scipy.special import stdtrit

    return float(stdtrit(prompts - 1, tail) / stdtrit(clusters - 1, tail)) ** 2


def wilson_interval(rate: float, size: float, alpha: float) -> Interval:
    """Return the Wilson interval of a rate over an effective number of observations."""
    z2 = quantile(1 - alpha / 2) ** 2
    # (p + z²/2n ± z sqrt(p (1-p) / n + z²/4n²)) / (1 + z²/n)
    centre = (rate + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (rate * (1 - rate) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    return Interval(0.0 if rate == 0 else max(0.0, centre - half), 1.0 if rate == 1 else min(1.0, centre + half))


def draw_rates(data: Clustered, *, resamples: int = 10_000, seed: int = 0) -> FloatArray:
    """Return bootstrap rates, (resamples, rows): every resample draws one set of clusters for all rows.

    Resamples that miss a row entirely are left out, so there may be fewer of them.
    """
    rng = np.random.default_rng(seed)
    size = len(data.clusters)
    drawn = []
    for batch in batches(resamples, size):
        picks = rng.integers(size, size=(batch, size)) + size * np.arange(batch)[:, None]
        weights = np.bincount(picks.ravel(), minlength=batch * size).reshape(batch, size).astype(np.float64)
        totals = weights @ data.counts.T
        kept = (totals > 0).all(axis=1)
        drawn.append((weights[kept] @ data.sums.T) / totals[kept])
    return np.concatenate(drawn)


def cluster_values(data: Clustered) -> FloatArray:
    """Return one number per cluster, (clusters,): their mean is the macro rate, their spread its sampling error.

    With one prompt per cluster and row, it is the mean over rows. Otherwise the rate is a ratio, and the numbers are
    its linearisation: clusters that hold more prompts than others are not taken for clusters with a higher rate.
    """
    rates, totals = data.rates()[:, None], data.counts.sum(axis=1, keepdims=True)
    lifts = (data.sums - rates * data.counts) / totals
    return np.asarray(data.macro() + len(data.clusters) * lifts.mean(axis=0), dtype=np.float64)


def macro_interval(data: Clustered, *, alpha: float = 0.05) -> Interval:
    """Return the Wilson interval of the macro rate, with the effective sample size of its clusters.

    Percentile and t intervals miss low rates, the ones that good methods have, too often: few prompts that are
    unsafe in many languages make the rate's distribution skewed.
    """
    rate, values = data.macro(), cluster_values(data)
    errors, counts = (values - rate) / len(values), data.counts.sum(axis=0)
    size = _effective_size(rate * (1 - rate), errors, counts, repeats=data.repeats, alpha=alpha)
    return wilson_interval(rate, size, alpha)


def percentile(draws: FloatArray, value: float, *, clusters: int, alpha: float = 0.05, lowest: float = 0.0) -> Interval:
    """Return the expanded percentile interval of bootstrap draws, (resamples,), of a quantity in [lowest, 1].

    The plain one is too narrow: of C clusters, draws show (C - 1) / C of the variance, and their tails are normal
    where t has C - 1 degrees of freedom. Hesterberg's expansion takes quantiles further out by as much.

    Draws that never vary say nothing about their error. The interval is then what follows if unseen clusters,
    of which Wilson's bound allows a share u, were all at one end of the range; for a rate of 0 or 1 that is
    the Wilson interval on clusters.
    """
    if draws.size and np.ptp(draws) > 1e-12:
        from scipy.special import ndtr, stdtrit

        # Φ(-sqrt(C / (C - 1)) t), where the plain interval has α / 2 = Φ(-z)
        tail = float(ndtr(-math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, 1 - alpha / 2)))
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(float(low), float(high))
    share = wilson_interval(0.0, clusters, alpha).high
    return Interval(value - share * (value - lowest), value + share * (1 - value))


def batches(resamples: int, size: int) -> Iterator[int]:
    """Yield sizes of batches of resamples, so that a batch of `size` numbers each fits into memory."""
    step = max(1, BATCH_NUMBERS // size)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)
