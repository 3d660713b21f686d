"""Exact test of one row of a comparison: on how many clusters does one method do better, on how many worse?

References:
    McNemar, Psychometrika 12 (1947): only pairs that differ say which of two is better.
    Clopper and Pearson, Biometrika 26 (1934): the exact interval of a binomial share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlbench.stats.rates import FloatArray, Interval

SAME = 1e-12  # parts of a rate that differ by less differ by rounding only


@dataclass(frozen=True, kw_only=True)
class Signs:
    """On how many clusters one method does better than its reference, and on how many worse.

    Attributes:
        won: Clusters on which its rate is lower.
        lost: Clusters on which its rate is higher.
        p: Two-sided p-value of "each is as likely as the other" (binomial); 1 when no cluster differs.
        odds_ratio: lost / won, estimates the conditional odds ratio of a matched pair; 0 and infinity are
            values it can have, NaN means that no cluster differs.
        interval: Exact interval of the odds ratio; both ends NaN when no cluster differs.
    """

    won: int
    lost: int
    p: float
    odds_ratio: float
    interval: Interval


def sign_test(differences: FloatArray, *, alpha: float = 0.05) -> Signs:
    """Return the exact sign test of the differences of clusters, method less reference, (clusters,).

    Where a cluster is one prompt with one answer, this is McNemar's exact test. With several answers per cluster it
    counts clusters, not by how much they differ.
    """
    from scipy.special import betaincinv
    from scipy.stats import binomtest

    won, lost = int((differences < -SAME).sum()), int((differences > SAME).sum())
    if won + lost == 0:
        return Signs(won=0, lost=0, p=1.0, odds_ratio=math.nan, interval=Interval(math.nan, math.nan))
    # Clopper and Pearson: quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k)
    low = float(betaincinv(lost, won + 1, alpha / 2)) if lost else 0.0
    high = float(betaincinv(lost + 1, won, 1 - alpha / 2)) if won else 1.0
    return Signs(
        won=won,
        lost=lost,
        p=float(binomtest(lost, won + lost, 0.5).pvalue),
        odds_ratio=lost / won if won else math.inf,
        interval=Interval(_odds(low), _odds(high)),
    )


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf
