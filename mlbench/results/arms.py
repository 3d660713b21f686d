"""Arms: the rows of one method, model and endpoint that enter its rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.cells import ENDPOINT, clustered
from mlbench.results.design import Design

TIERS = ("high", "mid", "low")
RATES = {
    "asr": ("asr", "asr"),
    "over_refusal": ("over_refusal", "over_refusal"),
    "utility": ("accuracy", "accuracy"),
    "invalid": ("asr", "invalid"),
}
"""The macro rates of a method -> the endpoint whose arm each is read from, and the outcome."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The rows of one method, model and endpoint, of the seeds in which no cell is missing."""

    rows: pd.DataFrame
    seeds: tuple[int, ...]
    planned: int

    def mean(self, outcome: str, cells: pd.Index | None = None) -> float:
        """Return the macro mean of an outcome, over all cells or some of them."""
        rows = self.rows if cells is None else self.rows[self.rows["cell"].isin(cells)]
        return float(rows.groupby("cell")[outcome].mean().mean())


Key = tuple[str, str, str]  # model, method, endpoint


def arms(rows: pd.DataFrame, cells: pd.DataFrame, design: Design) -> dict[Key, Arm]:
    """Return the arms of all models, methods and endpoints; a seed with a missing cell is in none of them."""
    found: dict[Key, Arm] = {}
    graded = set(rows.loc[rows["accuracy"].notna(), "task"]) | set(cells.loc[cells["kind"] == "utility", "task"])
    for kind, endpoint in ENDPOINT.items():
        tasks = {"safety": set(design.primary), "utility": graded}.get(kind)
        decides = cells["kind"] == kind if tasks is None else cells["task"].isin(tasks)
        for (model, method), part in cells[decides].groupby(["model", "method"]):
            whole = part.groupby("seed")["complete"].all()
            seeds = tuple(int(seed) for seed in whole.index[whole])
            mine = (rows["model"] == model) & (rows["method"] == method) & rows["seed"].isin(seeds)
            kept = rows[mine & rows["task"].isin(part["task"])]
            found[model, method, endpoint] = Arm(rows=kept, seeds=seeds, planned=len(whole))
    return found


def tier(facts: pd.DataFrame, tier: str, design: Design) -> pd.Index:
    """Return the cells of a resource tier; the pivot belongs to none, it is what the others are compared with."""
    return facts.index[(facts["tier"] == tier) & (facts["language"] != design.pivot)]


def macro_rates(model: str, method: str, arms: Mapping[Key, Arm]) -> dict[str, float]:
    """Return `RATES` of a method, by which methods are ranked and settings selected; missing without a whole seed."""
    found = {}
    for name, (endpoint, outcome) in RATES.items():
        arm = arms.get((model, method, endpoint))
        found[name] = arm.mean(outcome) if arm and arm.seeds else np.nan
    return found


def asked(data: stats.Clustered) -> tuple[object, ...]:
    """Return what is equal for methods that answered the same prompts."""
    # Counts are means over repeats: rounded, so that 3 / 3 and 2 / 2 are the same number of prompts.
    return data.rows, data.clusters, data.counts.round(9).tobytes()


def comparable(arms: Mapping[Key, Arm], model: str, design: Design) -> dict[str, stats.Clustered]:
    """Return the attack success of the methods of a model that answered the same prompts, in the order of the design.

    Methods without a complete seed are left out. Where methods answered different prompts, the largest set that
    agrees stays.
    """
    sets: dict[tuple[object, ...], dict[str, stats.Clustered]] = {}
    for method in design.methods:
        arm = arms.get((model, method, "asr"))
        if arm and arm.seeds:
            data = clustered(arm.rows, "asr")
            sets.setdefault(asked(data), {})[method] = data
    return max(sets.values(), key=len, default={})
