"""Rates, intervals and paired tests whose unit is the cluster: one source prompt with all its translations.

Answers to translations of one prompt are not independent, and methods fix whole prompts in all languages at once;
so clusters are resampled, never answers. Arrays in, dataclasses out.
"""

from mlbench.stats.blocks import FEWEST_BLOCKS, FEWEST_METHODS, Ranked, rank_blocks
from mlbench.stats.effects import Tipping, cohens_h, superiority, tipping
from mlbench.stats.exact import Signs, sign_test
from mlbench.stats.front import draw_macros, on_front
from mlbench.stats.omnibus import Omnibus, cochran_q
from mlbench.stats.paired import Comparison, Flips, aligned, cluster_parts, compare, holm, sign_flip
from mlbench.stats.power import PLANNING_SD, equivalent, minimum_detectable, not_inferior
from mlbench.stats.rates import (
    Clustered,
    FloatArray,
    Interval,
    cluster_values,
    draw_rates,
    macro_interval,
    percentile,
    wilson,
)
from mlbench.stats.score import tango
from mlbench.stats.seeds import SeedDifference, seed_difference
from mlbench.stats.ties import all_pairs, letters

__all__ = [
    "FEWEST_BLOCKS",
    "FEWEST_METHODS",
    "PLANNING_SD",
    "Clustered",
    "Comparison",
    "Flips",
    "FloatArray",
    "Interval",
    "Omnibus",
    "Ranked",
    "SeedDifference",
    "Signs",
    "Tipping",
    "aligned",
    "all_pairs",
    "cluster_parts",
    "cluster_values",
    "cochran_q",
    "cohens_h",
    "compare",
    "draw_macros",
    "draw_rates",
    "equivalent",
    "holm",
    "letters",
    "macro_interval",
    "minimum_detectable",
    "not_inferior",
    "on_front",
    "percentile",
    "rank_blocks",
    "seed_difference",
    "sign_flip",
    "sign_test",
    "superiority",
    "tango",
    "tipping",
    "wilson",
]
