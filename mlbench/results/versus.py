"""Two runs side by side: the cells both have, paired by source prompt where both asked the same prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results.arms import RATES, Arm, Key, arms
from mlbench.results.cells import CELL, clustered, grid, per_seed, planned_jobs, prepare
from mlbench.results.design import Design

ANSWER = [*CELL, "prompt_id", "sample"]
LINE_COLUMNS = [
    *("model", "method", "measure", "a", "b", "delta", "low", "high", "p", "p_holm", "equal", "same_prompts"),
    *("seeds", "cells", "cells_a", "cells_b", "clusters"),
]
CELL_COLUMNS = [*CELL, "kind", "a", "b", "delta", "answers", "identical", "changed", "same_prompts"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two runs.

    Attributes:
        rows: Verdict rows with rates, see `cells.prepare`, and `verdict`, one word each.
        cells: One line per planned cell and seed, see `cells.per_seed`, and `prompts`, the hash of what it was asked.
    """

    rows: pd.DataFrame
    cells: pd.DataFrame


def side(verdicts: pd.DataFrame, jobs: pd.DataFrame, prompts: pd.DataFrame, design: Design) -> Side:
    """Return one run.

    Args:
        verdicts: Those of `tables.compute`, as are `jobs`.
        prompts: The hash of the prompts of every cell, in the column `prompts`, beside the columns `CELL`.
    """
    rows = prepare(verdicts)
    cells = per_seed(rows, grid(rows, planned_jobs(jobs)), alpha=design.alpha).merge(prompts, on=CELL, how="left")
    return Side(rows=rows.assign(verdict=_verdict(rows)), cells=cells)


def _verdict(rows: pd.DataFrame) -> pd.Series:
    """Return each verdict in a word: where there is a right answer, whether it was given."""
    graded = rows["kind"] == "utility"
    words = rows["label"].where(~rows["leak"].astype(bool), rows["label"] + " (leak)")
    right = rows["accuracy"].map({1.0: "right", 0.0: "wrong"})
    return words.where(~graded, right).where(~(graded & (rows["unparsed"] == 1)), "unparsed")


def pairs(a: Side, b: Side) -> pd.DataFrame:
    """Return one line per answer to the same prompt in both runs: `same_answer`, `verdict_a` and `verdict_b`."""
    asked = a.cells[[*CELL, "prompts"]].merge(b.cells[[*CELL, "prompts"]], on=[*CELL, "prompts"])[CELL]
    kept = [*ANSWER, "kind", "answer_hash", "verdict"]
    found = (
        a.rows[kept].merge(asked, on=CELL).merge(b.rows[kept].drop(columns="kind"), on=ANSWER, suffixes=("_a", "_b"))
    )
    return found.assign(same_answer=found["answer_hash_a"] == found["answer_hash_b"])


def cells(a: Side, b: Side, paired: pd.DataFrame) -> pd.DataFrame:
    """Return one line per cell that is complete in both runs.

    Columns: the rates `a` and `b` of the cell's endpoint, `delta` (b less a), and where both runs asked the same
    prompts how many `answers` there are, the share of them that is `identical` to the byte, and how many verdicts
    `changed`.
    """
    both = _shared(a, b)
    table = both[both["complete"]].rename(columns={"value_a": "a", "value_b": "b", "kind_a": "kind"})
    table = table.assign(delta=table["b"] - table["a"])
    counted = paired.assign(changed=paired["verdict_a"] != paired["verdict_b"]).groupby(CELL, sort=False)
    counts = pd.DataFrame(
        {
            "answers": counted.size(),
            "identical": counted["same_answer"].mean(),
            "changed": counted["changed"].sum(),
        }
    )
    return table.merge(counts.reset_index(), on=CELL, how="left")[CELL_COLUMNS]


def _shared(a: Side, b: Side) -> pd.DataFrame:
    """Return one line per cell that both runs plan; `complete` where it is in both."""
    kept = [*CELL, "kind", "value", "complete", "prompts"]
    both = a.cells[kept].merge(b.cells[kept], on=CELL, suffixes=("_a", "_b"))
    return both.assign(
        complete=both["complete_a"] & both["complete_b"], same_prompts=both["prompts_a"] == both["prompts_b"]
    )


def flips(paired: pd.DataFrame) -> pd.DataFrame:
    """Return how many verdicts changed from what to what in each task, most frequent first."""
    changed = paired[paired["verdict_a"] != paired["verdict_b"]]
    table = changed.groupby(["task", "verdict_a", "verdict_b"]).size().rename("answers").reset_index()
    return table.sort_values("answers", ascending=False, kind="stable", ignore_index=True)


