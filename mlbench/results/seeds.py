"""What the training seed changes: every seed one by one, and differences that hold for new seeds too."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import RATES, Arm, Key
from mlbench.results.cells import clustered
from mlbench.results.comparisons import compare, seeds_agree
from mlbench.results.design import Design

_SEED_COLUMNS = ["model", "method", "seed", *RATES, "delta"]
_INTERVAL_COLUMNS = ["model", "method", "seed_low", "seed_high", "seed_p", "seed_p_paired", "seeds_agree"]


def seeds(arms: Mapping[Key, Arm], models: list[str], design: Design) -> pd.DataFrame:
    """Return one line per model, method and seed in which no primary cell is missing.

    `delta` is the seed's attack success less the mean of the baseline over its seeds.
    """
    lines: list[dict[str, object]] = []
    for model, method in product(models, design.methods):
        main, base = arms.get((model, method, "asr")), arms.get((model, design.baseline, "asr"))
        centre = base.mean("asr") if base and base.seeds else np.nan
        means = {
            column: _by_seed(arms.get((model, method, endpoint)), outcome)
            for column, (endpoint, outcome) in RATES.items()
        }
        for seed in main.seeds if main else ():
            line = {column: by_seed.get(seed, np.nan) for column, by_seed in means.items()}
            delta = line["asr"] - centre
            lines.append({"model": model, "method": method, "seed": seed, **line, "delta": delta})
    return pd.DataFrame(lines, columns=_SEED_COLUMNS)


def _by_seed(arm: Arm | None, outcome: str) -> dict[int, float]:
    """Return the macro mean of every seed that the arm has."""
    if arm is None or not arm.seeds:
        return {}
    by_cell = arm.rows.groupby(["seed", "cell"])[outcome].mean()
    return {int(seed): float(value) for seed, value in by_cell.groupby(level="seed").mean().items()}


def seed_intervals(arms: Mapping[Key, Arm], models: list[str], design: Design) -> pd.DataFrame:
    """Return, per model and method, the difference of attack success from the baseline with seeds as a random factor.

    `seed_low`, `seed_high` and `seed_p` are for new seeds and new prompts, `seed_p_paired` for new seeds on these very
    prompts; all are missing with a single seed. Where no seed changes anything, interval and p-value are those over
    prompts. `seeds_agree` says whether every seed lies on the same side of the baseline.
    """
    lines = [_line(model, method, arms, design) for model, method in product(models, design.methods)]
    return pd.DataFrame(lines, columns=_INTERVAL_COLUMNS)


def _line(model: str, method: str, arms: Mapping[Key, Arm], design: Design) -> dict[str, object]:
    line: dict[str, object] = {"model": model, "method": method, "seeds_agree": True}
    arm, base = arms.get((model, method, "asr")), arms.get((model, design.baseline, "asr"))
    if method == design.baseline or arm is None or base is None or not arm.seeds or not base.seeds:
        return line
    found = _difference(arm, base, design)
    line |= {"seed_low": found.interval.low, "seed_high": found.interval.high, "seed_p": found.p}
    line |= {"seed_p_paired": found.p_seeds, "seeds_agree": seeds_agree(arm, base, "asr")}
    if found.sd == 0:
        fixed = compare(arm, base, "asr", design)
        line |= {"seed_low": fixed.interval.low, "seed_high": fixed.interval.high, "seed_p": fixed.p}
    return line


def _difference(arm: Arm, base: Arm, design: Design) -> stats.SeedDifference:
    """Return the difference of two arms; their seeds are pairs where both have the same numbers."""
    method, reference = clustered(arm.rows, "asr"), clustered(base.rows, "asr")
    return stats.seed_difference(
        np.stack([_values(arm, seed, reference) for seed in arm.seeds]),
        np.stack([_values(base, seed, method) for seed in base.seeds]),
        paired=arm.seeds == base.seeds,
        alpha=design.alpha,
    )


def _values(arm: Arm, seed: int, other: stats.Clustered) -> stats.FloatArray:
    """Return the values of one seed in the clusters of both arms, (clusters,)."""
    mine = clustered(arm.rows[arm.rows["seed"] == seed], "asr")
    return stats.cluster_values(stats.aligned(mine, other)[0])
