"""Any method of a run against any other, on one metric: how much, how sure, and what the run could have seen at all.

The plan fixed one family of comparisons beforehand: attack success over all languages against its baseline, by its
judge. Everything else asked for here is exploratory and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlbench import reporting, stats
from mlbench.errors import DataError, unknown
from mlbench.results import Design, cells, comparisons, frames, words
from mlbench.results import arms as of_methods
from mlbench.results.arms import TIERS, Arm
from mlbench.store import Store

METRICS = {"asr": "asr", "over_refusal": "over_refusal", "utility": "accuracy"}
TITLES = {"asr": "attack success", "over_refusal": "over-refusal", "utility": "utility"}
GROUPINGS = ("language", "tier", "task")
COLUMNS = [
    *("model", "method", "reference", "metric", "group", "delta", "low", "high", "p", "p_adjusted", "p_margin"),
    *("pairs", "clusters", "discordant", "mde", "verdict"),
]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Every method against one of them.

    Attributes:
        table: One line per model, method and group, rates in [0, 1]; `pairs` counts prompts in each language. By
            language, it ends with the exact sign test of source prompts, see `results.comparisons.exact_columns`.
        note: What the comparison may be used for.
    """

    metric: str
    baseline: str
    by: str
    confirmatory: bool
    note: str
    table: pd.DataFrame


def compare(root: Path, *, baseline: str = "", metric: str = "asr", by: str = "", judge: str = "") -> Compared:
    """Return the comparison of all methods of a run folder with one of them.

    Args:
        baseline: Its label; "" = the plan's baseline.
        metric: One of `METRICS`.
        by: One of `GROUPINGS`, or "" for the macro rate over everything.
        judge: A judgement besides the planned one.

    Raises:
        UserError: No such folder, method, metric, grouping or judgement.
        DataError: No cell is finished, or two methods answered different prompts.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, tuple(METRICS))
    if by and by not in GROUPINGS:
        raise unknown("grouping", by, GROUPINGS)
    data = reporting.planned(root, judge)
    planned = reporting.design(data)
    design = replace(planned, baseline=_label(baseline, planned) if baseline else planned.baseline)
    store = Store(root)
    verdicts = frames.verdicts(data, store)
    if verdicts.empty:
        raise DataError(f"no cell of {str(root)!r} is finished yet", hint=f"see: mlbench status {root}")
    table = tabulate(verdicts, frames.jobs(data, store), design, metric, by)
    confirmatory = metric == "asr" and not by and not judge and design.baseline == planned.baseline
    return Compared(
        metric=metric,
        baseline=design.baseline,
        by=by,
        confirmatory=confirmatory,
        note=_note(confirmatory, planned, by),
        table=table,
    )


def _label(name: str, design: Design) -> str:
    """Return the label of a method, with or without its mark as a reconstruction."""
    for label in design.methods:
        if label in (name, f"{name} (reconstruction)"):
            return label
    raise unknown("baseline", name, design.methods)


def _note(confirmatory: bool, planned: Design, by: str) -> str:
    if confirmatory:
        return "This is the confirmatory family of the plan; p adjusted by Holm over all methods and models."
    family = f"attack success over all languages against {planned.baseline}, by the planned judge"
    how = "max-T over the groups of a method" if by else "Holm over all methods and models"
    return f"Exploratory: the confirmatory family of the plan is {family}. p adjusted by {how}."


def tabulate(verdicts: pd.DataFrame, jobs: pd.DataFrame, design: Design, metric: str, by: str = "") -> pd.DataFrame:
    """Return the lines of a comparison with `design.baseline`; `verdicts` and `jobs` are those of `results.compute`."""
    endpoint = METRICS[metric]
    rows = cells.prepare(verdicts)
    grid = cells.per_seed(rows, cells.grid(rows, cells.planned_jobs(jobs)), alpha=design.alpha)
    arms = of_methods.arms(rows, grid, design)
    if not any(key[2] == endpoint for key in arms):
        raise DataError(f"the run measures no {TITLES[metric]}", hint="choose another --metric")
    methods = [method for method in design.methods if method != design.baseline]
    if not methods:
        raise DataError(f"the run has no other method to compare {design.baseline!r} with")
    models = sorted(set(grid["model"]))
    lines: list[dict[str, object]] = []
    for model, method in product(models, methods):
        shared = {"model": model, "method": method, "reference": design.baseline, "metric": metric}
        arm, base = arms.get((model, method, endpoint)), arms.get((model, design.baseline, endpoint))
        if arm and base and arm.seeds and base.seeds:
            lines += [shared | line for line in _lines(arm, base, endpoint, by, design)]
        else:
            lines.append(shared | {"group": "all"})
    exact = comparisons.EXACT_COLUMNS if by == "language" else ()
    table = pd.DataFrame(lines, columns=[*COLUMNS[:-2], "sd", "step", "rows", "seeds_agree", *exact])
    if not by:
        table["p_adjusted"] = stats.holm(table["p"].astype(float).tolist())
    return _worded(table, metric, design, tests=table["group"].nunique() if by else len(table))[[*COLUMNS, *exact]]


def _lines(arm: Arm, base: Arm, endpoint: str, by: str, design: Design) -> Iterator[dict[str, object]]:
    groups = {name: kept for name, kept in _groups(arm.rows, by, design).items() if len(kept)}
    pairs = {name: (_part(arm, kept), _part(base, kept)) for name, kept in groups.items()}
    adjusted = _max_t(arm, base, endpoint, groups, design)
    for name, (mine, other) in pairs.items():
        found = comparisons.compare(mine, other, endpoint, design)
        # The interval of the report: of one language that of its row, of several cells that of their mean.
        interval = found.row_intervals[0] if by == "language" and len(found.rows) == 1 else found.interval
        yield {
            "group": name,
            "delta": found.delta,
            "low": interval.low,
            "high": interval.high,
            "p": found.p,
            "p_adjusted": max(found.p, adjusted[name]),  # two draws of sign flips: noise must not turn them round
            "p_margin": comparisons.p_margin(found, endpoint, design),
            "pairs": len(mine.rows.drop_duplicates(["cell", "prompt_id"])),
            "clusters": found.clusters,
            "discordant": found.discordant,
            "sd": found.sd,
            "step": found.step,
            "rows": len(found.rows),
            "seeds_agree": comparisons.seeds_agree(mine, other, endpoint),
            **(comparisons.exact_columns(found.parts, endpoint, design) if by == "language" else {}),
        }


def _groups(rows: pd.DataFrame, by: str, design: Design) -> dict[str, pd.Index]:
    """Return the cells of each group; tiers and unseen languages are those of the report's comparisons."""
    facts = rows.drop_duplicates("cell").set_index("cell").sort_index()
    if not by:
        return {"all": facts.index}
    if by == "tier":
        tiers = {tier: of_methods.tier(facts, tier, design) for tier in TIERS}
        unseen = facts.index[~facts["trained"].astype(bool)]
        return {"pivot": facts.index[facts["language"] == design.pivot], **tiers, "unseen": unseen}
    return {str(name): part.index for name, part in facts.groupby(by, sort=True)}


