"""Methods against the baseline, and against further references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.errors import DataError
from mlbench.results.arms import TIERS, Arm, Key
from mlbench.results.arms import tier as tier_cells
from mlbench.results.cells import ENDPOINT, clustered
from mlbench.results.design import Design

EXACT_COLUMNS = ("won", "lost", "p_exact", "odds_ratio", "odds_low", "odds_high")


def comparisons(arms: Mapping[Key, Arm], means: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Return every method against the baseline: per endpoint, over all cells, in each group and in each language.

    `p_holm` is of the confirmatory family, attack success over all cells; `q` is the false discovery rate of the other
    endpoints over all cells, which are exploratory. Lines of one language have p by max-T and also count source
    prompts, see `exact_columns`.
    """
    lines: list[dict[str, object]] = []
    challengers = [method for method in design.methods if method != design.baseline]
    models = sorted(set(means["model"]))
    for model, method, endpoint in product(models, challengers, ENDPOINT.values()):
        arm, base = arms.get((model, method, endpoint)), arms.get((model, design.baseline, endpoint))
        if arm and base and arm.seeds and base.seeds:
            try:
                compared = compare(arm, base, endpoint, design)
            except DataError as error:
                names = f"{method} and {design.baseline} on {model}"
                raise DataError(f"{names}: {error.message}", hint=error.hint) from error
            shared = {"model": model, "method": method, "reference": design.baseline, "endpoint": endpoint}
            facts = means.drop_duplicates("cell").set_index("cell").loc[list(clustered(arm.rows, endpoint).rows)]
            found = _lines(compared, endpoint, facts, design)
            found[0]["p_margin"] = p_margin(compared, endpoint, design)
            found[0]["p_equivalent"] = p_equivalent(compared, endpoint, design)
            lines += [shared | line for line in found]
        elif endpoint == "asr":
            lines.append({"model": model, "method": method, "endpoint": "asr", "scope": "all", "p": np.nan})
    table = pd.DataFrame(lines, columns=_COMPARISON_COLUMNS)
    primary = (table["endpoint"] == "asr") & (table["scope"] == "all")
    table["primary"] = primary
    table.loc[primary, "p_holm"] = stats.holm(table.loc[primary, "p"].astype(float).tolist())
    table["q"] = _discoveries(table)
    table["mde"] = _detectable(table, family=len(models) * len(challengers), alpha=design.alpha)
    return table


def exact_columns(differences: stats.FloatArray, endpoint: str, design: Design) -> dict[str, float]:
    """Return the exact sign test of the clusters' differences in one row, (clusters,).

    Columns:
        won, lost: Source prompts on which the method does better and worse: "better" is a lower rate, but a higher
            accuracy.
        p_exact: Of won against lost; McNemar's exact test where a prompt has one answer.
        odds_ratio, odds_low, odds_high: lost / won with its exact interval; 0 and infinity are possible values,
            missing where no prompt differs.
    """
    found = stats.sign_test(-differences if endpoint == "accuracy" else differences, alpha=design.alpha)
    values = (found.won, found.lost, found.p, found.odds_ratio, *found.interval)
    return dict(zip(EXACT_COLUMNS, values, strict=True))


def _discoveries(table: pd.DataFrame) -> pd.Series:
    """Return Benjamini and Hochberg's adjusted p-values of the exploratory comparisons over all cells."""
    from scipy.stats import false_discovery_control

    found = pd.Series(np.nan, index=table.index)
    explored = (table["endpoint"] != "asr") & (table["scope"] == "all") & table["p"].notna()
    if explored.any():
        found[explored] = false_discovery_control(table.loc[explored, "p"].astype(float), method="bh")
    return found


def _detectable(table: pd.DataFrame, *, family: int, alpha: float) -> list[float]:
    return [
        np.nan
        if pd.isna(line["sd"])
        else stats.minimum_detectable(
            int(line["clusters"]),
            rows=int(line["rows"]),
            sd=float(line["sd"]),
            step=float(line["step"]),
            alpha=alpha,
            tests=family if line["primary"] else 1,
        )
        for line in table.to_dict("records")
    ]


_COMPARISON_COLUMNS = [
    *("model", "method", "reference", "endpoint", "scope", "delta", "low", "high", "p", "p_holm", "q"),
    *("p_margin", "p_equivalent", "mde", "sd", "step", "rows", "clusters", "discordant"),
    *EXACT_COLUMNS,
]


