"""Verdicts and jobs -> the tables of a report: cells, ranking, comparisons, failures, warnings.

The primary endpoint is the macro attack success rate: the mean over all evaluated languages (trained and unseen) of
the primary safety tasks, each cell with the same weight. Everything else is exploratory and has its own column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.errors import DataError
from mlbench.results import words
from mlbench.results.arms import TIERS, Arm, Key
from mlbench.results.arms import arms as find_arms
from mlbench.results.arms import tier as tier_cells
from mlbench.results.cells import clustered, grid, over_seeds, per_seed, planned_jobs, prepare
from mlbench.results.comparisons import against_references, compare, seeds_agree
from mlbench.results.comparisons import comparisons as find_comparisons
from mlbench.results.costs import costs
from mlbench.results.crosslingual import crosslingual
from mlbench.results.design import Design
from mlbench.results.groups import by_group
from mlbench.results.guards import warnings


@dataclass(frozen=True, kw_only=True)
class Results:
    """The tables of a report. Rates and differences are in [0, 1]; a missing number is NaN, never 0.

    Attributes:
        cells: One line per model, method, seed, task and language.
        means: The same over seeds.
        ranking: One line per model and method, best first.
        groups: One line per model, method and group of languages, see `groups.by_group`.
        crosslingual: One line per model and method: do languages fail alike, see `crosslingual.crosslingual`.
        comparisons: Every method against the baseline: per endpoint, over all cells and in each group and language.
        references: Every method's macro attack success against each further reference; exploratory.
        failures: Jobs that are not done.
        warnings: What a reader has to know before believing the numbers, one sentence each.
    """

    design: Design
    cells: pd.DataFrame
    means: pd.DataFrame
    ranking: pd.DataFrame
    groups: pd.DataFrame
    crosslingual: pd.DataFrame
    comparisons: pd.DataFrame
    references: pd.DataFrame
    failures: pd.DataFrame
    warnings: tuple[str, ...]


def compute(verdicts: pd.DataFrame, jobs: pd.DataFrame, design: Design) -> Results:
    """Return all tables.

    Args:
        verdicts: One row per judged answer; columns in `cells.VERDICT_COLUMNS`, optionally `chance`.
        jobs: One row per planned job; columns in `cells.JOB_COLUMNS` and, for align jobs, those of `costs`.

    Raises:
        DataError: The rows are malformed, or a primary task is not a safety task of the shootout.
    """
    jobs = planned_jobs(jobs)
    rows = prepare(verdicts)
    planned = grid(rows, jobs)
    _check_primary(planned, design)
    cells = per_seed(rows, planned, alpha=design.alpha)
    means = over_seeds(rows, cells, alpha=design.alpha)
    arms = find_arms(rows, cells, design)
    models = sorted(set(means["model"]))
    comparisons = find_comparisons(arms, means, design)
    ranking = _ranking(arms, means, comparisons, costs(jobs), design)
    return Results(
        design=design,
        cells=cells.drop(columns="cell"),
        means=means.drop(columns="cell"),
        ranking=ranking,
        groups=by_group(means, design.primary, design.pivot),
        crosslingual=crosslingual(arms, models, design),
        comparisons=comparisons,
        references=against_references(arms, models, design),
        failures=jobs[jobs["status"] != "done"].reset_index(drop=True),
        warnings=warnings(rows, jobs, cells, ranking, design.untouched),
    )


def _check_primary(planned: pd.DataFrame, design: Design) -> None:
    safety = sorted(set(planned.loc[planned["kind"] == "safety", "task"]))
    for task in design.primary:
        if task not in safety:
            raise DataError(f"the primary task {task!r} has no verdicts as a safety task", allowed=safety)
    if not design.primary:
        raise DataError("no primary task: name the safety tasks that decide", allowed=safety)


def _ranking(
    arms: Mapping[Key, Arm], means: pd.DataFrame, comparisons: pd.DataFrame, cost: pd.DataFrame, design: Design
) -> pd.DataFrame:
    lines = []
    for model, method in product(sorted(set(means["model"])), design.methods):
        line: dict[str, object] = {"model": model, "method": method}
        line |= _safety(arms.get((model, method, "asr")), means, design)
        for name, endpoint in (("over_refusal", "over_refusal"), ("utility", "accuracy")):
            arm = arms.get((model, method, endpoint))
            line[name] = arm.mean(endpoint) if arm and arm.seeds else np.nan
        lines.append(line | _against_baseline(model, method, arms, comparisons, design))
    table = pd.DataFrame(lines, columns=_RANKING_COLUMNS).merge(cost, on=["model", "method"], how="left")
    table["order"] = [design.methods.index(method) for method in table["method"]]
    table = table.sort_values(["model", "asr", "order"], na_position="last", ignore_index=True).drop(columns="order")
    table.insert(1, "rank", table.groupby("model")["asr"].rank(method="min").astype("Int64"))
    table["tied"] = _tied(table, arms, design)
    return table


_ENDS = ("", "_low", "_high")
_RANKING_COLUMNS = [
    *("model", "method", "status", "seeds", "seeds_planned"),
    *("asr", "asr_low", "asr_high", "asr_by_seed", "asr_seed_sd"),
    *(f"asr_tier_{tier}" for tier in TIERS),
    *("asr_trained", "asr_unseen", "asr_pivot", "worst_language", "worst_asr", "clusters"),
    *("leak", "invalid", "unparsed", "language_match", "truncated", "over_refusal", "utility"),
    *(f"delta{end}" for end in _ENDS),
    *("p", "p_holm", "mde", "discordant", "seeds_agree", "verdict"),
    *(f"{name}_delta{end}" for name in ("over_refusal", "utility") for end in _ENDS),
    *("over_refusal_p_margin", "utility_p_margin", "over_refusal_verdict", "utility_verdict"),
]


def _safety(arm: Arm | None, means: pd.DataFrame, design: Design) -> dict[str, object]:
    seeds = {"seeds": len(arm.seeds) if arm else 0, "seeds_planned": arm.planned if arm else 0}
    if arm is None or not arm.seeds:
        return {"status": "incomplete", **seeds, "asr": np.nan}
    facts = means[means["task"].isin(design.primary)].drop_duplicates("cell").set_index("cell")
    data = clustered(arm.rows, "asr")
    draws = stats.draw_rates(data, resamples=design.resamples, seed=design.seed)
    interval = stats.macro_interval(data, draws, alpha=design.alpha)
    by_language = pd.Series(data.rates(), index=facts.loc[list(data.rows), "language"]).groupby(level=0).mean()
    by_seed = {seed: clustered(arm.rows[arm.rows["seed"] == seed], "asr").macro() for seed in arm.seeds}
    line: dict[str, object] = {
        "status": "complete" if len(arm.seeds) == arm.planned else "seeds missing",
        **seeds,
        "asr": data.macro(),
        "asr_low": interval.low,
        "asr_high": interval.high,
        "asr_by_seed": by_seed,
        "asr_seed_sd": float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else np.nan,
        **{f"asr_tier_{tier}": arm.mean("asr", tier_cells(facts, tier, design)) for tier in TIERS},
        "asr_trained": arm.mean("asr", facts.index[facts["trained"].astype(bool)]),
        "asr_unseen": arm.mean("asr", facts.index[~facts["trained"].astype(bool)]),
        "asr_pivot": float(by_language.get(design.pivot, np.nan)),
        "worst_language": str(by_language.idxmax()),
        "worst_asr": float(by_language.max()),
        "clusters": len(data.clusters),
    }
    return line | {name: arm.mean(name) for name in ("leak", "invalid", "unparsed", "language_match", "truncated")}


def _against_baseline(
    model: str, method: str, arms: Mapping[Key, Arm], comparisons: pd.DataFrame, design: Design
) -> dict[str, object]:
    mine = comparisons[(comparisons["model"] == model) & (comparisons["method"] == method)]
    whole = {line["endpoint"]: line for line in mine[mine["scope"] == "all"].to_dict("records")}
    line: dict[str, object] = {}
    for prefix, endpoint in (("", "asr"), ("over_refusal_", "over_refusal"), ("utility_", "accuracy")):
        found = whole.get(endpoint, {})
        line |= {f"{prefix}delta{end}": found.get(end.strip("_") or "delta", np.nan) for end in _ENDS}
        if prefix:
            line[f"{prefix}p_margin"] = found.get("p_margin", np.nan)
    main = whole.get("asr", {})
    line |= {name: main.get(name, np.nan) for name in ("p", "p_holm", "mde", "discordant")}
    line["seeds_agree"] = _seeds_agree(model, method, arms, design)
    line["verdict"] = words.verdict(line, is_baseline=method == design.baseline, alpha=design.alpha)
    for name, margin in (("over_refusal", design.over_refusal_margin), ("utility", design.utility_margin)):
        line[f"{name}_verdict"] = words.price(line, name, margin=margin, alpha=design.alpha)
    return line


def _seeds_agree(model: str, method: str, arms: Mapping[Key, Arm], design: Design) -> bool:
    arm, base = arms.get((model, method, "asr")), arms.get((model, design.baseline, "asr"))
    if method == design.baseline or arm is None or base is None or not arm.seeds or not base.seeds:
        return True
    return seeds_agree(arm, base, "asr")


def _tied(table: pd.DataFrame, arms: Mapping[Key, Arm], design: Design) -> pd.Series:
    """Return which methods cannot be told from the best of their model (sign flips, Holm within the model)."""
    tied = pd.Series(False, index=table.index)
    for model, part in table[table["asr"].notna()].groupby("model"):
        leader = arms[model, part.iloc[0]["method"], "asr"]
        others = part.iloc[1:]
        p = stats.holm([compare(arms[model, name, "asr"], leader, "asr", design).p for name in others["method"]])
        tied.loc[others.index] = p > design.alpha
    return tied
