"""The ranking: what each method reaches, how it compares with the baseline, how sure that is and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.results import words
from mlbench.results.arms import TIERS, Arm, Key, macro_rates
from mlbench.results.arms import tier as tier_cells
from mlbench.results.cells import clustered
from mlbench.results.design import Design
from mlbench.results.effects import EFFECT_COLUMNS, effect_columns
from mlbench.results.front import front
from mlbench.results.seeds import seed_intervals
from mlbench.results.ties import ties


def ranked(
    arms: Mapping[Key, Arm], means: pd.DataFrame, comparisons: pd.DataFrame, cost: pd.DataFrame, design: Design
) -> pd.DataFrame:
    """Return one line per model and method, best first.

    `asr_low` and `asr_high` are Wilson's with the effective number of clusters, which cover at low rates too;
    `asr_drawn_low` and `asr_drawn_high` are the bootstrap's over clusters, beside them for comparison.

    Columns besides the rates and the comparison with the baseline: those of `seeds.seed_intervals`, of
    `effects.effect_columns`, of `front.front` and of `costs.costs`; `ties` are the letters of `ties.ties`, and `tied`
    says whether a method shares one with the best.
    """
    models = sorted(set(means["model"]))
    by_seeds = seed_intervals(arms, models, design).set_index(["model", "method"])
    lines = []
    for model, method in product(models, design.methods):
        main, base = arms.get((model, method, "asr")), arms.get((model, design.baseline, "asr"))
        line: dict[str, object] = {"model": model, "method": method} | macro_rates(model, method, arms)
        line |= _safety(main, means, design) | effect_columns(main, base)
        line |= by_seeds.loc[(model, method)].to_dict()
        lines.append(line | _against_baseline(line, comparisons, design))
    table = pd.DataFrame(lines, columns=_COLUMNS)
    letters = ties(arms, models, design).rename(columns={"group": "ties"})
    for columns in (letters, front(arms, models, design), cost):
        table = table.merge(columns, on=["model", "method"], how="left")
    table["order"] = [design.methods.index(method) for method in table["method"]]
    table = table.sort_values(["model", "asr", "order"], na_position="last", ignore_index=True).drop(columns="order")
    table.insert(1, "rank", table.groupby("model")["asr"].rank(method="min").astype("Int64"))
    table["tied"] = _tied(table)
    return table


def _tied(table: pd.DataFrame) -> pd.Series:
    """Return which methods share a letter with the first one of their model."""
    letters = table["ties"].str.split().map(set)
    best = table.groupby("model")["ties"].transform("first").str.split().map(set)
    shared = [bool(mine & first) for mine, first in zip(letters, best, strict=True)]
    return pd.Series(shared, index=table.index) & (table.groupby("model").cumcount() > 0)


_ENDS = ("", "_low", "_high")
_COLUMNS = [
    *("model", "method", "status", "seeds", "seeds_planned"),
    *("asr", "asr_low", "asr_high", "asr_drawn_low", "asr_drawn_high", "asr_by_seed", "asr_seed_sd"),
    *(f"asr_tier_{tier}" for tier in TIERS),
    *("asr_trained", "asr_unseen", "asr_pivot", "worst_language", "worst_asr", "clusters"),
    *("leak", "invalid", "unparsed", "language_match", "truncated", "over_refusal", "utility"),
    *(f"delta{end}" for end in _ENDS),
    *("p", "p_holm", "mde", "discordant", "verdict"),
    *("seed_low", "seed_high", "seed_p", "seed_p_paired", "seeds_agree"),
    *(f"{name}_delta{end}" for name in ("over_refusal", "utility") for end in _ENDS),
    *("over_refusal_p_margin", "utility_p_margin", "over_refusal_verdict", "utility_verdict"),
    *EFFECT_COLUMNS,
]


def _safety(arm: Arm | None, means: pd.DataFrame, design: Design) -> dict[str, object]:
    seeds = {"seeds": len(arm.seeds) if arm else 0, "seeds_planned": arm.planned if arm else 0}
    if arm is None or not arm.seeds:
        return {"status": "incomplete", **seeds, "asr": np.nan}
    facts = means[means["task"].isin(design.primary)].drop_duplicates("cell").set_index("cell")
    data = clustered(arm.rows, "asr")
    interval = stats.macro_interval(data, alpha=design.alpha)
    draws = stats.draw_rates(data, resamples=design.resamples, seed=design.seed).mean(axis=1)
    drawn = stats.percentile(draws, data.macro(), clusters=len(data.clusters), alpha=design.alpha)
    by_language = pd.Series(data.rates(), index=facts.loc[list(data.rows), "language"]).groupby(level=0).mean()
    by_seed = {seed: clustered(arm.rows[arm.rows["seed"] == seed], "asr").macro() for seed in arm.seeds}
    line: dict[str, object] = {
        "status": "complete" if len(arm.seeds) == arm.planned else "seeds missing",
        **seeds,
        "asr": data.macro(),
        "asr_low": interval.low,
        "asr_high": interval.high,
        "asr_drawn_low": drawn.low,
        "asr_drawn_high": drawn.high,
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
    return line | {name: arm.mean(name) for name in ("leak", "unparsed", "language_match", "truncated")}


def _against_baseline(line: Mapping[str, object], comparisons: pd.DataFrame, design: Design) -> dict[str, object]:
    mine = comparisons[(comparisons["model"] == line["model"]) & (comparisons["method"] == line["method"])]
    whole = {found["endpoint"]: found for found in mine[mine["scope"] == "all"].to_dict("records")}
    line = dict(line)
    for prefix, endpoint in (("", "asr"), ("over_refusal_", "over_refusal"), ("utility_", "accuracy")):
        found = whole.get(endpoint, {})
        line |= {f"{prefix}delta{end}": found.get(end.strip("_") or "delta", np.nan) for end in _ENDS}
        if prefix:
            line[f"{prefix}p_margin"] = found.get("p_margin", np.nan)
    main = whole.get("asr", {})
    line |= {name: main.get(name, np.nan) for name in ("p", "p_holm", "mde", "discordant")}
    line["verdict"] = words.verdict(line, is_baseline=line["method"] == design.baseline, alpha=design.alpha)
    for name, margin in (("over_refusal", design.over_refusal_margin), ("utility", design.utility_margin)):
        line[f"{name}_verdict"] = words.price(line, name, margin=margin, alpha=design.alpha)
    return line
