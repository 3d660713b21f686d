"""Rates, intervals and paired tests whose unit is the cluster: one source prompt with all its translations.

Answers to translations of one prompt are not independent, and methods fix whole prompts in all languages at once;
so clusters are resampled, never answers. Arrays in, dataclasses out.
"""

from mlbench.stats.paired import Comparison, Flips, aligned, cluster_parts, compare, holm, sign_flip
from mlbench.stats.power import PLANNING_SD, minimum_detectable, not_inferior
from mlbench.stats.rates import Clustered, FloatArray, Interval, draw_rates, macro_interval, percentile, wilson

__all__ = [
    "PLANNING_SD",
    "Clustered",
    "Comparison",
    "Flips",
    "FloatArray",
    "Interval",
    "aligned",
    "cluster_parts",
    "compare",
    "draw_rates",
    "holm",
    "macro_interval",
    "minimum_detectable",
    "not_inferior",
    "percentile",
    "sign_flip",
    "wilson",
]
