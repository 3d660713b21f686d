"""What a design can show: smallest detectable differences, and losses that are excluded.

References:
    Tango, Statistics in Medicine 17 (1998): paired non-inferiority with the variance at the margin.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from mlbench.stats.rates import FloatArray, quantile

PLANNING_SD = 0.25
"""Standard deviation of a cluster's macro difference that `plan` assumes before there are data.

Simulated methods on 10 languages gave 0.20 to 0.26; the upper end is taken, so that a plan does not promise too much.
"""


WHOLE_LOSSES = 5
"""So many entirely lost clusters are reckoned among those that differ; with fewer the test exceeds its level."""


def not_inferior(losses: FloatArray, margin: float, *, largest: float = 1.0) -> float:
    """Return the one-sided p-value of "the mean loss is `margin` or more".

    A score test: the variance is that of the data moved onto the margin by lost clusters. Resampling or sign flips of
    the data as they are would call a loss excluded because no cluster happens to show it. How much a lost cluster
    loses is the mean over those that differ and `WHOLE_LOSSES` that lose all; where a cluster is one prompt in one
    row, or none differs, it is all, and this is Tango's test of a paired difference.

    Args:
        losses: How much worse the method is in each cluster, (clusters,); see `Comparison.parts`.
        margin: In [0, 1].
        largest: The loss of a cluster that is lost entirely.
    """
    mean, size = float(losses.mean()), len(losses)
    sizes = np.abs(losses[np.abs(losses) > 1e-12])
    step = (float(sizes.sum()) + WHOLE_LOSSES * largest) / (len(sizes) + WHOLE_LOSSES)
    step = max(step, min(2 * margin, largest))
    # A share w of lost clusters moves the mean onto the margin: (1 - w) mean + w step = margin
    share = max(0.0, (margin - mean) / (step - mean)) if mean < step else 0.0
    variance = (1 - share) * float((losses**2).mean()) + share * step**2 - max(margin, mean) ** 2
    if variance <= 1e-15:
        return 1.0
    return NormalDist().cdf((mean - margin) / math.sqrt(variance / size))


def equivalent(losses: FloatArray, margin: float, *, largest: float = 1.0) -> float:
    """Return the p-value of "the mean loss is `margin` or more, in either direction", by two one-sided tests."""
    return max(not_inferior(side, margin, largest=largest) for side in (losses, -losses))


def minimum_detectable(
    clusters: int,
    *,
    rows: int,
    sd: float = PLANNING_SD,
    step: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    tests: int = 1,
) -> float:
    """Return the smallest macro difference a design sees with that power, two-sided, in [0, 1]; 1 means none.

    Args:
        rows: Cells of the macro rate.
        sd: Standard deviation of the clusters' differences: `Comparison.sd`, or the planning value.
        step: By how much a cluster differs where the methods differ: `Comparison.step`; 0, before there are data or
            where none differs, is one prompt in one row.
        tests: Size of the Holm family; the smallest p-value has to pass alpha / tests.
    """
    level = alpha / tests
    # A sign-flip test of k discordant clusters cannot go below 2^(1 - k): so many have to differ by their step.
    needed = math.ceil(1 + math.log2(1 / level))
    if clusters < needed:
        return 1.0
    seen = (quantile(1 - level / 2) + quantile(power)) * sd / math.sqrt(clusters)
    return min(1.0, max(seen, needed * (step or 1 / rows) / clusters))
