"""Two methods when the training seed is a random factor too: a statement about the method, not about its checkpoints.

References:
    Howe, JASA 69 (1974): limits for the mean of a sum whose parts have few and many degrees of freedom.
    Burdick and Graybill, Confidence Intervals on Variance Components (1992): the two-way random-effects model.

A bootstrap that crosses seeds and prompts is not used: of S seeds it sees (S - 1) / S of their variance and takes
normal tails where t with S - 1 degrees of freedom is right, so that with 3 seeds a 95 % interval may hold in 75 % only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlbench.stats.rates import FloatArray, Interval, percentile


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """How one method differs from another, over seeds and clusters that could have been others.

    Attributes:
        delta: Mean of the method less that of its reference.
        interval: Of `delta`, for new seeds and new clusters.
        p: Two-sided p-value of `delta`, for new seeds and new clusters.
        p_seeds: The same for new seeds on these very clusters: paired t, or Welch's t where seeds are not paired.
        sd: Standard deviation of the difference of two checkpoints between seeds, 0 where no seed changes anything.
    """

    delta: float
    interval: Interval
    p: float
    p_seeds: float
    sd: float


class _Part(NamedTuple):
    """A part of the variance of the difference, estimated with so many degrees of freedom."""

    variance: float
    freedom: float


def seed_difference(
    method: FloatArray, reference: FloatArray, *, paired: bool = True, alpha: float = 0.05
) -> SeedDifference:
    """Return the difference of two methods with seeds and clusters as random factors.

    The variance has a part between seeds and a part between clusters, less the noise that both contain. The interval
    is Howe's: half = sqrt(Σ t² variance), each part with the t quantile of its own degrees of freedom (Welch's, where
    the seeds of the two methods are independent). The noise is taken off the part between clusters: off the part
    between few seeds it would too often leave nothing.

    Args:
        method: Values of every seed from `cluster_values`, (seeds, clusters).
        reference: The same of the reference, on the same clusters.
        paired: The rows of both are the same seeds in the same order; otherwise seeds are independent.

    Returns:
        Interval, p-values and `sd` are missing (NaN) with a single seed of either or a single cluster.
    """
    delta = float(method.mean() - reference.mean())
    size = method.shape[1]
    if min(len(method), len(reference), size) < 2:
        nothing = Interval(math.nan, math.nan)
        return SeedDifference(delta=delta, interval=nothing, p=math.nan, p_seeds=math.nan, sd=math.nan)
    arms = [method - reference] if paired else [method, reference]
    spreads = [_variance(arm.mean(axis=1)) for arm in arms]
    between = _satterthwaite([_Part(x / len(arm), len(arm) - 1) for x, arm in zip(spreads, arms, strict=True)])
    noise = sum(_noise(arm) for arm in arms)
    spread = _variance(method.mean(axis=0) - reference.mean(axis=0)) / size
    clusters = _Part(max(0.0, spread - noise), size - 1)
    return SeedDifference(
        delta=delta,
        interval=_howe(delta, [between, clusters], size, alpha),
        p=_howe_p(delta, [between, clusters]),
        p_seeds=_t_p(delta, between),
        sd=math.sqrt(sum(spreads)),
    )


def _variance(values: FloatArray) -> float:
    """Return the variance, with exactly 0 for values that differ by rounding only."""
    return float(values.var(ddof=1)) if np.ptp(values) > 1e-12 else 0.0


def _noise(values: FloatArray) -> float:
    """Return the variance of the mean that is neither of seeds nor of clusters: their interaction."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    seeds, clusters = values.shape
    return float((rest**2).sum() / ((seeds - 1) * (clusters - 1)) / (seeds * clusters))


def _satterthwaite(parts: list[_Part]) -> _Part:
    """Return the sum of independent parts; its degrees of freedom are those of Satterthwaite and Welch."""
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return _Part(0.0, sum(part.freedom for part in parts))
    return _Part(variance, variance**2 / sum(part.variance**2 / part.freedom for part in parts))


def _half(parts: list[_Part], tail: float) -> float:
    from scipy.special import stdtrit

    quantiles = [float(stdtrit(part.freedom, 1 - tail / 2)) for part in parts]
    return math.sqrt(sum(t * t * part.variance for t, part in zip(quantiles, parts, strict=True)))


def _howe(delta: float, parts: list[_Part], size: int, alpha: float) -> Interval:
    half = _half(parts, alpha)
    if half == 0:
        return percentile(np.zeros(0), delta, clusters=size, alpha=alpha, lowest=-1.0)
    return Interval(max(-1.0, delta - half), min(1.0, delta + half))


def _howe_p(delta: float, parts: list[_Part]) -> float:
    """Return the level at which the interval just reaches zero; NaN where nothing varies."""
    from scipy.optimize import brentq

    smallest = 1e-12
    if _half(parts, smallest) <= abs(delta):
        return smallest if _half(parts, smallest) > 0 else math.nan
    return float(brentq(lambda tail: _half(parts, tail) - abs(delta), smallest, 1.0))


def _t_p(delta: float, part: _Part) -> float:
    from scipy.special import stdtr

    if part.variance == 0:
        return math.nan
    return float(2 * stdtr(part.freedom, -abs(delta) / math.sqrt(part.variance)))