def _part(arm: Arm, kept: pd.Index) -> Arm:
    return replace(arm, rows=arm.rows[arm.rows["cell"].isin(kept)])


def _max_t(arm: Arm, base: Arm, endpoint: str, groups: Mapping[str, pd.Index], design: Design) -> dict[str, float]:
    """Return the p-values of all groups under the same sign flips, adjusted for their number."""
    one, two = stats.aligned(cells.clustered(arm.rows, endpoint), cells.clustered(base.rows, endpoint))
    parts = stats.cluster_parts(one) - stats.cluster_parts(two)
    inside = [np.isin(one.rows, kept) for kept in groups.values()]
    flips = stats.sign_flip(
        np.stack([parts[rows].mean(axis=0) for rows in inside]), resamples=design.resamples, seed=design.seed
    )
    return dict(zip(groups, flips.rows.tolist(), strict=True))


def _worded(table: pd.DataFrame, metric: str, design: Design, *, tests: int) -> pd.DataFrame:
    mde, verdicts = [], []
    for line in table.to_dict("records"):
        seen = math.nan
        if not pd.isna(line["sd"]):
            seen = stats.minimum_detectable(
                int(line["clusters"]),
                rows=int(line["rows"]),
                sd=line["sd"],
                step=line["step"],
                alpha=design.alpha,
                tests=tests,
            )
        mde.append(seen)
        verdicts.append(_verdict({str(key): value for key, value in line.items()} | {"mde": seen}, metric, design))
    return table.assign(mde=mde, verdict=verdicts)


