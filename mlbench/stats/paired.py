"""Two methods on the same clusters: difference, interval, and the sign-flip test that swaps them within clusters.

References:
    Miller, arXiv 2411.00640: paired differences for language-model evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mlbench.errors import DataError, shorten
from mlbench.stats.rates import Clustered, FloatArray, Interval, batches, draw_rates, percentile
from mlbench.stats.score import tango

EXACT_CLUSTERS = 12


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
        interval: Percentile interval of `delta`.
        rows: The same difference for each row, (rows,).
        row_intervals: Tango's interval of each row.
        p: Two-sided p-value of `delta` (paired sign flips).
        p_rows: Two-sided p-values of `rows`, adjusted by max-T, (rows,).
        draws: Bootstrap distribution of `rows`, (resamples, rows).
        parts: Difference of each cluster, scaled so that `delta` is their mean, (clusters,).
        row_parts: Each cluster's part in each row's difference, (rows, clusters); see `cluster_parts`.
        largest: What a part is in a cluster that one method wins in every row.
        sd: Standard deviation of `parts`.
        step: Mean size of `parts` over the discordant clusters, 0 without any.
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
    row_parts: FloatArray
    largest: float
    sd: float
    step: float
    discordant: int
    clusters: int


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
    return replace(data, clusters=names, sums=sums, counts=counts)


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
    difference = replace(one, sums=one.sums - two.sums, repeats=min(one.repeats, two.repeats))
    draws = draw_rates(difference, resamples=resamples, seed=seed)
    parts = cluster_parts(difference)
    flips = sign_flip(parts, resamples=resamples, seed=seed)
    size, rates = len(one.clusters), difference.rates()
    weights = size * (one.counts / one.counts.sum(axis=1, keepdims=True)).mean(axis=0)
    whole = size * parts.mean(axis=0)
    return Comparison(
        delta=difference.macro(),
        interval=percentile(draws.mean(axis=1), difference.macro(), clusters=size, alpha=alpha, lowest=-1.0),
        rows=rates,
        row_intervals=tango(difference, alpha=alpha),
        p=flips.macro,
        p_rows=flips.rows,
        draws=draws,
        parts=whole,
        row_parts=parts,
        largest=float(weights.max()),
        sd=float(np.std(whole, ddof=1)) if size > 1 else 0.0,
        step=float(np.abs(whole[moved]).mean()) if (moved := np.abs(whole) > 1e-12).any() else 0.0,
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
    for signs in flip_signs(size, resamples, seed):
        flipped = np.abs(signs @ table)
        hits[0] += (flipped[:, 0] >= observed[0]).sum()
        hits[1:] += (flipped[:, 1:].max(axis=1)[:, None] >= observed[1:]).sum(axis=0)
    p = flip_share(hits, size, resamples)
    return Flips(float(p[0]), p[1:])


def flip_signs(size: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield signs of clusters in batches, (flips, clusters): all of them for few clusters, else random ones."""
    return _all_signs(size) if size <= EXACT_CLUSTERS else _random_signs(size, resamples, seed)


def flip_share(hits: FloatArray, size: int, resamples: int) -> FloatArray:
    """Return p-values from how many signs of `flip_signs` were at least as extreme as the data; same shape."""
    exact = size <= EXACT_CLUSTERS
    return np.asarray(hits / 2**size if exact else (1 + hits) / (1 + resamples), dtype=np.float64)


def _all_signs(size: int) -> Iterator[FloatArray]:
    bits = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    yield np.asarray(1 - 2 * bits, dtype=np.float64)


def _random_signs(size: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    rng = np.random.default_rng(seed)
    for batch in batches(resamples, size):
        bits = np.unpackbits(rng.integers(256, size=(batch, -(-size // 8)), dtype=np.uint8), axis=1, count=size)
        yield np.asarray(1 - 2 * bits.astype(np.int8), dtype=np.float64)


def holm(p: Sequence[float]) -> FloatArray:
    """Return Holm-adjusted p-values; a missing one (NaN) stays missing but counts in the size of the family.

    Not statsmodels' function: that one collects garbage at every call, most of a second beside loaded models.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(np.nan_to_num(values, nan=1.0), kind="stable")
    # The i-th smallest of m, times m + 1 - i, and never below a smaller one's
    raised = np.nan_to_num(values, nan=1.0)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return np.where(np.isnan(values), np.nan, adjusted)