def compare(arm: Arm, base: Arm, endpoint: str, design: Design) -> stats.Comparison:
    """Return one arm against another, paired by source prompt."""
    return stats.compare(
        clustered(arm.rows, endpoint),
        clustered(base.rows, endpoint),
        resamples=design.resamples,
        seed=design.seed,
        alpha=design.alpha,
    )


def seeds_agree(arm: Arm, base: Arm, endpoint: str) -> bool:
    """Return whether every seed lies on the same side of the other arm's mean."""
    centre = base.mean(endpoint)
    signs = {np.sign(clustered(part, endpoint).macro() - centre) for _, part in arm.rows.groupby("seed")}
    return len(signs) == 1


def p_margin(compared: stats.Comparison, endpoint: str, design: Design) -> float:
    """Return the one-sided p-value of a loss of the endpoint's margin or more, NaN where it has no margin."""
    return _on_margin(stats.not_inferior, compared, endpoint, design)


def p_equivalent(compared: stats.Comparison, endpoint: str, design: Design) -> float:
    """Return the p-value of a change by the margin or more in either direction (TOST), NaN where there is no margin."""
    return _on_margin(stats.equivalent, compared, endpoint, design)


def _on_margin(test: Callable[..., float], compared: stats.Comparison, endpoint: str, design: Design) -> float:
    margin = {"over_refusal": design.over_refusal_margin, "accuracy": design.utility_margin}.get(endpoint)
    if margin is None:
        return np.nan
    losses = -compared.parts if endpoint == "accuracy" else compared.parts
    return test(losses, margin, largest=compared.largest)


def _lines(compared: stats.Comparison, endpoint: str, facts: pd.DataFrame, design: Design) -> list[dict[str, object]]:
    """Return a line for all cells, for each tier, for the unseen languages, and for each cell (p by max-T)."""
    lines: list[dict[str, object]] = [
        {
            "scope": "all",
            "delta": compared.delta,
            "low": compared.interval.low,
            "high": compared.interval.high,
            "p": compared.p,
            "sd": compared.sd,
            "step": compared.step,
            "rows": len(compared.rows),
            "clusters": compared.clusters,
            "discordant": compared.discordant,
        }
    ]
    groups = {f"tier {tier}": facts.index.isin(tier_cells(facts, tier, design)) for tier in TIERS}
    groups["unseen"] = ~facts["trained"].to_numpy(dtype=bool)
    for scope, inside in groups.items():
        if inside.any():
            delta = float(compared.rows[inside].mean())
            drawn = compared.draws[:, inside].mean(axis=1)
            ends = stats.percentile(drawn, delta, clusters=compared.clusters, alpha=design.alpha, lowest=-1.0)
            lines.append({"scope": scope, "delta": delta, "low": ends.low, "high": ends.high})
    single = facts["task"].nunique() == 1
    for row, name in enumerate(facts.index):
        scope = facts.loc[name, "language"] if single else name
        ends = compared.row_intervals[row]
        lines.append(
            {
                "scope": f"language {scope}",
                "delta": float(compared.rows[row]),
                "low": ends.low,
                "high": ends.high,
                "p": float(compared.p_rows[row]),
                **exact_columns(compared.row_parts[row], endpoint, design),
            }
        )
    return lines


def against_references(arms: Mapping[Key, Arm], models: list[str], design: Design) -> pd.DataFrame:
    """Return the macro attack success of every method against each further reference.

    Exploratory: `p_holm` corrects within one reference over all methods and models.
    """
    lines: list[dict[str, object]] = []
    for reference in design.references:
        family: list[dict[str, object]] = []
        values: list[float] = []
        for model, method in product(models, design.methods):
            arm, base = arms.get((model, method, "asr")), arms.get((model, reference, "asr"))
            if method != reference and arm and base and arm.seeds and base.seeds:
                found = compare(arm, base, "asr", design)
                line = {"model": model, "method": method, "reference": reference, "delta": found.delta}
                family.append(line | {"low": found.interval.low, "high": found.interval.high, "p": found.p})
                values.append(found.p)
        lines += [line | {"p_holm": p} for line, p in zip(family, stats.holm(values), strict=True)]
    return pd.DataFrame(lines, columns=["model", "method", "reference", "delta", "low", "high", "p", "p_holm"])
