"""Rates corrected for the errors of a judge, by labels that people gave to some of the answers.

References:
    Rogan and Gladen, American Journal of Epidemiology 107 (1978); with uncertain calibration: Lee et al.,
        arXiv 2511.21140 (code: UW-Madison-Lee-Lab/LLM-judge-reporting).
    Angelopoulos et al., Science 382 (2023), arXiv 2301.09633: prediction-powered inference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlbench.agreement.tables import NOTHING, Columns, Estimate, flat, groups, rate_of, readable


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
    for key, part in groups(rows, by):
        read = part[readable(part, columns)]
        if read.empty:
            continue
        seen, judged = read[columns.human].notna(), read[columns.judge] == columns.label
        raw = rate_of(judged, read, every, alpha)
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
            **flat("judged", raw), **flat("rogan_gladen", behind), **flat("ppi", powered),
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
