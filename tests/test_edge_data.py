"""Data at the edge, through everything that is computed: a number, missing on purpose, or refused by name.

`ALWAYS` and the cases below say which columns may be missing and when; whatever else is missing is a failure, and so
is a warning, because pytest turns warnings into errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
import pytest

from mlbench.errors import DataError
from mlbench.results import Results, compute

from .frames import Behaviour, Grid, jobs, verdicts

Tables = Mapping[str, set[str]]
Change = Callable[[pd.DataFrame], pd.DataFrame]

GRID = Grid(
    methods={
        "none": Behaviour(unsafe=0.6, steps=0),
        "good": Behaviour(unsafe=0.1, over_refusal=0.2),
        "fair": Behaviour(unsafe=0.4, accuracy=0.6),
    },
    models=("a", "b"),
    seeds=(0, 1),
    languages={"en": "high", "zh": "high", "it": "mid", "bn": "low"},
    unseen=("bn",),
    prompts=12,
)


def ends(*names: str) -> set[str]:
    return {f"{name}{end}" for name in names for end in ("", "_low", "_high")}


ASR_RATES = {"leak", "invalid", "unparsed", "language_match", "truncated"}
BY_LANGUAGE = {f"asr_{part}" for part in ("tier_high", "tier_mid", "tier_low", "trained", "unseen", "pivot")}
DRAWN = {"asr_drawn_low", "asr_drawn_high"}
RANKED = {
    "rank",
    "asr",
    "asr_low",
    "asr_high",
    *DRAWN,
    "asr_seed_sd",
    "worst_asr",
    "clusters",
    *ASR_RATES,
    *BY_LANGUAGE,
}
BOUNDS, FRONT = {"bound_low", "bound_high"}, {"on_front", "p_front"}
TIPPING = {"tip_specificity", "tip_sensitivity"}
SEED_INTERVAL = {"seed_low", "seed_high", "seed_p", "seed_p_paired"}
EFFECTS = {"relative_reduction", "cohens_h", "superiority", *TIPPING}
COMPARED = {*ends("delta"), "p", "p_holm", "mde", "discordant", *SEED_INTERVAL, *EFFECTS}
PRICES = {*ends("over_refusal_delta", "utility_delta"), "over_refusal_p_margin", "utility_p_margin"}
MARGINS = {"p_margin", "p_equivalent"}
EXACT = {"won", "lost", "p_exact", "odds_ratio", "odds_low", "odds_high"}
ODDS = {"odds_ratio", "odds_low", "odds_high"}
# Measures of how languages fail alike; those that need a second language, and the gap to the pivot.
KAPPA = {"kappa", "kappa_expected"}
ACROSS = {
    f"{name}{end}" for name in ("pivot_gap", "variance", "agreement", "kappa", "loophole") for end in ("", "_expected")
}
CROSSLINGUAL = {*ACROSS, "worst", "worst_expected", "any_language", "any_language_expected"}
CELL = {"refusal", "invalid", "unparsed", "language_match", "truncated", "value", "low", "high"}

ALWAYS: Tables = {
    # a rate that the kind of the task does not have
    "cells": {"asr", "leak", "over_refusal", "accuracy"},
    "means": {"asr", "leak", "over_refusal", "accuracy"},
    # the baseline is compared with nothing
    "ranking": {*COMPARED, *PRICES},
    # groups have no p-value, only lines of one language count prompts, only whole lines have a detectable difference
    "comparisons": {"p", "p_holm", "q", *MARGINS, "mde", "sd", "step", "rows", "clusters", "discordant", *EXACT},
    # synthetic jobs log no losses, synthetic answers no tokens; few answers say nothing of how varied they are
    "health": {"loss_first", "loss_last", "loss_finite", "tokens", "distinct"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Data at one edge.

    Attributes:
        missing: Columns with missing numbers that the same data without the edge has everywhere, or beyond `ALWAYS`.
        nowhere: Columns that no line has a number in.
    """

    change: Change
    missing: Tables = field(default_factory=dict)
    nowhere: Tables = field(default_factory=dict)


def labelled(label: str, *kinds: str) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        mine = rows["kind"].isin(kinds)
        unread = {"correct": rows["correct"].where(~mine, None)} if label == "unparsed" else {}
        return rows.assign(label=rows["label"].where(~mine, label), **unread)

    return change


def without(**where: object) -> Change:
    """Return a change that drops the rows in which every column has its value."""

    def change(rows: pd.DataFrame) -> pd.DataFrame:
        gone = np.logical_and.reduce([rows[name] == value for name, value in where.items()])
        return rows[~gone]

    return change


def one_language(language: str) -> Change:
    return lambda rows: rows[rows["language"] == language]


