"""How far judges can be trusted: two judges against each other, a judge against people, and rates corrected by both.

Everything works on frames with one row per answer. Nothing is pooled over languages or methods unless asked: a judge
that errs differently on two methods ranks them by its errors.

References:
    Cohen, Educational and Psychological Measurement 20 (1960): kappa.
    Gwet, British Journal of Mathematical and Statistical Psychology 61 (2008): AC1, which prevalence does not crush.
    Rogan and Gladen, American Journal of Epidemiology 107 (1978); with uncertain calibration: Lee et al.,
        arXiv 2511.21140 (code: UW-Madison-Lee-Lab/LLM-judge-reporting).
    Angelopoulos et al., Science 382 (2023), arXiv 2301.09633: prediction-powered inference.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlbench import stats
from mlbench.core import Answer, Judge, Prompt
from mlbench.errors import DataError

UNREADABLE = "unparsed"
WEIGHT = "weight"


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
    one, two = first.to_numpy(dtype=bool), second.to_numpy(dtype=bool)
    each = np.ones(len(one)) if weight is None else weight.to_numpy(dtype=float)
    return Table(*(float(each[part].sum()) for part in (one & two, one & ~two, ~one & two, ~one & ~two)))


def kappa(cells: Table) -> float:
    """Return Cohen's kappa, NaN where chance alone agrees always."""
    if not cells.n:
        return math.nan
    first, second = (cells.both + cells.first) / cells.n, (cells.both + cells.second) / cells.n
    # p_e = p1 p2 + (1 - p1)(1 - p2)
    return _beyond_chance(cells, first * second + (1 - first) * (1 - second))


def ac1(cells: Table) -> float:
    """Return Gwet's AC1: kappa's form with a chance agreement that is small where one class is rare."""
    if not cells.n:
        return math.nan
    share = (2 * cells.both + cells.first + cells.second) / (2 * cells.n)
    # p_e = 2 π (1 - π), π the mean share of the class
    return _beyond_chance(cells, 2 * share * (1 - share))


def _beyond_chance(cells: Table, chance: float) -> float:
    # (p_o - p_e) / (1 - p_e)
    agreed = (cells.both + cells.neither) / cells.n
    return math.nan if chance == 1 else (agreed - chance) / (1 - chance)


def compare(
    rows: pd.DataFrame, first: str, second: str, *, by: Sequence[str] = ("language",), label: str = "unsafe"
) -> pd.DataFrame:
    """Return how two judges agree on the same answers, one line per group: counts, kappa, AC1, McNemar's p.

    Args:
        rows: One row per answer with the labels of both judges.
        first: Column of the first judge's labels.
        second: Column of the second judge's labels.
        label: What is compared: whether each gave this label. Rows that either could not read are counted apart.
    """
    from scipy.stats import binomtest

    lines: list[dict[str, object]] = []
    for key, part in _groups(rows, by):
        read = part[(part[[first, second]] != UNREADABLE).all(axis=1) & part[[first, second]].notna().all(axis=1)]
        cells = table(read[first] == label, read[second] == label)
        discordant = int(cells.first + cells.second)
        lines.append({
            **key, "n": len(read), "unread": len(part) - len(read),
            **{name: int(count) for name, count in cells._asdict().items()},
            "agreement": (cells.both + cells.neither) / cells.n if cells.n else math.nan,
            "kappa": kappa(cells), "ac1": ac1(cells),
            "p": float(binomtest(int(cells.first), discordant).pvalue) if discordant else 1.0,
        })  # fmt: skip
    return pd.DataFrame(lines)


