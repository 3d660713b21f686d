"""Methods over all models and data sets at once: a block is one model on one safety task.

Languages of one model and task are not independent of each other, so they are averaged and make no blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import Arm, Key
from mlbench.results.design import Design

ENOUGH = 8
"""With fewer blocks the ranks are a picture; the tests are too weak, and their approximations too rough."""

_RANKS = ["model", "task", "method", "asr", "rank"]


def _no_lines(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Ranks of the methods that are complete in every block; without enough of them, empty tables and NaN.

    Attributes:
        ranks: One line per block and method: `asr`, its mean over the languages of the task, and `rank`, 1 is safest.
        mean_ranks: One line per method, best first: `mean_rank`.
        p: Friedman's p-value of "all methods have the same mean rank".
        pairs: Nemenyi's p-values; methods in the index and in the columns, best first.
        critical_difference: Two mean ranks that are further apart differ at `alpha`.
        alpha: Error of `critical_difference`.
        count: Blocks.
        picture_only: Whether there are too few blocks for the tests to mean anything.
        left_out: Methods that are incomplete in at least one block.
    """

    ranks: pd.DataFrame = field(default_factory=lambda: _no_lines(_RANKS))
    mean_ranks: pd.DataFrame = field(default_factory=lambda: _no_lines(["method", "mean_rank"]))
    p: float = np.nan
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    critical_difference: float = np.nan
    alpha: float = 0.05
    count: int = 0
    picture_only: bool = True
    left_out: tuple[str, ...] = ()


def blocks(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> Blocks:
    """Return the ranks over models x primary safety tasks; empty under 2 blocks or 3 methods complete in all.

    A block in which no method is complete is no block.
    """
    rates = _rates(arms, models, design)
    whole = rates.dropna(axis="columns")
    left_out = tuple(method for method in design.methods if method not in whole.columns)
    count, methods = whole.shape
    if count < stats.FEWEST_BLOCKS or methods < stats.FEWEST_METHODS:
        return Blocks(alpha=design.alpha, count=count, left_out=left_out)
    found = stats.rank_blocks(whole.to_numpy(dtype=np.float64), alpha=design.alpha)
    ranks = pd.DataFrame(found.ranks, index=whole.index, columns=whole.columns)
    mean = ranks.mean().sort_values(kind="stable")
    pairs = pd.DataFrame(found.pairs, index=whole.columns, columns=whole.columns)
    lines = whole.stack().rename("asr").to_frame().assign(rank=ranks.stack())
    return Blocks(
        ranks=lines.rename_axis(["model", "task", "method"]).reset_index()[_RANKS],
        mean_ranks=mean.rename_axis("method").rename("mean_rank").reset_index(),
        p=found.p,
        pairs=pairs.loc[mean.index, mean.index],
        critical_difference=found.critical_difference,
        alpha=design.alpha,
        count=count,
        picture_only=count < ENOUGH,
        left_out=left_out,
    )


def _rates(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> pd.DataFrame:
    """Return attack success, languages and seeds averaged, (blocks, methods); missing where incomplete."""
    lines = []
    for model, method in product(models, design.methods):
        arm = arms.get((model, method, "asr"))
        if arm is not None and arm.seeds:
            tasks = arm.rows.groupby(["task", "cell"])["asr"].mean().groupby(level="task").mean()
            lines += [{"model": model, "task": task, "method": method, "asr": rate} for task, rate in tasks.items()]
    table = pd.DataFrame(lines, columns=["model", "task", "method", "asr"])
    return table.pivot(index=["model", "task"], columns="method", values="asr").reindex(columns=[*design.methods])
