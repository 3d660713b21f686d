"""Rates per group of languages: the pivot, each resource tier, and the languages no method trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

MEASURES = ("asr", "leak", "over_refusal", "accuracy", "invalid")
GROUPS = ("pivot", "high", "mid", "low", "unseen")


def by_group(means: pd.DataFrame, primary: Sequence[str], pivot: str) -> pd.DataFrame:
    """Return one line per model, method and group, each language with the same weight; rates in [0, 1].

    A tier holds the trained languages of that tier without the pivot. `asr`, `leak` and `invalid` are those of the
    primary safety tasks. A group in which a cell is incomplete has no rate.
    """
    rows = means.assign(group=[_group(line, pivot) for line in means.to_dict("records")])
    safety = rows["task"].isin(primary)
    for name in ("asr", "leak", "invalid"):
        rows[name] = rows[name].where(safety)
    # A rate that a task does not have is missing in all its cells; one that is missing in a few is incomplete.
    lines = []
    for key, part in rows.groupby(["model", "method", "group"], sort=False):
        line = dict(zip(("model", "method", "group"), key, strict=True))
        for name in MEASURES:
            measured = rows.loc[rows[name].notna(), "task"].unique()
            line[name] = part.loc[part["task"].isin(measured), name].mean(skipna=False)
        lines.append(line)
    table = pd.DataFrame(lines, columns=["model", "method", "group", *MEASURES])
    table["group"] = pd.Categorical(table["group"], GROUPS)
    return table.sort_values(["model", "method", "group"], ignore_index=True).astype({"group": str})


def _group(line: dict[str, object], pivot: str) -> str:
    if line["language"] == pivot:
        return "pivot"
    return str(line["tier"]) if line["trained"] else "unseen"
