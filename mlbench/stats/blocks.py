"""Several methods over several blocks: mean ranks, Friedman's test, and which pairs of ranks differ.

References:
    Demšar, Journal of Machine Learning Research 7 (2006): Friedman's and Nemenyi's tests over data sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlbench.stats.rates import FloatArray

FEWEST_BLOCKS, FEWEST_METHODS = 2, 3


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Methods ranked in every block.

    Attributes:
        ranks: 1 is the lowest rate of a block, equal rates share their mean rank, (blocks, methods).
        p: Friedman's p-value of "all methods have the same mean rank" (chi-square, corrected for equal rates).
        pairs: Nemenyi's p-value of each two methods, 1 on the diagonal, (methods, methods).
        critical_difference: Two mean ranks that are further apart than this differ at `alpha`.
    """

    ranks: FloatArray
    p: float
    pairs: FloatArray
    critical_difference: float


def rank_blocks(rates: FloatArray, *, alpha: float = 0.05) -> Ranked:
    """Return the ranks and tests of rates without missing values, (blocks, methods); at least 2 blocks, 3 methods."""
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    blocks, methods = rates.shape
    assert blocks >= FEWEST_BLOCKS and methods >= FEWEST_METHODS, rates.shape
    # Equal rates are equal also when they were summed in another order.
    rates = np.round(rates, 12)
    ranks = np.asarray(rankdata(rates, axis=1), dtype=np.float64)
    # With all rates of every block equal the statistic is 0 / 0; nothing differs then.
    p = 1.0 if np.ptp(ranks, axis=1).max() == 0 else float(friedmanchisquare(*rates.T).pvalue)
    # CD = q sqrt(k (k + 1) / 6 N), q the studentized range of k means over sqrt(2)
    reach = float(studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return Ranked(
        ranks=ranks,
        p=p,
        pairs=np.asarray(posthoc_nemenyi_friedman(rates), dtype=np.float64),
        critical_difference=reach * math.sqrt(methods * (methods + 1) / (6 * blocks)),
    )
