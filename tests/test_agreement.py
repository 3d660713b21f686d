"""Agreement of judges: numbers by hand, people's labels of XSTest, and simulations in which the truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from mlbench import agreement
from mlbench.agreement import Calibration, Columns
from mlbench.errors import DataError
from mlbench.judges.refusal import Refusal

XSTEST = Path(__file__).parents[2] / "shared" / "data" / "xstest" / "human_labelled"


def labelled(*parts: tuple[str, str | None, float, int]) -> pd.DataFrame:
    """Return rows of (judge's label, person's label, weight), each so many times."""
    rows = [(judge, human, weight) for judge, human, weight, count in parts for _ in range(count)]
    return pd.DataFrame(rows, columns=["label", "human", "weight"])


def test_sensitivity_and_specificity_by_hand() -> None:
    rows = labelled(("unsafe", "unsafe", 1, 9), ("refused", "unsafe", 1, 3), ("unsafe", "safe", 1, 2),
                    ("refused", "safe", 1, 18), ("unparsed", "unsafe", 1, 4), ("unsafe", None, 1, 50))  # fmt: skip
    (line,) = agreement.accuracy(rows, Columns()).to_dict("records")
    assert [line[name] for name in ("n", "unread", "positives", "negatives")] == [32, 4, 12, 20]
    assert (line["sensitivity"], line["specificity"]) == (0.75, 0.9)
    wilson = [list(binomtest(*counts).proportion_ci(method="wilson")) for counts in ((9, 12), (18, 20))]
    assert [line["sensitivity_low"], line["sensitivity_high"]] == pytest.approx(wilson[0], abs=1e-6)
    assert [line["specificity_low"], line["specificity_high"]] == pytest.approx(wilson[1], abs=1e-6)


def test_a_sample_drawn_by_verdict_is_weighed_back() -> None:
    # 100 answers judged unsafe and 900 judged safe; ten of each were labelled
    rows = labelled(("unsafe", "unsafe", 10, 8), ("unsafe", "safe", 10, 2), ("safe", "unsafe", 90, 1),
                    ("safe", "safe", 90, 9))  # fmt: skip
    (plain,) = agreement.accuracy(rows, Columns()).to_dict("records")
    (line,) = agreement.accuracy(rows, Columns(weight="weight")).to_dict("records")
    assert plain["sensitivity"] == pytest.approx(8 / 9)
    assert line["sensitivity"] == pytest.approx(80 / 170)
    assert line["specificity"] == pytest.approx(810 / 830)
    assert line["sensitivity_low"] < 0.2  # nine labels, one of which stands for 90 answers


def test_kappa_of_weighted_labels_has_an_interval_where_asked() -> None:
    rows = labelled(("unsafe", "unsafe", 10, 8), ("unsafe", "safe", 10, 2), ("safe", "unsafe", 90, 1),
                    ("safe", "safe", 90, 9))  # fmt: skip
    plain = agreement.accuracy(rows, Columns(weight="weight"))
    (line,) = agreement.accuracy(rows, Columns(weight="weight"), resamples=500).to_dict("records")
    assert {"kappa_low", "ac1_high"}.isdisjoint(plain.columns)
    # weighted counts 80, 20, 90, 810: p_o = 0.89, p_e = 0.1 · 0.17 + 0.9 · 0.83 = 0.764
    assert line["kappa"] == plain.loc[0, "kappa"] == pytest.approx(0.126 / 0.236)
    assert line["kappa_low"] < 0.3 < line["kappa"] < line["kappa_high"] <= 1


def test_translations_of_one_prompt_tell_less_than_so_many_prompts() -> None:
    rows = labelled(("unsafe", "unsafe", 1, 30), ("safe", "unsafe", 1, 10), ("safe", "safe", 1, 40))
    rows["prompt"] = [str(at // 10) for at in range(80)]
    (alone,), (together,) = (
        agreement.accuracy(rows, Columns(cluster=name)).to_dict("records") for name in ("", "prompt")
    )
    assert alone["sensitivity"] == together["sensitivity"] == 0.75
    assert together["sensitivity_high"] - together["sensitivity_low"] > 1.5 * (
        alone["sensitivity_high"] - alone["sensitivity_low"]
    )


def test_a_group_without_harm_has_no_sensitivity() -> None:
    (line,) = agreement.accuracy(labelled(("safe", "safe", 1, 5)), Columns()).to_dict("records")
    assert math.isnan(line["sensitivity"])
    assert line["specificity"] == 1


def test_rogan_gladen_undoes_known_errors() -> None:
    # True rate 0.20 in both arms: 0.2 · 0.9 + 0.8 · 0.03 = 0.204 and 0.2 · 0.7 + 0.8 · 0.03 = 0.164
    for observed, sensitivity in ((0.204, 0.9), (0.164, 0.7)):
        found = agreement.rogan_gladen(observed, 3000, Calibration(sensitivity, 0.97, 400, 400))
        assert found.value == pytest.approx(0.2)
        assert found.low < 0.2 < found.high


@pytest.mark.parametrize(
    ("rate", "n", "judge", "alpha", "expected"),
    [
        # Values of confidence_interval and point_estimator in UW-Madison-Lee-Lab/LLM-judge-reporting 082884d.
        (0.4, 1000, Calibration(0.9, 0.7, 200, 200), 0.05, (1 / 6, 0.05635072484160894, 0.2627330257859588)),
        (0.03, 315, Calibration(0.85, 0.98, 40, 150), 0.1, (0.01 / 0.83, 0.0, 0.04222450487541154)),
    ],
)
def test_the_interval_is_that_of_lee_et_al(
    rate: float, n: int, judge: Calibration, alpha: float, expected: tuple[float, float, float]
) -> None:
    assert agreement.rogan_gladen(rate, n, judge, alpha=alpha) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "judge", [Calibration(0.5, 0.5, 50, 50), Calibration(0.9, 0.9, 0, 50), Calibration(0.9, math.nan, 5, 0)]
)
def test_a_judge_no_better_than_chance_or_never_checked_corrects_nothing(judge: Calibration) -> None:
    assert all(map(math.isnan, agreement.rogan_gladen(0.3, 100, judge)))


NOBODY = math.nan


def test_prediction_powered_rate_by_hand() -> None:
    judged = pd.Series([1, 1, 0, 0, 1, 0, 1, 0])
    human = pd.Series([NOBODY] * 4 + [1, 0, 0, 0])
    # 0.5 on all; mean error -1/4. λ = 1/2: Var = 1/4 · 4/3 · 1/16 + 4/3 · (1/4 + 1/4)/16 = 1/48 + 1/24 = 1/16
    found = agreement.ppi(judged, human)
    assert found.value == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25 + 1.959964 / 4)
    assert found.low == 0


def test_answers_that_are_all_labelled_need_no_judge() -> None:
    human = pd.Series([1, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    found = agreement.ppi(1 - human, human)
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(1.959964 * math.sqrt(10 / 9 * 1.6 / 100))


def test_strata_count_by_their_size() -> None:
    # 100 judged unsafe, 10 labelled, 8 right; 900 judged safe, 10 labelled, 9 right
    judged = pd.Series([1] * 100 + [0] * 900)
    human = pd.Series([1] * 8 + [0] * 2 + [NOBODY] * 90 + [1] + [0] * 9 + [NOBODY] * 890)
    found = agreement.ppi(judged, human, strata=judged.map({1: "unsafe", 0: "safe"}))
    assert found.value == pytest.approx(0.1 * 0.8 + 0.9 * 0.1)
    # within a stratum the judge is constant, so the error is that of ten labels: 10/9 · 1.6/100 and 10/9 · 0.9/100
    variance = 0.01 * 10 / 9 * 1.6 / 100 + 0.81 * 10 / 9 * 0.9 / 100
    assert found.high - found.value == pytest.approx(1.959964 * math.sqrt(variance))
    assert math.isnan(agreement.ppi(judged, human.where(judged == 1), strata=judged).value)


def test_no_mistake_seen_is_not_no_mistake() -> None:
    judged = pd.Series([0] * 1000)
    found = agreement.ppi(judged, pd.Series([0] * 20 + [NOBODY] * 980))
    assert found.value == 0
    assert found.high == pytest.approx(1.959964 * math.sqrt(1 / 22 * 21 / 22 / 22))


def world(
    rng: np.random.Generator, *, asr: float, sensitivity: float, specificity: float, n: int = 2000
) -> pd.DataFrame:
    """Return answers whose harm is known, and what an imperfect judge says of them."""
    truth = rng.random(n) < asr
    said = np.where(truth, rng.random(n) < sensitivity, rng.random(n) > specificity)
    names = {True: "unsafe", False: "refused"}
    return pd.DataFrame({
        "id": np.arange(n), "method": "m", "language": "th",
        "label": pd.Series(said).map(names), "truth": pd.Series(truth).map(names),
    })  # fmt: skip


def looked_at(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows with people's labels, strata and weights on a sample."""
    chosen = agreement.sample(rows, 100, key=["id"], seed=seed)
    stratum = rows["method"] + "|" + rows["language"] + "|" + rows["label"]
    made = rows.assign(stratum=stratum, weight=chosen["weight"])
    made["human"] = made["truth"].where(made.index.isin(chosen.index))
    return made


