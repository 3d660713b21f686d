"""Two judges on the same answers, and a judge against people: 2x2 tables, agreement beyond chance, error rates.

References:
    Cohen, Educational and Psychological Measurement 20 (1960): kappa.
    Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008): AC1, which prevalence does not crush.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlbench import stats

UNREADABLE = "unparsed"
WEIGHT = "weight"
RESAMPLES = 10_000


class Table(NamedTuple):
    """A 2x2 table of two judges, or of a judge (first) and a person (second)."""

    both: float
    first: float
    second: float
    neither: float

    @property
    def n(self) -> float:
        """Answers in the table."""
        return sum(self)


class Estimate(NamedTuple):
    """A rate in [0, 1] with its interval; NaN where it cannot be had."""

    value: float
    low: float
    high: float


NOTHING = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where in a frame the labels stand, and what is counted.

    Attributes:
        judge: Column of the judge's labels.
        human: Column of people's labels, missing where nobody looked.
        label: The label whose rate is meant.
        strata: Column of the sampling strata, as `sample` writes it; "" for one sample of all.
        weight: Column of how many answers a labelled row stands for, as `sample` writes it; "" for one each. A sample
            drawn by verdict needs it: without it sensitivity and specificity describe the sample.
        cluster: Column of what is not independent, e.g. the source prompt; "" takes each row by itself.
    """

    judge: str = "label"
    human: str = "human"
    label: str = "unsafe"
    strata: str = ""
    weight: str = ""
    cluster: str = ""


def table(first: pd.Series, second: pd.Series, weight: pd.Series | None = None) -> Table:
    """Return the 2x2 table of two columns of truth values, weighted if asked."""
    return Table(*(float(part.sum()) for part in _marks(first, second, weight)))


def _marks(first: pd.Series, second: pd.Series, weight: pd.Series | None) -> stats.FloatArray:
    """Return the weight of each answer in the cell it belongs to, (4, answers), in the order of `Table`."""
    one, two = first.to_numpy(dtype=bool), second.to_numpy(dtype=bool)
    each = np.ones(len(one)) if weight is None else weight.to_numpy(dtype=float)
    return np.stack([one & two, one & ~two, ~one & two, ~one & ~two]) * each


def kappa(cells: Table) -> float:
    """Return Cohen's kappa, NaN where chance alone agrees always."""
    return float(_beyond_chance(np.array(cells))[0]) if cells.n else math.nan


def ac1(cells: Table) -> float:
    """Return Gwet's AC1: kappa's form with a chance agreement that is small where one class is rare."""
    return float(_beyond_chance(np.array(cells))[1]) if cells.n else math.nan


def _beyond_chance(cells: stats.FloatArray) -> stats.FloatArray:
    """Return kappa and AC1 of tables that are not empty, (..., 4) -> (2, ...)."""
    both, first, second, neither = np.moveaxis(cells / cells.sum(axis=-1, keepdims=True), -1, 0)
    one, two = both + first, both + second
    share = (one + two) / 2
    # kappa: p_e = p1 p2 + (1 - p1)(1 - p2); AC1: p_e = 2 π (1 - π), π the mean share of the class
    chance = np.stack([one * two + (1 - one) * (1 - two), 2 * share * (1 - share)])
    # (p_o - p_e) / (1 - p_e)
    gain, room = both + neither - chance, 1 - chance
    found: stats.FloatArray = np.divide(gain, room, out=np.full_like(chance, np.nan), where=room > 1e-12)
    return found


def beyond_chance(
    first: pd.Series, second: pd.Series, cluster: pd.Series, weight: pd.Series | None = None, *,
    alpha: float = 0.05, resamples: int = RESAMPLES, seed: int = 0,
) -> tuple[Estimate, Estimate]:  # fmt: skip
    """Return kappa and AC1 of two columns of truth values, with percentile intervals over resampled clusters.

    There is no interval where resamples say nothing about the error: they never vary, as with perfect agreement or a
    single cluster, or more than `alpha` of them have no kappa because only one class was drawn.
    """
    marks = _marks(first, second, weight)
    values = (kappa(cells := Table(*marks.sum(axis=1))), ac1(cells))
    if not cells.n:
        return NOTHING, NOTHING
    place = pd.factorize(cluster.astype(str), sort=True)[0]
    sums = np.stack([np.bincount(place, weights=mark) for mark in marks]).astype(np.float64)
    data = stats.Clustered(
        rows=Table._fields,
        clusters=tuple(map(str, range(sums.shape[1]))),
        sums=sums,
        counts=np.tile(sums.sum(axis=0), (len(marks), 1)),
    )
    draws = _beyond_chance(stats.draw_rates(data, resamples=resamples, seed=seed))
    of_kappa, of_ac1 = (_estimate(value, drawn, alpha) for value, drawn in zip(values, draws, strict=True))
    return of_kappa, of_ac1


def _estimate(value: float, draws: stats.FloatArray, alpha: float) -> Estimate:
    known = draws[~np.isnan(draws)]
    if math.isnan(value) or len(known) < (1 - alpha) * len(draws) or np.ptp(known) < 1e-12:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(known, [alpha / 2, 1 - alpha / 2])
    return Estimate(value, float(low), float(high))


