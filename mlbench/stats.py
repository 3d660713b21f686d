"""Rates, intervals and paired tests whose unit is the cluster: one source prompt with all its translations.

Answers to translations of one prompt are not independent, and methods fix whole prompts in all languages at once;
so clusters are resampled, never answers. Arrays in, dataclasses out.

References:
    Korn and Graubard, Survey Methodology 24 (1998): intervals with an effective sample size.
    Dean and Pagano, Journal of Survey Statistics and Methodology 3 (2015): the same for the Wilson interval.
    Miller, arXiv 2411.00640: clustered errors and paired differences for language-model evaluations.
    Tango, Statistics in Medicine 17 (1998): paired non-inferiority with the variance at the margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.errors import DataError, shorten

FloatArray = NDArray[np.float64]

PLANNING_SD = 0.25
"""Standard deviation of a cluster's macro difference that `plan` assumes before there are data.

Simulated methods on 10 languages gave 0.20 to 0.26; the upper end is taken, so that a plan does not promise too much.
"""

EXACT_CLUSTERS = 12
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


class Flips(NamedTuple):
    """P-values of one set of sign flips.

    Attributes:
        macro: Of the macro difference, two-sided.
        rows: Of each row's difference, adjusted for the number of rows by max-T, (rows,).
    """

    macro: float
    rows: FloatArray


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How one method differs from another on the same clusters.

    Attributes:
        delta: Macro rate of the method less that of its reference.
        rows: The same for each row, (rows,).
        p: Two-sided p-value of `delta` (paired sign flips).
        p_rows: Two-sided p-values of `rows`, adjusted by max-T, (rows,).
        draws: Bootstrap distribution of `rows`, (resamples, rows).
        parts: Difference of each cluster, scaled so that `delta` is their mean, (clusters,).
        largest: What a part is in a cluster that one method wins in every row.
        sd: Standard deviation of `parts`.
        discordant: Clusters in which the two differ at all.
        clusters: Clusters compared.
    """

    delta: float
    interval: Interval
    rows: FloatArray
    row_intervals: tuple[Interval, ...]
    p: float
    p_rows: FloatArray
    draws: FloatArray
    parts: FloatArray
    largest: float
    sd: float
    discordant: int
    clusters: int


