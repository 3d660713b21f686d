"""Do the methods differ at all in a cell? One test for all of them, before any pair is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import Arm, Key, comparable
from mlbench.results.design import Design

COLUMNS = ["model", "task", "language", "methods", "prompts", "q", "df", "p", "p_holm"]


def omnibus(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> pd.DataFrame:
    """Return Cochran's Q over all complete methods for every model and cell of the primary safety tasks.

    Blocks are source prompts with their near-duplicates (`prompts` of them), seeds and samples averaged: with one
    answer per prompt it is Cochran's test, otherwise the same statistic on means. `p_holm` corrects over the cells
    of a model. A model with fewer than two `comparable` methods has no lines.
    """
    tables = [_of_model(model, comparable(arms, model, design), arms) for model in models]
    lines = [line for table in tables for line in table]
    return pd.DataFrame(lines, columns=COLUMNS)


def _of_model(
    model: str, data: Mapping[str, stats.Clustered], arms: Mapping[Key, Arm]
) -> list[dict[str, str | int | float]]:
    if len(data) < 2:
        return []
    first, shared = next(iter(data.items()))
    facts = arms[model, first, "asr"].rows.drop_duplicates("cell").set_index("cell")
    lines: list[dict[str, str | int | float]] = []
    for row, cell in enumerate(shared.rows):
        inside = shared.counts[row] > 0
        found = stats.cochran_q(np.stack([one.sums[row, inside] for one in data.values()], axis=1))
        place = {"model": model, "task": str(facts.loc[cell, "task"]), "language": str(facts.loc[cell, "language"])}
        lines.append({**place, "methods": len(data), "prompts": int(inside.sum()), **found._asdict()})
    adjusted = stats.holm([float(line["p"]) for line in lines])
    return [line | {"p_holm": float(p)} for line, p in zip(lines, adjusted, strict=True)]