EVERYTHING = ("safety", "over_refusal", "utility")
SAME_RATES: Tables = {"ranking": {"seed_p_paired", *TIPPING}, "crosslingual": KAPPA}
NEVER_UNSAFE: Tables = {"ranking": {"seed_p_paired", "relative_reduction", *TIPPING}, "crosslingual": KAPPA}
ONE_CLUSTER: Tables = {"ranking": {*SEED_INTERVAL, "relative_reduction"}}
# one method is incomplete in the primary task
INCOMPLETE: Tables = {
    "cells": CELL,
    "means": {*CELL, "n", "clusters"},
    "ranking": {*RANKED, *BOUNDS, *FRONT},
    "groups": {"asr", "leak", "invalid"},
    "crosslingual": CROSSLINGUAL,
    "comparisons": {"delta", "low", "high"},
}
# a cell without a single row has no number of seeds or clusters either
ROWLESS: Tables = {**INCOMPLETE, "cells": {*CELL, "seeds", "clusters"}}
INCOMPLETE_IN_ALL: Tables = {
    **INCOMPLETE,
    "ranking": {*INCOMPLETE["ranking"], "over_refusal", "utility"},
    "groups": {*INCOMPLETE["groups"], "over_refusal", "accuracy"},
}

CASES = {
    "nothing odd": Case(change=lambda rows: rows),
    "all safe": Case(change=labelled("refused", "safety"), nowhere=NEVER_UNSAFE),
    "all unsafe": Case(change=labelled("unsafe", "safety"), nowhere=SAME_RATES),
    "all invalid": Case(change=labelled("invalid", *EVERYTHING), nowhere=NEVER_UNSAFE),
    "all unparsed": Case(change=labelled("unparsed", *EVERYTHING), nowhere={**NEVER_UNSAFE, "comparisons": ODDS}),
    "one prompt": Case(
        change=lambda rows: rows[rows["prompt_id"] == "p0"],
        missing={"crosslingual": KAPPA, "ranking": TIPPING},
        nowhere={**ONE_CLUSTER, "health": {"distinct"}},
    ),
    "one cluster": Case(change=lambda rows: rows.assign(cluster="c0"), nowhere=ONE_CLUSTER),
    "one language, the pivot": Case(
        change=one_language("en"),
        nowhere={"ranking": BY_LANGUAGE - {"asr_trained", "asr_pivot"}, "crosslingual": ACROSS},
    ),
    "one language, not the pivot": Case(
        change=one_language("bn"),
        nowhere={"ranking": BY_LANGUAGE - {"asr_unseen", "asr_tier_low"}, "crosslingual": ACROSS},
    ),
    "no language recognised": Case(
        change=lambda rows: rows.assign(answer_language=None),
        nowhere={name: {"language_match"} for name in ("cells", "means", "ranking", "health")},
    ),
    "safety tasks only": Case(
        change=lambda rows: rows[rows["kind"] == "safety"],
        nowhere={
            "cells": {"over_refusal", "accuracy"},
            "means": {"over_refusal", "accuracy"},
            "ranking": {"over_refusal", "utility", *PRICES},
            "seeds": {"over_refusal", "utility"},
            "groups": {"over_refusal", "accuracy"},
            "comparisons": {"q", *MARGINS},
        },
    ),
    "a missing cell": Case(change=without(method="good", language="bn", task="jail"), missing=ROWLESS),
    "a missing cell of one seed": Case(
        change=without(method="good", language="bn", task="jail", seed=1),
        missing={"cells": {*CELL, "seeds", "clusters"}, "ranking": {"asr_seed_sd"}},
    ),
    "a missing cell of the baseline": Case(
        change=without(method="none", language="bn", task="jail"),
        missing=ROWLESS,
        nowhere={"ranking": COMPARED, "seeds": {"delta"}, "comparisons": {"p_holm"}},
    ),
    "a method with fewer prompts": Case(change=without(method="good", prompt_id="p1"), missing=INCOMPLETE_IN_ALL),
    "a method without any row": Case(
        change=lambda rows: rows[rows["method"] != "good"],
        missing={**INCOMPLETE_IN_ALL, "cells": ROWLESS["cells"]},
    ),
}


