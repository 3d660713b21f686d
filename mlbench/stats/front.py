"""Which methods no other one beats in everything, and how sure that is: the Pareto front and its bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlbench.stats.rates import Clustered, FloatArray, draw_rates

SAME = 1e-12
"""Rates that differ by less are equal; they are sums of the same fractions in another order."""


def on_front(points: FloatArray) -> NDArray[np.bool_]:
    """Return which points no other dominates, (..., methods, objectives) -> (..., methods); lower is better.

    One point dominates another if it is at least as good in all objectives and better in one; equal points do not.
    """
    dominated = np.zeros(points.shape[:-1], dtype=np.bool_)
    for at in range(points.shape[-2]):
        gain = points - points[..., at : at + 1, :]  # by how much this one method is better than each
        dominated |= (gain >= -SAME).all(axis=-1) & (gain > SAME).any(axis=-1)
    return ~dominated


def draw_macros(data: Sequence[Sequence[Clustered]], *, resamples: int = 10_000, seed: int = 0) -> FloatArray:
    """Return bootstrap macro rates of several methods and endpoints, (resamples, methods, endpoints).

    Every resample draws one set of clusters for all methods and endpoints: a source prompt that counts in two
    endpoints is in both or in neither, and endpoints without a common prompt vary independently of each other.
    Resamples that miss a row entirely are left out.

    Args:
        data: The endpoints of each method; clusters of one name are one cluster everywhere.
    """
    parts = [part for method in data for part in method]
    rates = draw_rates(_stacked(parts), resamples=resamples, seed=seed)
    ends = np.cumsum([len(part.rows) for part in parts])
    macros = [rates[:, end - len(part.rows) : end].mean(axis=1) for part, end in zip(parts, ends, strict=True)]
    return np.stack(macros, axis=1).reshape(len(rates), len(data), -1)


def _stacked(parts: Sequence[Clustered]) -> Clustered:
    """Return all rows of all parts on the clusters that any of them has."""
    clusters = sorted({name for part in parts for name in part.clusters})
    sums, counts = np.zeros((2, sum(len(part.rows) for part in parts), len(clusters)))
    start = 0
    for part in parts:
        where = np.searchsorted(clusters, part.clusters)
        end = start + len(part.rows)
        sums[start:end, where], counts[start:end, where] = part.sums, part.counts
        start = end
    rows = tuple(row for part in parts for row in part.rows)
    return Clustered(rows=rows, clusters=tuple(clusters), sums=sums, counts=counts)
