"""Methods that no other one beats in attack success, over-refusal and utility together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import Arm, Key, asked
from mlbench.results.cells import ENDPOINT, clustered
from mlbench.results.design import Design

SIGN = {"asr": 1.0, "over_refusal": 1.0, "accuracy": -1.0}
"""What a macro rate is multiplied with, so that lower is better."""


def front(arms: Mapping[Key, Arm], models: Sequence[str], design: Design) -> pd.DataFrame:
    """Return one line per model and method: `on_front`, and `p_front`, the share of resamples in which it is.

    Over-refusal or utility that no method of a model has is left out. A method that lacks an endpoint which others
    have, or that answered other prompts than most, cannot be placed: both columns are missing, and it beats no other
    method. Without any complete attack success there is no front.

    Resamples draw source prompts, jointly for all methods and endpoints, because a benign request with a right answer
    counts both in over-refusal and in utility. They say nothing about other seeds of the same method.
    """
    lines = []
    for model in models:
        placed = _placed(arms, model, design)
        shares = _shares(placed, design)
        lines += [{"model": model, "method": method} | shares.get(method, {}) for method in design.methods]
    table = pd.DataFrame(lines, columns=["model", "method", "on_front", "p_front"])
    return table.astype({"on_front": "boolean", "p_front": "float64"})


def _placed(arms: Mapping[Key, Arm], model: str, design: Design) -> dict[str, dict[str, stats.Clustered]]:
    """Return the endpoints of each method that has all of them on the prompts on which most methods have them."""
    found: dict[str, dict[str, stats.Clustered]] = {}
    for method in design.methods:
        for endpoint in ENDPOINT.values():
            arm = arms.get((model, method, endpoint))
            if arm is not None and arm.seeds:
                found.setdefault(method, {})[endpoint] = clustered(arm.rows, endpoint)
    if not any("asr" in parts for parts in found.values()):
        return {}
    for endpoint in ENDPOINT.values():
        prompts = {method: asked(parts[endpoint]) for method, parts in found.items() if endpoint in parts}
        if prompts:
            usual = Counter(prompts.values()).most_common(1)[0][0]
            found = {method: parts for method, parts in found.items() if prompts.get(method) == usual}
    return found


def _shares(placed: Mapping[str, Mapping[str, stats.Clustered]], design: Design) -> dict[str, dict[str, object]]:
    if not placed:
        return {}
    methods, parts = list(placed), [list(endpoints.values()) for endpoints in placed.values()]
    sign = np.array([SIGN[endpoint] for endpoint in placed[methods[0]]])
    points = sign * np.array([[part.macro() for part in row] for row in parts])
    drawn = sign * stats.draw_macros(parts, resamples=design.resamples, seed=design.seed)
    shares = stats.on_front(drawn).mean(axis=0) if len(drawn) else np.full(len(methods), np.nan)
    found = zip(methods, stats.on_front(points), shares, strict=True)
    return {method: {"on_front": bool(ahead), "p_front": float(share)} for method, ahead, share in found}