def accuracy(rows: pd.DataFrame, columns: Columns, *, by: Sequence[str] = (), alpha: float = 0.05) -> pd.DataFrame:
    """Return a judge's sensitivity and specificity against people, with Wilson intervals, one line per group.

    Rows without a human label, or that the judge could not read (`unread`), are left out.
    """
    lines: list[dict[str, object]] = []
    for key, part in _groups(rows, by):
        seen = part[part[columns.human].notna() & _read(part, columns)]
        truth, said = seen[columns.human] == columns.label, seen[columns.judge] == columns.label
        cells = table(said, truth, seen[columns.weight] if columns.weight else None)
        harmful = _rate(said[truth], seen[truth], columns, alpha)
        harmless = _rate(~said[~truth], seen[~truth], columns, alpha)
        lines.append({
            **key, "n": len(seen), "unread": int((part[columns.judge] == UNREADABLE).sum()),
            "positives": int(truth.sum()), "negatives": int((~truth).sum()), "kappa": kappa(cells), "ac1": ac1(cells),
            **_flat("sensitivity", harmful), **_flat("specificity", harmless),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _read(rows: pd.DataFrame, columns: Columns) -> pd.Series:
    return rows[columns.judge].notna() & (rows[columns.judge] != UNREADABLE)


def _flat(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _rate(hits: pd.Series, rows: pd.DataFrame, columns: Columns, alpha: float) -> Estimate:
    if rows.empty:
        return NOTHING
    each = rows[columns.weight].to_numpy(dtype=float) if columns.weight else np.ones(len(rows))
    each = each * len(rows) / each.sum()  # the interval is that of so many answers, however many each stands for
    place = pd.factorize(rows[columns.cluster].astype(str))[0] if columns.cluster else np.arange(len(rows))
    counts = np.bincount(place, weights=each).astype(np.float64)
    sums = np.bincount(place, weights=each * hits.to_numpy(dtype=float)).astype(np.float64)
    names = tuple(map(str, range(len(counts))))
    data = stats.Clustered(rows=("",), clusters=names, sums=sums[None], counts=counts[None])
    return Estimate(data.macro(), *stats.wilson(data, alpha=alpha)[0])


class Calibration(NamedTuple):
    """What people's labels say of a judge: sensitivity on so many harmful, specificity on so many harmless answers."""

    sensitivity: float
    specificity: float
    positives: float
    negatives: float


def rogan_gladen(rate: float, n: float, judge: Calibration, *, alpha: float = 0.05) -> Estimate:
    """Return the rate behind a judge's rate, with the interval of Lee et al.; NaN for a judge no better than chance.

    Args:
        rate: Share of answers that the judge calls unsafe.
        n: Answers judged.
    """
    power = judge.sensitivity + judge.specificity - 1
    if power <= 0 or min(judge.positives, judge.negatives, n) <= 0:
        return NOTHING
    z = NormalDist().inv_cdf(1 - alpha / 2)
    # Smoothed towards one half, so that a rate of 0 or 1 has an error too.
    p, size = (n * rate + z**2 / 2) / (n + z**2), n + z**2
    se, m1 = (judge.positives * judge.sensitivity + 1) / (judge.positives + 2), judge.positives + 2
    sp, m0 = (judge.negatives * judge.specificity + 1) / (judge.negatives + 2), judge.negatives + 2
    scale = se + sp - 1
    if scale <= 0:
        return NOTHING
    share = (p + sp - 1) / scale
    # Var = p(1-p)/n + (1-θ)² sp(1-sp)/m0 + θ² se(1-se)/m1, over (se + sp - 1)²
    harmless, harmful = sp * (1 - sp) / m0, se * (1 - se) / m1
    spread = math.sqrt(p * (1 - p) / size + (1 - share) ** 2 * harmless + share**2 * harmful) / scale
    shift = 2 * z**2 * (share * harmful - (1 - share) * harmless)
    value = (rate + judge.specificity - 1) / power
    return Estimate(_within(value), _within(share + shift - z * spread), _within(share + shift + z * spread))


def ppi(
    judged: pd.Series, human: pd.Series, *, strata: pd.Series | None = None, cluster: pd.Series | None = None,
    alpha: float = 0.05,
) -> Estimate:  # fmt: skip
    """Return the prediction-powered rate: the judge's on all answers, corrected by its mean error on labelled ones.

    Where the judge was never wrong on a stratum's m labels, the error counts as one mistake in m + 2 would: no
    mistake seen is not no mistake.

    Args:
        judged: What the judge says of every answer, 0 or 1.
        human: What people say, 0 or 1, NaN where nobody looked. Within a stratum the labelled answers are a random
            sample; without strata, of all.
        strata: Where the labelled answers were drawn at different rates: the stratum of each. One that has answers but
            fewer than two labels makes the rate unknown.
        cluster: What is not independent, e.g. the source prompt; clusters are then labelled whole.
    """
    frame = pd.DataFrame({"f": judged.astype(float), "y": human.astype(float)})
    frame["stratum"] = "" if strata is None else strata.astype(str)
    frame["cluster"] = np.arange(len(frame)) if cluster is None else cluster
    value = variance = 0.0
    for _, part in frame.groupby("stratum"):
        seen, rest, share = part[part["y"].notna()], part[part["y"].isna()], len(part) / len(frame)
        if len(rest) and seen["cluster"].nunique() < 2:
            return NOTHING
        # mean of f on all + mean of (y - f) on labelled = λ mean of f on the rest + mean of (y - λ f) on labelled,
        # λ the share of the rest: the two means are of different answers and so independent
        power = len(rest) / len(part)
        mended = seen["y"] - power * seen["f"]
        value += share * (power * (float(rest["f"].mean()) if len(rest) else 0.0) + float(mended.mean()))
        spread = power**2 * _variance(rest["f"], rest["cluster"]) + _variance(mended, seen["cluster"])
        if len(rest) and (seen["y"] == seen["f"]).all():
            once = 1 / (len(seen) + 2)
            spread += once * (1 - once) / (len(seen) + 2)
        variance += share**2 * spread
    reach = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(variance)
    return Estimate(_within(value), _within(value - reach), _within(value + reach))


def _variance(values: pd.Series, cluster: pd.Series) -> float:
    """Return the variance of a mean whose clusters are independent: C/(C-1) Σ (Σ_c (x - x̄))² / n²."""
    residuals = (values - values.mean()).groupby(cluster).sum()
    count = len(residuals)
    return float((residuals**2).sum()) * count / (count - 1) / len(values) ** 2 if count > 1 else 0.0


def _within(value: float) -> float:
    return min(1.0, max(0.0, value))


def corrected(
    rows: pd.DataFrame, columns: Columns, *, by: Sequence[str] = ("method", "language"), alpha: float = 0.05
) -> pd.DataFrame:
    """Return the rate of a label by the judge alone and corrected in two ways, with intervals, one line per group.

    Sensitivity and specificity are those of the group itself: one pair for all methods would carry the judge's
    different errors on them into the comparison. Answers the judge could not read are left out and counted (`unread`).
    On labels drawn by verdict both give the same rate; the interval of PPI knows the strata, Rogan-Gladen's is wider.
    """
    every = replace(columns, weight="")  # weights are of the labelled rows; the judge read them all
    lines: list[dict[str, object]] = []
    for key, part in _groups(rows, by):
        read = part[_read(part, columns)]
        if read.empty:
            continue
        seen, judged = read[columns.human].notna(), read[columns.judge] == columns.label
        raw = _rate(judged, read, every, alpha)
        size = _size(judged, read[columns.cluster]) if columns.cluster else len(read)
        behind = rogan_gladen(raw.value, size, _calibration(read[seen], columns), alpha=alpha)
        powered = ppi(
            judged,
            (read[columns.human] == columns.label).astype(float).where(seen),
            strata=read[columns.strata] if columns.strata else None,
            cluster=read[columns.cluster] if columns.cluster else None,
            alpha=alpha,
        )
        lines.append({
            **key, "n": len(read), "unread": len(part) - len(read), "labelled": int(seen.sum()),
            **_flat("judged", raw), **_flat("rogan_gladen", behind), **_flat("ppi", powered),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _size(judged: pd.Series, cluster: pd.Series) -> float:
    """Return how many independent answers tell as much as these: p (1 - p) over the variance between clusters."""
    rate, variance = float(judged.mean()), _variance(judged.astype(float), cluster)
    return min(len(judged), rate * (1 - rate) / variance if variance else cluster.nunique())


def _calibration(seen: pd.DataFrame, columns: Columns) -> Calibration:
    """Return sensitivity and specificity on labelled rows; weighted ones count as fewer: (Σw)² / Σw²."""
    each = seen[columns.weight].astype(float) if columns.weight else pd.Series(1.0, index=seen.index)
    truth, said = seen[columns.human] == columns.label, seen[columns.judge] == columns.label
    parts = [(said[truth], each[truth]), (~said[~truth], each[~truth])]
    rates = [float((hits * w).sum() / w.sum()) if len(w) else math.nan for hits, w in parts]
    sizes = [float(w.sum() ** 2 / (w**2).sum()) if len(w) else 0.0 for _, w in parts]
    return Calibration(*rates, *sizes)


def sample(
    rows: pd.DataFrame, size: int, *, key: Sequence[str], by: Sequence[str] = ("method", "language", "label"),
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Return at most `size` rows of each stratum for people to label, with the columns `stratum` and `weight`.

    `weight` is how many rows of the stratum each stands for. The choice depends on the seed and the rows' keys alone:
    not on their order, and not on the other strata.

    Args:
        key: Columns that name a row.

    Raises:
        DataError: Two rows have the same key.
    """
    if rows.duplicated([*key]).any():
        raise DataError(f"{int(rows.duplicated([*key]).sum())} rows have the same {', '.join(key)}")
    made = rows.assign(stratum=_joined(rows, by))
    names = pd.Series(
        [
            hashlib.sha256(f"{seed}\0{stratum}\0{name}".encode()).hexdigest()
            for stratum, name in zip(made["stratum"], _joined(rows, key), strict=True)
        ],
        index=rows.index,
    )
    chosen = made[names.groupby(made["stratum"]).rank(method="first") <= size].copy()
    counts = made["stratum"].value_counts()
    chosen[WEIGHT] = chosen["stratum"].map(counts / counts.clip(upper=size))
    return chosen.loc[names[chosen.index].sort_values().index].sort_values("stratum", kind="stable")


def _joined(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    names = zip(*(rows[column].astype(str) for column in columns), strict=True)
    return pd.Series(["|".join(name) for name in names], index=rows.index, dtype=object)


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    if not by:
        yield {}, rows
        return
    for key, part in rows.groupby([*by], sort=True, observed=True):
        yield dict(zip(by, key, strict=True)), part


XSTEST = ("gpt4", "llama2new", "llama2orig", "mistralguard", "mistralinstruct")


def xstest(folder: Path) -> pd.DataFrame:
    """Return XSTest's answers of five models with people's labels: model, id, prompt, completion, human.

    `human` is "refused" for a full or partial refusal, else "complied".

    Raises:
        DataError: A file is missing.
    """
    parts = []
    for model in XSTEST:
        path = folder / f"xstest_v2_completions_{model}.csv"
        if not path.is_file():
            raise DataError(f"{path} is missing", hint="it is in github.com/paul-rottger/exaggerated-safety")
        parts.append(pd.read_csv(path, keep_default_na=False).assign(model=model))
    rows = pd.concat(parts, ignore_index=True)
    rows["human"] = np.where(rows["final_label"] == "1_full_compliance", "complied", "refused")
    return rows[["model", "id", "prompt", "completion", "human"]]


def validate(judge: Judge, rows: pd.DataFrame, *, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Return how well a judge finds refusals, against people's labels, one line per group and one for all ("all").

    Args:
        rows: prompt, completion, human ("refused" or not), the columns of `by`, and `language` where it is not English.
    """
    answers = [
        Answer(text=text, prompt=Prompt(id=str(at), cluster=str(at), language=language, text=prompt))
        for at, (prompt, text, language) in enumerate(
            zip(rows["prompt"], rows["completion"], rows.get("language", ["en"] * len(rows)), strict=True)
        )
    ]
    judged = rows.assign(judge=[verdict.label for verdict in judge.grade(answers)])
    columns = Columns(judge="judge", label="refused")
    each = accuracy(judged, columns, by=by)
    whole = accuracy(judged, columns).assign(**dict.fromkeys(by, "all"))
    return pd.concat([each, whole], ignore_index=True)[list(each.columns)]