def wilson(data: Clustered, *, alpha: float = 0.05) -> tuple[Interval, ...]:
    """Return one Wilson interval per row, with the effective sample size of clustered prompts.

    With one prompt per cluster this is the plain Wilson interval.
    """
    return tuple(
        _wilson(rate, _effective_size(sums[counts > 0], counts[counts > 0], alpha), alpha)
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


def _wilson(rate: float, size: float, alpha: float) -> Interval:
    z2 = _z(1 - alpha / 2) ** 2
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
    for batch in _batches(resamples, size):
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
    share = _wilson(0.0, clusters, alpha).high
    return Interval(value - share * (value - lowest), value + share * (1 - value))


def aligned(method: Clustered, reference: Clustered, *, common: bool = False) -> tuple[Clustered, Clustered]:
    """Return both on the same clusters.

    Args:
        common: Compare on the clusters both have with equal counts; without it, unequal clusters are refused.

    Raises:
        DataError: The rows differ, the clusters differ, or none is common.
    """
    if method.rows != reference.rows:
        extra = set(method.rows) ^ set(reference.rows)
        raise DataError(f"only one of the two methods has {shorten(sorted(extra))}")
    names = tuple(sorted(set(method.clusters) | set(reference.clusters)))
    one, two = _spread(method, names), _spread(reference, names)
    equal = np.all(np.isclose(one.counts, two.counts), axis=0)
    if not equal.all() and not common:
        unequal = [name for name, same in zip(names, equal, strict=True) if not same]
        message = f"{len(unequal)} of {len(names)} clusters are missing or incomplete in one of the two methods"
        raise DataError(f"{message}: {shorten(unequal, 5)}", hint="answer them, or compare on the common clusters only")
    if not equal.any():
        raise DataError("the two methods have no cluster in common")
    return one.keep(equal), two.keep(equal)


def _spread(data: Clustered, names: tuple[str, ...]) -> Clustered:
    where = np.searchsorted(names, data.clusters)
    sums, counts = np.zeros((2, len(data.rows), len(names)))
    sums[:, where], counts[:, where] = data.sums, data.counts
    return Clustered(rows=data.rows, clusters=names, sums=sums, counts=counts)


def compare(
    method: Clustered,
    reference: Clustered,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
    common: bool = False,
) -> Comparison:
    """Return the paired comparison of two methods; the arguments are those of `aligned` and `draw_rates`.

    Raises:
        DataError: See `aligned`.
    """
    one, two = aligned(method, reference, common=common)
    # Counts are equal here, so the difference of two rates is the rate of the differences.
    difference = Clustered(rows=one.rows, clusters=one.clusters, sums=one.sums - two.sums, counts=one.counts)
    draws = draw_rates(difference, resamples=resamples, seed=seed)
    parts = cluster_parts(difference)
    flips = sign_flip(parts, resamples=resamples, seed=seed)
    size, rates = len(one.clusters), difference.rates()
    weights = size * (one.counts / one.counts.sum(axis=1, keepdims=True)).mean(axis=0)
    whole = size * parts.mean(axis=0)
    held = (one.counts > 0).sum(axis=1)
    return Comparison(
        delta=difference.macro(),
        interval=percentile(draws.mean(axis=1), difference.macro(), clusters=size, alpha=alpha, lowest=-1.0),
        rows=rates,
        row_intervals=tuple(
            percentile(draws[:, row], float(rates[row]), clusters=int(held[row]), alpha=alpha, lowest=-1.0)
            for row in range(len(rates))
        ),
        p=flips.macro,
        p_rows=flips.rows,
        draws=draws,
        parts=whole,
        largest=float(weights.max()),
        sd=float(np.std(whole, ddof=1)) if size > 1 else 0.0,
        discordant=int((np.abs(difference.sums) > 1e-12).any(axis=0).sum()),
        clusters=size,
    )


def cluster_parts(data: Clustered) -> FloatArray:
    """Return each cluster's part in each row's rate, (rows, clusters): a row sums to its rate exactly."""
    return np.asarray(data.sums / data.counts.sum(axis=1, keepdims=True), dtype=np.float64)


def sign_flip(parts: FloatArray, *, resamples: int = 10_000, seed: int = 0) -> Flips:
    """Return p-values under swaps of the two methods within whole clusters, from `cluster_parts`, (rows, clusters).

    All swaps are enumerated when at most 12 clusters are discordant; otherwise p = (1 + hits) / (1 + resamples).
    """
    parts = parts[:, (np.abs(parts) > 1e-15).any(axis=0)]
    rows, size = parts.shape
    if size == 0:
        return Flips(1.0, np.ones(rows))
    # Rows are put on one scale that no flip changes: sqrt(Σ d²) is the null standard deviation of Σ ± d.
    scale = np.sqrt((parts**2).sum(axis=1))
    table = np.column_stack([parts.mean(axis=0), (parts / np.where(scale > 0, scale, 1)[:, None]).T])
    observed = np.abs(table.sum(axis=0)) - 1e-9 * np.abs(table).sum(axis=0)
    hits = np.zeros(rows + 1)
    exact = size <= EXACT_CLUSTERS
    total = 2**size if exact else resamples
    for signs in _all_signs(size) if exact else _random_signs(size, resamples, seed):
        flipped = np.abs(signs @ table)
        hits[0] += (flipped[:, 0] >= observed[0]).sum()
        hits[1:] += (flipped[:, 1:].max(axis=1)[:, None] >= observed[1:]).sum(axis=0)
    p = hits / total if exact else (1 + hits) / (1 + total)
    return Flips(float(p[0]), np.asarray(p[1:], dtype=np.float64))


def _all_signs(size: int) -> Iterator[FloatArray]:
    bits = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    yield np.asarray(1 - 2 * bits, dtype=np.float64)


def _random_signs(size: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    rng = np.random.default_rng(seed)
    for batch in _batches(resamples, size):
        bits = np.unpackbits(rng.integers(256, size=(batch, -(-size // 8)), dtype=np.uint8), axis=1, count=size)
        yield np.asarray(1 - 2 * bits.astype(np.int8), dtype=np.float64)


def _batches(resamples: int, size: int) -> Iterator[int]:
    step = max(1, BATCH_NUMBERS // size)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def holm(p: Sequence[float]) -> FloatArray:
    """Return Holm-adjusted p-values; a missing one (NaN) stays missing but counts in the size of the family."""
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p, dtype=np.float64)
    if not values.size:
        return values
    adjusted = multipletests(np.nan_to_num(values, nan=1.0), method="holm")[1]
    return np.where(np.isnan(values), np.nan, adjusted)


def not_inferior(losses: FloatArray, margin: float, *, largest: float = 1.0) -> float:
    """Return the one-sided p-value of "the mean loss is `margin` or more".

    A score test: the variance is that of the data moved onto the margin by clusters lost entirely. Resampling or
    sign flips of the data as they are would call a loss excluded because no cluster happens to show it; with no
    discordant cluster at all, this is Tango's test of a paired difference.

    Args:
        losses: How much worse the method is in each cluster, (clusters,); see `Comparison.parts`.
        margin: In [0, 1].
        largest: The loss of a cluster that is lost entirely.
    """
    mean, size = float(losses.mean()), len(losses)
    # A share w of lost clusters moves the mean onto the margin: (1 - w) mean + w largest = margin
    share = max(0.0, (margin - mean) / (largest - mean)) if mean < largest else 0.0
    variance = (1 - share) * float((losses**2).mean()) + share * largest**2 - max(margin, mean) ** 2
    if variance <= 1e-15:
        return 1.0
    return NormalDist().cdf((mean - margin) / math.sqrt(variance / size))


def minimum_detectable(
    clusters: int, *, rows: int, sd: float = PLANNING_SD, alpha: float = 0.05, power: float = 0.8, tests: int = 1
) -> float:
    """Return the smallest macro difference a design sees with that power, two-sided, in [0, 1]; 1 means none.

    Args:
        rows: Cells of the macro rate.
        sd: Standard deviation of the clusters' differences: `Comparison.sd`, or the planning value.
        tests: Size of the Holm family; the smallest p-value has to pass alpha / tests.
    """
    level = alpha / tests
    # A sign-flip test of k discordant clusters cannot go below 2^(1 - k), and each moves at least one row.
    needed = math.ceil(1 + math.log2(1 / level))
    if clusters < needed:
        return 1.0
    seen = (_z(1 - level / 2) + _z(power)) * sd / math.sqrt(clusters)
    return min(1.0, max(seen, needed / (clusters * rows)))


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