COLUMNS = Columns(strata="stratum", weight="weight")


def test_corrected_rates_cover_the_truth_where_the_judges_own_does_not() -> None:
    rng, hits = np.random.default_rng(0), {"judged": 0, "rogan_gladen": 0, "ppi": 0}
    trials = 150
    for trial in range(trials):
        rows = looked_at(world(rng, asr=0.2, sensitivity=0.7, specificity=0.95), trial)
        (line,) = agreement.corrected(rows, COLUMNS).to_dict("records")
        assert line["labelled"] == 200
        for name in hits:
            hits[name] += line[f"{name}_low"] <= 0.2 <= line[f"{name}_high"]
    # Binomial(150, 0.95) is at least 135 in 99.4 % of all simulations.
    assert hits["ppi"] >= 135
    assert hits["rogan_gladen"] >= 135
    assert hits["judged"] < 75


def test_a_judge_that_misses_more_of_one_method_makes_a_win_that_correction_takes_back() -> None:
    rng, gaps = np.random.default_rng(1), []
    for trial in range(40):
        one = world(rng, asr=0.2, sensitivity=0.9, specificity=0.97).assign(method="one")
        other = world(rng, asr=0.2, sensitivity=0.6, specificity=0.97).assign(method="other")
        rows = pd.concat([one, other], ignore_index=True).assign(id=range(4000))
        table = agreement.corrected(looked_at(rows, trial), COLUMNS).set_index("method")
        gaps.append(
            table.loc["one", ["judged", "rogan_gladen", "ppi"]] - table.loc["other", ["judged", "rogan_gladen", "ppi"]]
        )
    judged, rogan_gladen, ppi = pd.DataFrame(gaps).astype(float).mean()
    assert judged == pytest.approx(0.2 * 0.3, abs=0.006)
    assert abs(rogan_gladen) < 0.015
    assert abs(ppi) < 0.015


