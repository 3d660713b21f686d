"""Rates of one method and their intervals; clusters are resampled, never answers.

References:
    Korn and Graubard, Survey Methodology 24 (1998): intervals with an effective sample size.
    Dean and Pagano, Journal of Survey Statistics and Methodology 3 (2015): the same for the Wilson interval.
    Miller, arXiv 2411.00640: clustered errors for language-model evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
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
    """

    rows: tuple[str, ...]
    clusters: tuple[str, ...]
    sums: FloatArray
    counts: FloatArray

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
        return Clustered(rows=self.rows, clusters=names, sums=self.sums[:, clusters], counts=self.counts[:, clusters])


class Interval(NamedTuple):
    """An interval, both ends in the unit of the value."""

    low: float
    high: float


def wilson(data: Clustered, *, alpha: float = 0.05) -> tuple[Interval, ...]:
    """Return one Wilson interval per row, with the effective sample size of clustered prompts.

    With one prompt per cluster this is the plain Wilson interval.
    """
    return tuple(
        wilson_interval(rate, _effective_size(sums[counts > 0], counts[counts > 0], alpha), alpha)
        for rate, sums, counts in zip(data.rates(), data.sums, data.counts, strict=True)
    )


def _effective_size(sums: FloatArray, counts: FloatArray, alpha: float) -> float:
    prompts, clusters, rate = float(counts.sum()), len(sums), float(sums.sum() / counts.sum())
    # variance of the ratio sum(s) / sum(n) between clusters: C / (C - 1) Σ (s_c - p n_c)² / (Σ n_c)²
    spread = float(((sums - rate * counts) ** 2).sum())
    if clusters < 2 or prompts <= 1 or spread == 0 or not 0 < rate < 1:
        return float(clusters)
    variance = clusters / (clusters - 1) * spread / prompts**2
    design_effect = variance / (rate * (1 - rate) / (prompts - 1))
    from scipy.special import stdtrit

    # Few clusters estimate the variance badly: the ratio of t quantiles is Korn and Graubard's correction.
    quantile = 1 - alpha / 2
    correction = float(stdtrit(prompts - 1, quantile) / stdtrit(clusters - 1, quantile)) ** 2
    return min(prompts / design_effect * correction, prompts)


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


def macro_interval(data: Clustered, draws: FloatArray, *, alpha: float = 0.05) -> Interval:
    """Return the percentile interval of the macro rate, from `draw_rates` of the same data."""
    return percentile(draws.mean(axis=1), data.macro(), clusters=len(data.clusters), alpha=alpha)


def percentile(draws: FloatArray, value: float, *, clusters: int, alpha: float = 0.05, lowest: float = 0.0) -> Interval:
    """Return the percentile interval of bootstrap draws, (resamples,), of a quantity in [lowest, 1].

    Draws that never vary say nothing about their error. The interval is then what follows if unseen clusters,
    of which Wilson's bound allows a share u, were all at one end of the range; for a rate of 0 or 1 that is
    the Wilson interval on clusters.
    """
    if draws.size and np.ptp(draws) > 1e-12:
        low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
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
