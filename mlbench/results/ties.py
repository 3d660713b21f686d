"""Which methods of a model cannot be told apart, as letters a table can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import Arm, Key, comparable
from mlbench.results.design import Design


def ties(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> pd.DataFrame:
    """Return the letters of every method within its model: `group` like "a" or "b c".

    Two methods of a model share a letter exactly when their macro attack success is not distinguishable: paired sign
    flips over source prompts, all pairs of the model corrected together. The best method has the letter "a". A
    method that is incomplete or not `comparable` with the others has none, "".
    """
    lines = []
    for model in models:
        found = _of_model(comparable(arms, model, design), design)
        lines += [{"model": model, "method": method, "group": found.get(method, "")} for method in design.methods]
    return pd.DataFrame(lines, columns=["model", "method", "group"])


def _of_model(data: Mapping[str, stats.Clustered], design: Design) -> dict[str, str]:
    ranked = sorted(data, key=lambda method: data[method].macro())
    if not ranked:
        return {}
    parts = np.stack([stats.cluster_parts(data[method]).mean(axis=0) for method in ranked])
    p = stats.all_pairs(parts, resamples=design.resamples, seed=design.seed)
    return dict(zip(ranked, stats.letters(p <= design.alpha), strict=True))
