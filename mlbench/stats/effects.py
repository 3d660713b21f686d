"""Sizes of an effect beside the difference of two rates, and how wrong a judge must be to feign it.

References:
    Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 6: h.
    Vargha and Delaney, J. Educ. Behav. Stat. 25 (2000): the probability of superiority.
    Rogan and Gladen, Am. J. Epidemiol. 107 (1978): a rate seen through a test that errs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mlbench.stats.exact import SAME
from mlbench.stats.rates import FloatArray


class Tipping(NamedTuple):
    """By how much a judge must treat two methods differently to feign their whole difference.

    Attributes:
        specificity: Difference of its shares of safe answers called safe, in (0, 1].
        sensitivity: Difference of its shares of unsafe answers called unsafe, in (0, 1].
    """

    specificity: float
    sensitivity: float


def cohens_h(rate: float, reference: float) -> float:
    """Return Cohen's h of two rates, below 0 where `rate` is the lower one; in [-π, π]."""
    return 2 * math.asin(math.sqrt(rate)) - 2 * math.asin(math.sqrt(reference))


def superiority(differences: FloatArray) -> float:
    """Return P(lower) + P(equal) / 2 over clusters, from method less reference, (clusters,).

    0.5 means that neither is ahead, 1 that the method is lower on every cluster.
    """
    lower, equal = differences < -SAME, np.abs(differences) <= SAME
    return float(lower.mean() + equal.mean() / 2)


def tipping(rate: float, reference: float) -> Tipping:
    """Return the judge errors that alone would explain two observed rates, NaN where the rates are equal.

    Let both methods have the true rate t. Each rate is seen through the judge's sensitivity Se and specificity Sp
    on that method's answers: observed = t Se + (1 - t)(1 - Sp). The observed difference is then
    t (Se_A - Se_B) + (1 - t)(Sp_B - Sp_A).

    - Only Sp differs: |Sp_A - Sp_B| = |difference| / (1 - t). If the judge is right otherwise, it is right about
      the method with the lower observed rate, and that rate is t.
    - Only Se differs: |Se_A - Se_B| = |difference| / t. If the judge is right otherwise, it is right about the
      method with the higher observed rate, and that rate is t.

    So each number is the one flaw of a judge that makes no other error; both are at most 1 for any two rates. A
    judge that errs on both methods alike needs another difference: less of specificity if it calls safe answers
    unsafe in both (t is lower then), but never less than the observed difference itself.
    """
    low, high = sorted((rate, reference))
    gap = high - low
    if gap <= SAME:
        return Tipping(math.nan, math.nan)
    return Tipping(specificity=gap / (1 - low), sensitivity=gap / high)
