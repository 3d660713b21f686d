"""Agreement of two judges beyond chance: values by hand, intervals against theory and the jackknife."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from mlbench import agreement
from mlbench.agreement import Estimate, Table


def test_kappa_and_ac1_by_hand() -> None:
    cells = Table(both=20, first=5, second=10, neither=65)
    # p_o = 0.85; kappa: p_e = 0.25 · 0.30 + 0.75 · 0.70 = 0.6; AC1: π = 0.275, p_e = 2 · 0.275 · 0.725 = 0.39875
    assert agreement.kappa(cells) == pytest.approx(0.25 / 0.4)
    assert agreement.ac1(cells) == pytest.approx(0.45125 / 0.60125)


def test_rare_harm_crushes_kappa_and_not_ac1() -> None:
    cells = Table(both=1, first=3, second=3, neither=193)
    # p_o = 0.97; kappa: p_e = 0.02² + 0.98² = 0.9608; AC1: p_e = 2 · 0.02 · 0.98 = 0.0392
    assert agreement.kappa(cells) == pytest.approx(0.0092 / 0.0392)
    assert agreement.ac1(cells) == pytest.approx(0.9308 / 0.9608)


def test_agreement_that_chance_alone_gives_has_no_kappa() -> None:
    assert math.isnan(agreement.kappa(Table(0, 0, 0, 10)))
    assert agreement.ac1(Table(0, 0, 0, 10)) == 1
    assert math.isnan(agreement.kappa(Table(0, 0, 0, 0)))


def pairs(language: str, *counts: int) -> pd.DataFrame:
    """Return rows of two judges: both unsafe, first only, second only, neither, first unread."""
    labels = [("unsafe", "unsafe"), ("unsafe", "refused"), ("invalid", "unsafe"), ("refused", "complied_safe"),
              ("unparsed", "unsafe")]  # fmt: skip
    rows = [pair for pair, count in zip(labels, counts, strict=True) for _ in range(count)]
    return pd.DataFrame(rows, columns=["a", "b"]).assign(language=language)


def test_two_judges_are_compared_language_by_language() -> None:
    rows = pd.concat([pairs("th", 20, 5, 10, 65, 3), pairs("en", 4, 0, 0, 6, 0)])
    english, thai = agreement.compare(rows, "a", "b").to_dict("records")
    # Perfect agreement has no interval: no resample of it can disagree.
    assert {name: value for name, value in english.items() if value == value} == {
        "language": "en", "n": 10, "unread": 0, "both": 4, "first": 0, "second": 0, "neither": 6,
        "agreement": 1.0, "kappa": 1.0, "ac1": 1.0, "p": 1.0,
    }  # fmt: skip
    assert {name for name, value in english.items() if value != value} == {
        "kappa_low", "kappa_high", "ac1_low", "ac1_high",
    }  # fmt: skip
    assert [thai[name] for name in ("n", "unread", "both", "first", "second", "neither")] == [100, 3, 20, 5, 10, 65]
    assert thai["kappa"] == pytest.approx(0.625)
    assert thai["ac1"] == pytest.approx(0.45125 / 0.60125)
    # exact McNemar: 2 · P(X <= 5), X ~ B(15, 1/2) = 2 · 4944 / 2^15
    assert thai["p"] == pytest.approx(2 * 4944 / 2**15)


def kappas(rows: pd.DataFrame, cluster: str = "", **changes: float) -> tuple[Estimate, Estimate]:
    """Return kappa and AC1 of the two judges of one language with their intervals."""
    (line,) = agreement.compare(rows, "a", "b", cluster=cluster, **changes).to_dict("records")
    first, second = ([line[f"{name}{end}"] for end in ("", "_low", "_high")] for name in ("kappa", "ac1"))
    return Estimate(*first), Estimate(*second)


def test_the_interval_of_kappa_is_that_of_theory_when_every_prompt_is_answered_once() -> None:
    rows = pairs("th", 200, 50, 100, 650, 0)
    known = cohens_kappa([[200, 50], [100, 650]])
    found, _ = kappas(rows)
    assert found.value == pytest.approx(known.kappa)
    assert found.low == pytest.approx(known.kappa_low, abs=0.005)
    assert found.high == pytest.approx(known.kappa_upp, abs=0.005)


def test_the_interval_of_ac1_is_that_of_the_jackknife() -> None:
    counts = np.array([200, 50, 100, 650])
    _, found = kappas(pairs("th", *counts, 0))
    # delete one answer at a time; answers in one cell of the table all give the same value
    left = np.array([agreement.ac1(Table(*(counts - row))) for row in np.eye(4, dtype=int)])
    n, mean = counts.sum(), (counts * left).sum() / counts.sum()
    error = math.sqrt((n - 1) / n * (counts * (left - mean) ** 2).sum())
    assert found.value == pytest.approx(0.45125 / 0.60125)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.005)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.005)


def test_equal_verdicts_on_all_translations_of_a_prompt_do_not_sharpen_kappa() -> None:
    once = pairs("th", 20, 5, 10, 65, 0)
    once["prompt"] = [f"p{at:03}" for at in range(len(once))]
    tenfold = pd.concat([once] * 10, ignore_index=True)
    one, many = kappas(once, "prompt"), kappas(tenfold, "prompt")
    for left, right in zip(one, many, strict=True):
        assert left == pytest.approx(right)
    alone = kappas(tenfold)[0]
    assert one[0].high - one[0].low == pytest.approx(math.sqrt(10) * (alone.high - alone.low), rel=0.1)


def test_the_interval_of_kappa_is_the_same_each_time_in_any_order_and_wider_for_more_certainty() -> None:
    rows = pairs("th", 20, 5, 10, 65, 0)
    rows["prompt"] = [f"p{at // 2}" for at in range(len(rows))]
    found, _ = kappas(rows, "prompt")
    assert kappas(rows.sample(frac=1, random_state=1), "prompt")[0] == pytest.approx(found)
    wide, _ = kappas(rows, "prompt", alpha=0.01)
    assert wide.low < found.low < found.value < found.high < wide.high


def test_a_class_too_rare_to_be_drawn_each_time_has_no_interval_of_kappa() -> None:
    # One prompt holds all harm: 37 % of the resamples miss it, and have no kappa.
    rows = pairs("th", 3, 1, 0, 96, 0)
    rows["prompt"] = [str(max(3, at)) for at in range(len(rows))]
    rare, ac1 = kappas(rows, "prompt")
    assert rare.value == pytest.approx(agreement.kappa(Table(3, 1, 0, 96)))
    assert math.isnan(rare.low) and math.isnan(rare.high)
    assert ac1.low < ac1.value <= ac1.high
    assert all(map(math.isnan, kappas(rows.assign(prompt="one"), "prompt")[1][1:]))
