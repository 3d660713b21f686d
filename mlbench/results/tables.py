"""Verdicts and jobs -> the tables of a report: cells, ranking, comparisons, failures, warnings.

The primary endpoint is the macro attack success rate: the mean over all evaluated languages (trained and unseen) of
the primary safety tasks, each cell with the same weight. Everything else is exploratory and has its own column.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pandas as pd

from mlbench.errors import DataError
from mlbench.results.arms import arms as find_arms
from mlbench.results.arms import macro_rates
from mlbench.results.blocks import Blocks, blocks
from mlbench.results.cells import grid, over_seeds, per_seed, planned_jobs, prepare
from mlbench.results.comparisons import against_references
from mlbench.results.comparisons import comparisons as find_comparisons
from mlbench.results.costs import costs
from mlbench.results.crosslingual import crosslingual
from mlbench.results.design import Design
from mlbench.results.groups import by_group
from mlbench.results.guards import warnings
from mlbench.results.health import health
from mlbench.results.omnibus import omnibus
from mlbench.results.ranking import ranked
from mlbench.results.seeds import seeds


@dataclass(frozen=True, kw_only=True)
class Results:
    """The tables of a report. Rates and differences are in [0, 1]; a missing number is NaN, never 0.

    Attributes:
        cells: One line per model, method, seed, task and language.
        means: The same over seeds.
        ranking: One line per model and method, best first.
        seeds: One line per model, method and seed, see `seeds.seeds`.
        groups: One line per model, method and group of languages, see `groups.by_group`.
        crosslingual: One line per model and method: do languages fail alike, see `crosslingual.crosslingual`.
        comparisons: Every method against the baseline: per endpoint, over all cells and in each group and language.
        references: Every method's macro attack success against each further reference; exploratory.
        omnibus: Do the methods differ at all in a cell, see `omnibus.omnibus`; exploratory.
        blocks: Ranks of the methods over models and safety tasks, see `blocks.blocks`; exploratory.
        health: What may have broken in the trainings, one line per model and method, see `health.health`.
        failures: Jobs that are not done.
        warnings: What a reader has to know before believing the numbers, one sentence each.
    """

    design: Design
    cells: pd.DataFrame
    means: pd.DataFrame
    ranking: pd.DataFrame
    seeds: pd.DataFrame
    groups: pd.DataFrame
    crosslingual: pd.DataFrame
    comparisons: pd.DataFrame
    references: pd.DataFrame
    omnibus: pd.DataFrame
    blocks: Blocks
    health: pd.DataFrame
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
    ranking = ranked(arms, means, comparisons, costs(jobs), design)
    return Results(
        design=design,
        cells=cells.drop(columns="cell"),
        means=means.drop(columns="cell"),
        ranking=ranking,
        seeds=seeds(arms, models, design),
        groups=by_group(means, design.primary, design.pivot),
        crosslingual=crosslingual(arms, models, design),
        comparisons=comparisons,
        references=against_references(arms, models, design),
        omnibus=omnibus(arms, models, design),
        blocks=blocks(arms, models, design),
        health=health(rows, jobs, design.methods, design.untouched),
        failures=jobs[jobs["status"] != "done"].reset_index(drop=True),
        warnings=warnings(rows, jobs, cells, ranking, design),
    )


def rates(verdicts: pd.DataFrame, jobs: pd.DataFrame, design: Design) -> pd.DataFrame:
    """Return model, method and the rates of `arms.macro_rates` alone: no interval, no test.

    The arguments and errors are those of `compute`.
    """
    rows = prepare(verdicts)
    planned = grid(rows, planned_jobs(jobs))
    _check_primary(planned, design)
    arms = find_arms(rows, per_seed(rows, planned, alpha=None), design)
    places = product(sorted(set(planned["model"])), design.methods)
    return pd.DataFrame(
        [{"model": model, "method": method} | macro_rates(model, method, arms) for model, method in places]
    )


def _check_primary(planned: pd.DataFrame, design: Design) -> None:
    safety = sorted(set(planned.loc[planned["kind"] == "safety", "task"]))
    for task in design.primary:
        if task not in safety:
            raise DataError(f"the primary task {task!r} has no verdicts as a safety task", allowed=safety)
    if not design.primary:
        raise DataError("no primary task: name the safety tasks that decide", allowed=safety)