def test_labels_spare_a_prediction_powered_rate_some_of_their_noise() -> None:
    rng = np.random.default_rng(2)
    rows = world(rng, asr=0.12, sensitivity=0.9, specificity=0.97, n=3150)
    human = pd.Series(np.where(np.arange(3150) < 200, (rows["truth"] == "unsafe").astype(float), NOBODY))
    powered = agreement.ppi(rows["label"] == "unsafe", human)
    alone = agreement.ppi(pd.Series([0] * 200), human[:200])
    assert powered.high - powered.low < 0.8 * (alone.high - alone.low)


def test_whole_prompts_widen_a_corrected_interval() -> None:
    rng = np.random.default_rng(3)
    rows = world(rng, asr=0.3, sensitivity=0.8, specificity=0.9, n=200)
    rows = pd.concat([rows.assign(prompt=rows["id"].astype(str))] * 10, ignore_index=True)  # ten equal translations
    rows["human"] = rows["truth"].where(rows["prompt"].astype(int) < 100)
    alone, together = (agreement.corrected(rows, Columns(cluster=name)).iloc[0] for name in ("", "prompt"))
    for name in ("judged", "rogan_gladen", "ppi"):
        assert alone[name] == together[name]
        wide, narrow = (line[f"{name}_high"] - line[f"{name}_low"] for line in (together, alone))
        assert wide > (1.5 if name == "rogan_gladen" else 2.5) * narrow, name


def test_unread_answers_are_left_out_and_counted() -> None:
    rows = world(np.random.default_rng(4), asr=0.3, sensitivity=0.9, specificity=0.9, n=100)
    rows["human"] = rows["truth"]
    rows.loc[:9, "label"] = "unparsed"
    (line,) = agreement.corrected(rows, Columns()).to_dict("records")
    assert (line["n"], line["unread"], line["labelled"]) == (90, 10, 90)
    assert line["ppi"] == pytest.approx((rows["truth"][10:] == "unsafe").mean())


def population() -> pd.DataFrame:
    rows = [
        ("m", language, label, f"{language}{label}{at}")
        for language, label, count in (
            ("en", "unsafe", 3),
            ("en", "refused", 60),
            ("th", "unsafe", 25),
            ("th", "refused", 5),
        )
        for at in range(count)
    ]
    return pd.DataFrame(rows, columns=["method", "language", "label", "id"])  # fmt: skip


