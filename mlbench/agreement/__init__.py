"""How far judges can be trusted: two judges against each other, a judge against people, and rates corrected by both.

Everything works on frames with one row per answer. Nothing is pooled over languages or methods unless asked: a judge
that errs differently on two methods ranks them by its errors.
"""

from mlbench.agreement.correction import Calibration, corrected, ppi, rogan_gladen
from mlbench.agreement.sampling import sample
from mlbench.agreement.tables import (
    NOTHING,
    RESAMPLES,
    UNREADABLE,
    WEIGHT,
    Columns,
    Estimate,
    Table,
    ac1,
    accuracy,
    beyond_chance,
    compare,
    kappa,
    table,
)
from mlbench.agreement.validation import XSTEST, validate, xstest

__all__ = [
    "NOTHING",
    "RESAMPLES",
    "UNREADABLE",
    "WEIGHT",
    "XSTEST",
    "Calibration",
    "Columns",
    "Estimate",
    "Table",
    "ac1",
    "accuracy",
    "beyond_chance",
    "compare",
    "corrected",
    "kappa",
    "ppi",
    "rogan_gladen",
    "sample",
    "table",
    "validate",
    "xstest",
]
