"""Do several methods differ at all? Cochran's Q, the extension of McNemar's test to more than two methods.

References:
    Cochran, Biometrika 37 (1950): the comparison of percentages in matched samples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mlbench.stats.rates import FloatArray


class Omnibus(NamedTuple):
    """Cochran's Q.

    Attributes:
        q: The statistic; 0 when no block tells the methods apart, NaN with fewer than two methods.
        df: Degrees of freedom of its chi-square distribution: methods less 1.
        p: P-value of "all methods have the same rate in every block".
    """

    q: float
    df: int
    p: float


def cochran_q(outcomes: FloatArray) -> Omnibus:
    """Return Cochran's Q of outcomes, (blocks, methods), by its chi-square approximation.

    The formula holds for any numbers, not only 0 and 1: given the numbers of a block, each method is as likely to
    have any of them, and Q measures how far the methods' totals lie apart against that. With 0 and 1 it is Cochran's;
    means over seeds enter as they are, and a cluster of several prompts is one block with the sum of its outcomes.
    Where only a handful of blocks differ the approximation is rough; pairs then have the exact `sign_test`.
    """
    from scipy.stats import chi2

    methods = outcomes.shape[1]
    if methods < 2:
        return Omnibus(math.nan, 0, math.nan)
    totals = outcomes.sum(axis=0)
    spread = float(((outcomes - outcomes.mean(axis=1, keepdims=True)) ** 2).sum())
    if spread <= 1e-12:
        return Omnibus(0.0, methods - 1, 1.0)
    # Q = (k - 1) Σ_j (T_j - T̄)² / Σ_i Σ_j (y_ij - ȳ_i)²
    q = (methods - 1) * float(((totals - totals.mean()) ** 2).sum()) / spread
    return Omnibus(q, methods - 1, float(chi2.sf(q, methods - 1)))