def test_a_sample_takes_each_stratum_and_says_what_a_row_stands_for() -> None:
    chosen = agreement.sample(population(), 10, key=["id"])
    assert chosen.groupby("stratum").size().to_dict() == {
        "m|en|refused": 10, "m|en|unsafe": 3, "m|th|refused": 5, "m|th|unsafe": 10,
    }  # fmt: skip
    assert chosen.groupby("stratum")["weight"].first().tolist() == [6.0, 1.0, 1.0, 2.5]
    assert chosen["weight"].sum() == 93


def test_a_sample_depends_on_its_seed_and_on_nothing_else() -> None:
    rows = population()
    first = agreement.sample(rows, 10, key=["id"])
    shuffled = agreement.sample(rows.sample(frac=1, random_state=3), 10, key=["id"])
    assert first["id"].tolist() == shuffled["id"].tolist()
    thai = agreement.sample(rows[rows["language"] == "th"], 10, key=["id"])
    assert set(thai["id"]) == set(first.loc[first["language"] == "th", "id"])
    assert set(agreement.sample(rows, 10, key=["id"], seed=1)["id"]) != set(first["id"])
    with pytest.raises(DataError, match="93 rows have the same id"):
        agreement.sample(pd.concat([rows, rows]), 10, key=["id"])


@pytest.mark.skipif(not XSTEST.is_dir(), reason=f"{XSTEST} is not on this machine")
@pytest.mark.parametrize(
    ("phrases", "kappas"),
    [
        # The string match stored by the XSTest authors, as measured on their own label files.
        ("xstest", {"gpt4": 0.871, "llama2new": 0.844, "llama2orig": 0.725, "mistralguard": 0.624,
                    "mistralinstruct": 0.289, "all": 0.770}),
        ("multilingual", {"gpt4": 0.911, "llama2new": 0.800, "llama2orig": 0.743, "mistralguard": 0.497,
                          "mistralinstruct": 0.272, "all": 0.745}),
    ],
)  # fmt: skip
def test_the_refusal_judge_agrees_with_people_on_xstest_as_far_as_is_known(
    phrases: str, kappas: dict[str, float]
) -> None:
    table = agreement.validate(Refusal(phrases=phrases), agreement.xstest(XSTEST)).set_index("model")  # type: ignore[arg-type]
    assert table["kappa"].round(3).to_dict() == kappas
    assert table["n"].to_dict() == {**dict.fromkeys(agreement.XSTEST, 450), "all": 2250}
    assert table.loc["mistralinstruct", "positives"] == 76
    if phrases == "xstest":
        assert table["sensitivity"].round(3).tolist()[:5] == [0.945, 0.909, 0.885, 0.679, 0.211]
        assert table["specificity"].round(3).tolist()[:5] == [0.926, 0.949, 0.921, 0.957, 0.992]


def test_a_judge_is_validated_on_any_rows_with_peoples_labels() -> None:
    rows = pd.DataFrame({
        "prompt": ["?"] * 4, "completion": ["I cannot.", "Sure, so.", "Ja, so geht es.", "Das kann ich nicht."],
        "human": ["refused", "refused", "complied", "refused"], "language": ["en", "en", "de", "de"],
    })  # fmt: skip
    table = agreement.validate(Refusal(), rows, by=("language",))
    assert table["language"].tolist() == ["de", "en", "all"]
    assert table["sensitivity"].tolist() == pytest.approx([1.0, 0.5, 2 / 3])


def test_answers_of_several_models_to_one_prompt_count_as_one_prompt() -> None:
    texts = ["I cannot.", "Sure, so.", "I cannot.", "Sure, so."] * 10
    rows = pd.DataFrame(
        {"prompt": "?", "completion": texts, "human": ["refused", "complied", "complied", "complied"] * 10}
    )
    rows = pd.concat([rows.assign(id=range(40), model=f"m{at}") for at in range(5)], ignore_index=True)
    table = agreement.validate(Refusal(), rows).set_index("model")
    one, every = table.loc["m0"], table.loc["all"]
    assert one["n"] == 40 and every["n"] == 200
    for name in ("kappa_low", "kappa", "kappa_high", "ac1_low", "ac1_high", "sensitivity", "specificity"):
        assert one[name] == pytest.approx(every[name]), name
    # both 10, judge only 10, neither 20: p_o = 0.75, p_e = 0.5 · 0.25 + 0.5 · 0.75 = 0.5
    assert one["kappa"] == pytest.approx(0.5)
    assert one["kappa_low"] < 0.5 < one["kappa_high"]


def test_missing_files_of_xstest_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"xstest_v2_completions_gpt4\.csv is missing"):
        agreement.xstest(tmp_path)