def _verdict(line: Mapping[str, object], metric: str, design: Design) -> str:
    if metric == "asr" or pd.isna(line["delta"]):
        return words.verdict({**line, "p_holm": line["p_adjusted"]}, is_baseline=False, alpha=design.alpha)
    margin = design.over_refusal_margin if metric == "over_refusal" else design.utility_margin
    named = {f"{metric}_delta": line["delta"], f"{metric}_p_margin": line["p_margin"]}
    named |= {f"{metric}_delta_{end}": line[end] for end in ("low", "high")}
    differs = words.number(line["p_adjusted"]) <= design.alpha
    return words.price(named, metric, margin=margin, alpha=design.alpha, differs=differs)


def as_data(found: Compared) -> dict[str, Any]:
    """Return a comparison as plain data; a missing number is null, infinite odds are the text "Infinity"."""
    table = found.table.astype(object).where(found.table.notna(), None)
    lines = table.replace(math.inf, "Infinity").to_dict("records")
    return {
        "metric": found.metric,
        "baseline": found.baseline,
        "by": found.by,
        "confirmatory": found.confirmatory,
        "note": found.note,
        "lines": lines,
    }


def text(found: Compared) -> str:
    """Return a comparison for the terminal, differences in percentage points."""
    lines = found.table.to_dict("records")
    shown = {
        "model": [str(line["model"]) for line in lines],
        "method": [str(line["method"]) for line in lines],
        found.by or "group": [str(line["group"]) for line in lines],
        "difference": [words.with_interval({**line, "delta_low": line["low"], "delta_high": line["high"]}, "delta",
                                           words.signed) for line in lines],
        "p": [words.p_value(line["p"]) for line in lines],
        "p adjusted": [words.p_value(line["p_adjusted"]) for line in lines],
        "p margin": [words.p_value(line["p_margin"]) for line in lines],
        "pairs (clusters)": [_pairs(line) for line in lines],
        "discordant": [words.count(line["discordant"]) for line in lines],
        "detectable": [words.percent(line["mde"]) for line in lines],
        "won : lost": [_counts(line) for line in lines],
        "p exact": [words.p_value(line.get("p_exact")) for line in lines],
        "odds ratio": [_odds_ratio(line) for line in lines],
        "verdict": [str(line["verdict"]) for line in lines],
    }  # fmt: skip
    left_out = {"p margin"} if found.metric == "asr" else set()
    left_out |= set() if found.by else {"group"}
    # Won and lost add up to the discordant ones.
    left_out |= {"discordant"} if "won" in found.table else {"won : lost", "p exact", "odds ratio"}
    left_out |= {"model"} if found.table["model"].nunique() == 1 else set()
    head = f"{TITLES[found.metric].capitalize()} against {found.baseline}, percentage points; {_better(found.metric)}"
    table = _columns({name: entries for name, entries in shown.items() if name not in left_out})
    return "\n".join([head, "", *table, "", found.note])


def _better(metric: str) -> str:
    return "above 0 is better" if metric == "utility" else "below 0 is better"


def _pairs(line: Mapping[Any, object]) -> str:
    return words.DASH if pd.isna(line["pairs"]) else f"{words.count(line['pairs'])} ({words.count(line['clusters'])})"


def _counts(line: Mapping[Any, object]) -> str:
    known = "won" in line and not pd.isna(line["won"])
    return f"{words.count(line['won'])} : {words.count(line['lost'])}" if known else words.DASH


def _odds_ratio(line: Mapping[Any, object]) -> str:
    """Return lost / won with its exact interval: "0.25 [0.04, 0.91]"."""
    if "odds_ratio" not in line or pd.isna(line["odds_ratio"]):
        return words.DASH
    value, low, high = (_odds(line[name]) for name in ("odds_ratio", "odds_low", "odds_high"))
    return f"{value} [{low}, {high}]"


def _odds(value: object) -> str:
    return "∞" if words.number(value) == math.inf else words.decimal(value)


def _columns(shown: Mapping[str, list[str]]) -> list[str]:
    """Return lines of text; words stand left, numbers right."""
    columns = []
    for name, entries in shown.items():
        width = max(map(len, (name, *entries)))
        left = name in ("model", "method", *GROUPINGS, "verdict")
        columns.append([entry.ljust(width) if left else entry.rjust(width) for entry in (name, *entries)])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