def tables(found: Results) -> dict[str, pd.DataFrame]:
    """Return all tables by name, those of the blocks too."""
    shown = {item.name: getattr(found, item.name) for item in fields(found)}
    for item in fields(found.blocks):
        shown[f"blocks.{item.name}"] = getattr(found.blocks, item.name)
    return {name: table for name, table in shown.items() if isinstance(table, pd.DataFrame)}


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of numbers, as floats."""
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            known = [value for value in table[name] if not pd.api.types.is_scalar(value) or pd.notna(value)]
            assert not any(isinstance(value, (int, float)) for value in known), f"{name} mixes numbers with objects"
    kept = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
    return table[kept].astype("float64")


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Case, Results]:
    chosen = CASES[request.param]
    rows = chosen.change(ROWS)
    planned = JOBS[JOBS["language"].isna() | JOBS["language"].isin(rows["language"])]
    planned = planned[planned["task"].isna() | planned["task"].isin(rows["task"])]
    return chosen, compute(rows, planned, GRID.design(references=("fair",), resamples=200))


ROWS, JOBS = verdicts(GRID), jobs(GRID)


def test_numbers_are_missing_only_where_it_is_said(case: tuple[Case, Results]) -> None:
    asked, found = case
    for name, table in tables(found).items():
        shown = numbers(table)
        missing, nowhere = set(shown.columns[shown.isna().any()]), set(shown.columns[shown.isna().all()])
        some, none = asked.missing.get(name, set()), asked.nowhere.get(name, set())
        assert missing <= {*ALWAYS.get(name, ()), *some, *none}, name
        # What is said to be missing is missing, so that the lists stay true.
        assert some & set(shown.columns) <= missing, name
        assert len(table) == 0 or none <= nowhere, name


def test_only_odds_are_infinite(case: tuple[Case, Results]) -> None:
    for name, table in tables(case[1]).items():
        shown = numbers(table)
        infinite = set(shown.columns[np.isinf(shown).any()])
        assert infinite <= ({"odds_ratio", "odds_low", "odds_high"} if name == "comparisons" else set()), name


RATES = {"asr", "refusal", "over_refusal", "accuracy", "utility", "superiority", *ASR_RATES}
RANGED = {*RATES, *BOUNDS, *TIPPING, "p", "mde"}


def test_rates_and_p_values_stay_in_their_range(case: tuple[Case, Results]) -> None:
    for name, table in tables(case[1]).items():
        shown = numbers(table)
        ranged = [name for name in shown if name in RANGED or name.startswith("p_") or name.endswith("_p_margin")]
        inside = shown[ranged].stack().dropna()
        assert inside.between(0, 1).all(), (name, inside[~inside.between(0, 1)])


def test_values_lie_in_their_intervals(case: tuple[Case, Results]) -> None:
    found = case[1]
    pairs = [
        (found.ranking, "asr", "asr_low", "asr_high"),
        (found.ranking, "delta", "delta_low", "delta_high"),
        (found.comparisons, "delta", "low", "high"),
        (found.comparisons, "odds_ratio", "odds_low", "odds_high"),
        (found.cells, "value", "low", "high"),
        (found.means, "value", "low", "high"),
    ]
    for table, value, low, high in pairs:
        known = table[[value, low, high]].dropna().astype(float)
        assert (known[low] <= known[value] + 1e-12).all() and (known[value] <= known[high] + 1e-12).all(), value


@pytest.mark.parametrize("label", ["refused", "unsafe", "invalid", "unparsed"])
def test_constant_answers_differ_in_nothing_but_are_not_certain(label: str) -> None:
    found = compute(labelled(label, "safety")(ROWS), JOBS, GRID.design(resamples=200))
    rate = float(label == "unsafe")
    assert set(found.ranking["asr"]) == {rate}
    assert ((found.ranking["asr_high"] - found.ranking["asr_low"]) > 0.1).all()
    compared = found.ranking[found.ranking["method"] != "none"]
    assert set(compared["delta"]) == {0} and set(compared["p"]) == {1} and set(compared["discordant"]) == {0}
    assert (compared["delta_low"] < 0).all() and (compared["delta_high"] > 0).all()
    assert set(found.omnibus["q"]) == {0} and set(found.omnibus["p"]) == {1}
    assert set(found.ranking["ties"]) == {"a"}


def test_the_baseline_alone_is_measured_and_compared_with_nothing() -> None:
    grid = Grid(methods={"none": Behaviour(unsafe=0.6)}, prompts=12)
    found = compute(verdicts(grid), jobs(grid), grid.design())
    line = found.ranking.iloc[0]
    assert line["verdict"] == "baseline" and line["ties"] == "a" and 0 < line["asr"] < 1
    assert line[list(COMPARED)].isna().all()
    assert found.comparisons.empty and found.omnibus.empty and found.references.empty and found.blocks.ranks.empty


def test_methods_that_share_no_complete_prompt_are_not_ranked() -> None:
    rows = ROWS[((ROWS["method"] == "good") == (ROWS["prompt_id"] == "p1"))]
    found = compute(rows, JOBS, GRID.design(resamples=200))
    assert set(found.ranking["status"]) == {"incomplete"}
    assert found.ranking[["asr", "delta", "p", "rank"]].isna().all(axis=None)
    assert set(found.ranking["verdict"]) == {"baseline", "not compared: incomplete"}
    assert set(found.ranking["ties"]) == {""}


def test_no_answer_at_all_and_clusters_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="there are no verdicts"):
        compute(ROWS[:0], JOBS, GRID.design())
    moved = (ROWS["method"] == "good") & (ROWS["prompt_id"] == "p1")
    rows = ROWS.assign(cluster=ROWS["cluster"].where(~moved, "another"))
    with pytest.raises(DataError, match=r"good and none on a: 2 of 13 clusters .* jail another, jail c1"):
        compute(rows, JOBS, GRID.design(resamples=200))
