"""Which trial of each method its scores on the development split pick, and the log of all trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlbench import rule, search
from mlbench.errors import JobError
from mlbench.shootout import Loaded


def choose(shootout: Loaded, ranking: pd.DataFrame) -> dict[str, Any]:
    """Return the selection log: the rule, and per method every trial with its scores and which one was chosen.

    Args:
        shootout: The shootout with its searches.
        ranking: Macro rates of every trial and method in [0, 1], one line per model; averaged over models.

    Raises:
        JobError: No trial of a method has all the scores that the rule asks for.
    """
    select = shootout.settings.select
    assert select is not None
    parsed = rule.parse(select.rule)
    scores = _scores(ranking, parsed)
    references = {name: scores.get(name) for name in parsed.methods}
    if missing := [name for name, found in references.items() if found is None]:
        raise JobError(f"{missing[0]!r}, to which the rule refers, has no scores on the split {select.split!r}")
    methods = {}
    for index, entry in enumerate(shootout.settings.methods):
        if not entry.search:
            continue
        tried = search.trials(shootout, index)
        found = [scores.get(search.label(entry.label, number)) for number in range(len(tried))]
        try:
            choice = rule.choose(parsed, found, references)  # type: ignore[arg-type]  # none is missing, see above
        except ValueError as error:
            raise JobError(f"the settings of {entry.label!r} cannot be selected: {error}") from error
        methods[entry.label] = {
            "chosen": choice.trial,
            "admissible": choice.admissible,
            "trials": [{"values": dict(values), "scores": result} for values, result in zip(tried, found, strict=True)],
        }
    return {
        "rule": select.rule,
        "split": select.split,
        "seeds": list(select.seeds),
        "trials": select.trials,
        "references": references,
        "methods": methods,
        "fixed": [entry.label for entry in shootout.settings.methods if not entry.search],
    }


def _scores(ranking: pd.DataFrame, parsed: rule.Rule) -> dict[str, dict[str, float] | None]:
    """Return method -> metric -> percent, None for a method that lacks a metric of the rule."""
    asked = {*parsed.measure, *(metric for condition in parsed.conditions for metric in condition.measure)}
    # A method that failed on one model is missing there: its mean must not be that of the others.
    means = 100 * ranking.groupby("method")[list(rule.METRICS)].agg(lambda values: values.mean(skipna=False))
    found: dict[str, dict[str, float] | None] = {}
    for method, line in means.iterrows():
        whole = not line[sorted(asked)].isna().any()
        found[str(method)] = {name: float(value) for name, value in line.dropna().items()} if whole else None
    return found


def values(log: Mapping[str, Any]) -> dict[str, search.Values]:
    """Return method -> the chosen values."""
    return {label: found["trials"][found["chosen"]]["values"] for label, found in log["methods"].items()}