def only(a: Side, b: Side) -> pd.DataFrame:
    """Return the complete cells that only one run has, those of one model and method in one line."""
    done = [one.cells.loc[one.cells["complete"], CELL] for one in (a, b)]
    merged = done[0].merge(done[1], on=CELL, how="outer", indicator="run")
    merged["run"] = merged["run"].astype(str).map({"left_only": "A", "right_only": "B"})
    lines = []
    for (run, model, method), part in merged.dropna(subset="run").groupby(["run", "model", "method"]):
        names = {name: ", ".join(map(str, sorted(set(part[name])))) for name in ("task", "language", "seed")}
        lines.append({"run": run, "model": model, "method": method, "cells": len(part)} | names)
    return pd.DataFrame(lines, columns=["run", "model", "method", "cells", "task", "language", "seed"])


def lines(a: Side, b: Side, design: Design) -> pd.DataFrame:
    """Return one line per model, method and measure that both runs have, over the cells both planned.

    A seed counts where all those cells are complete in both runs. `cells` says over how many cells the line is, and
    `cells_a` and `cells_b` how many each run planned. The interval and `p` are those of `stats.compare`, and missing
    where the prompts differ, or where no verdict does (`equal`). `p_holm` corrects within a measure over all models
    and methods; exploratory.
    """
    both = _shared(a, b)
    primary = tuple(sorted(set(both.loc[(both["kind_a"] == "safety") & (both["kind_b"] == "safety"), "task"])))
    design = replace(design, primary=primary)
    found_a, found_b = (_arms(one, both, design) for one in (a, b))
    table = pd.DataFrame(
        [
            _line(key, measure, (found_a[key], found_b[key]), both, design)
            for key in found_a
            for measure, (endpoint, _) in RATES.items()
            if endpoint == key[2] and key in found_b
        ],
        columns=LINE_COLUMNS,
    )
    for measure in RATES:
        mine = table["measure"] == measure
        table.loc[mine, "p_holm"] = stats.holm(table.loc[mine, "p"].astype(float).tolist())
    for name, one in (("cells_a", a), ("cells_b", b)):
        table[name] = [_planned(one, line, design) for line in table.to_dict("records")]
    methods, measures = list(design.methods), list(RATES)
    place = [(line.model, methods.index(line.method), measures.index(line.measure)) for line in table.itertuples()]
    return table.iloc[sorted(range(len(table)), key=place.__getitem__)].reset_index(drop=True)


def _arms(one: Side, both: pd.DataFrame, design: Design) -> dict[Key, Arm]:
    shared = both[[*CELL, "complete"]]
    return arms(
        one.rows.merge(shared[CELL], on=CELL), one.cells.drop(columns="complete").merge(shared, on=CELL), design
    )


def _line(key: Key, measure: str, sides: tuple[Arm, Arm], both: pd.DataFrame, design: Design) -> dict[str, object]:
    one, two = sides
    line: dict[str, object] = {
        "model": key[0],
        "method": key[1],
        "measure": measure,
        "seeds": len(one.seeds),
        "cells": 0,
    }
    if not one.seeds:
        return line
    outcome = RATES[measure][1]
    used = one.rows[CELL].drop_duplicates()
    same = bool(used.merge(both[[*CELL, "same_prompts"]], on=CELL)["same_prompts"].all())
    before, after = clustered(one.rows, outcome), clustered(two.rows, outcome)
    line |= {"a": before.macro(), "b": after.macro(), "delta": after.macro() - before.macro(), "cells": len(used)}
    line |= {"same_prompts": same, "equal": same and _equal(one.rows, two.rows, outcome)}
    if line["equal"]:
        return line | {"delta": 0.0, "clusters": len(before.clusters)}
    if not same:
        return line
    found = stats.compare(after, before, resamples=design.resamples, seed=design.seed, alpha=design.alpha)
    ends = {"low": found.interval.low, "high": found.interval.high}
    return line | ends | {"p": found.p, "clusters": found.clusters}


def _equal(one: pd.DataFrame, two: pd.DataFrame, outcome: str) -> bool:
    first, second = (rows.set_index(ANSWER)[outcome].sort_index() for rows in (one, two))
    return first.index.equals(second.index) and bool(np.array_equal(first.to_numpy(), second.to_numpy()))


def _planned(one: Side, line: Mapping[str, object], design: Design) -> int:
    """Return how many cells a run plans of what a line averages."""
    mine = one.cells[(one.cells["model"] == line["model"]) & (one.cells["method"] == line["method"])]
    endpoint = RATES[str(line["measure"])][0]
    if endpoint == "asr":
        return int((mine["kind"] == "safety").sum())
    graded = set(one.rows.loc[one.rows[endpoint].notna(), "task"])
    return int(mine["task"].isin(graded).sum())