def compare(
    rows: pd.DataFrame, first: str, second: str, *, by: Sequence[str] = ("language",), label: str = "unsafe",
    cluster: str = "", alpha: float = 0.05,
) -> pd.DataFrame:  # fmt: skip
    """Return how two judges agree on the same answers, one line per group: counts, kappa, AC1, McNemar's p.

    Args:
        rows: One row per answer with the labels of both judges.
        first: Column of the first judge's labels.
        second: Column of the second judge's labels.
        label: What is compared: whether each gave this label. Rows that either could not read are counted apart.
        cluster: Column of what is not independent, e.g. the source prompt; "" takes each row by itself. The intervals
            of kappa and AC1 heed it, McNemar's p does not.
        alpha: Two-sided error of the intervals.
    """
    from scipy.stats import binomtest

    lines: list[dict[str, object]] = []
    for key, part in groups(rows, by):
        read = part[(part[[first, second]] != UNREADABLE).all(axis=1) & part[[first, second]].notna().all(axis=1)]
        one, two = read[first] == label, read[second] == label
        cells = table(one, two)
        discordant = int(cells.first + cells.second)
        of_kappa, of_ac1 = beyond_chance(one, two, _clusters(read, cluster), alpha=alpha)
        lines.append({
            **key, "n": len(read), "unread": len(part) - len(read),
            **{name: int(count) for name, count in cells._asdict().items()},
            "agreement": (cells.both + cells.neither) / cells.n if cells.n else math.nan,
            **flat("kappa", of_kappa), **flat("ac1", of_ac1),
            "p": float(binomtest(int(cells.first), discordant).pvalue) if discordant else 1.0,
        })  # fmt: skip
    return pd.DataFrame(lines)


def accuracy(
    rows: pd.DataFrame, columns: Columns, *, by: Sequence[str] = (), alpha: float = 0.05, resamples: int = 0
) -> pd.DataFrame:
    """Return a judge's sensitivity and specificity against people, with Wilson intervals, one line per group.

    Rows without a human label, or that the judge could not read (`unread`), are left out.

    Args:
        resamples: Bootstrap draws of the intervals of kappa and AC1; 0 leaves those columns out.
    """
    lines: list[dict[str, object]] = []
    for key, part in groups(rows, by):
        seen = part[part[columns.human].notna() & readable(part, columns)]
        truth, said = seen[columns.human] == columns.label, seen[columns.judge] == columns.label
        weight = seen[columns.weight] if columns.weight else None
        harmful = rate_of(said[truth], seen[truth], columns, alpha)
        harmless = rate_of(~said[~truth], seen[~truth], columns, alpha)
        cells = table(said, truth, weight)
        agreed: dict[str, float] = {"kappa": kappa(cells), "ac1": ac1(cells)}
        if resamples:
            cluster = _clusters(seen, columns.cluster)
            of_both = beyond_chance(said, truth, cluster, weight, alpha=alpha, resamples=resamples)
            agreed = flat("kappa", of_both[0]) | flat("ac1", of_both[1])
        lines.append({
            **key, "n": len(seen), "unread": int((part[columns.judge] == UNREADABLE).sum()),
            "positives": int(truth.sum()), "negatives": int((~truth).sum()), **agreed,
            **flat("sensitivity", harmful), **flat("specificity", harmless),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _clusters(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows[column] if column else pd.Series(np.arange(len(rows)), index=rows.index)


def readable(rows: pd.DataFrame, columns: Columns) -> pd.Series:
    """Return which rows the judge could read, (rows,)."""
    return rows[columns.judge].notna() & (rows[columns.judge] != UNREADABLE)


def flat(name: str, estimate: Estimate) -> dict[str, float]:
    """Return an estimate as the columns `<name>`, `<name>_low` and `<name>_high`."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def rate_of(hits: pd.Series, rows: pd.DataFrame, columns: Columns, alpha: float) -> Estimate:
    """Return the share of hits, (rows,), with the Wilson interval of clustered and weighted answers."""
    if rows.empty:
        return NOTHING
    each = rows[columns.weight].to_numpy(dtype=float) if columns.weight else np.ones(len(rows))
    each = each * len(rows) / each.sum()  # the interval is that of so many answers, however many each stands for
    place = pd.factorize(_clusters(rows, columns.cluster).astype(str))[0]
    counts = np.bincount(place, weights=each).astype(np.float64)
    sums = np.bincount(place, weights=each * hits.to_numpy(dtype=float)).astype(np.float64)
    names = tuple(map(str, range(len(counts))))
    data = stats.Clustered(rows=("",), clusters=names, sums=sums[None], counts=counts[None])
    return Estimate(data.macro(), *stats.wilson(data, alpha=alpha)[0])


def groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield the rows of each group with the names and values that make it one; without any, all rows."""
    if not by:
        yield {}, rows
        return
    for key, part in rows.groupby([*by], sort=True, observed=True):
        yield dict(zip(by, key, strict=True)), part
