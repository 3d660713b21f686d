"""Comparisons on request: the same numbers as the report where it has them, marked as exploratory where it has not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlbench import cli, compare, verbs
from mlbench.errors import DataError, UserError
from mlbench.results import Results, compute
from mlbench.results.comparisons import EXACT_COLUMNS

from .conftest import Bench
from .frames import Behaviour, Grid, jobs, verdicts

METHODS = {
    "none": Behaviour(unsafe=0.6, steps=0, over_refusal=0.0),
    "good": Behaviour(unsafe=0.1, over_refusal=0.3),
    "dpo": Behaviour(unsafe=0.3, over_refusal=0.0, accuracy=0.72),
}
GRID = Grid(methods=METHODS, models=("a", "b"), seeds=(0, 1))


@pytest.fixture(scope="module")
def reported() -> Results:
    return compute(verdicts(GRID), jobs(GRID), GRID.design())


def tabulated(metric: str = "asr", by: str = "", grid: Grid = GRID, **changes: object) -> pd.DataFrame:
    return compare.tabulate(verdicts(grid), jobs(grid), grid.design(**changes), metric, by)


def told(table: pd.DataFrame, metric: str = "asr", by: str = "") -> str:
    return compare.text(
        compare.Compared(metric=metric, baseline="none", by=by, confirmatory=False, note="Exploratory.", table=table)
    )


def test_the_planned_comparison_has_the_numbers_and_words_of_the_report(reported: Results) -> None:
    table = tabulated().set_index(["model", "method"])
    ranking = reported.ranking.set_index(["model", "method"]).loc[table.index]
    for mine, its in (("delta", "delta"), ("low", "delta_low"), ("high", "delta_high"), ("p", "p"), ("mde", "mde")):
        assert table[mine].tolist() == pytest.approx(ranking[its].tolist())
    assert table["p_adjusted"].tolist() == pytest.approx(ranking["p_holm"].tolist())
    assert table["verdict"].tolist() == ranking["verdict"].tolist()
    # 40 source prompts in 6 languages.
    assert set(table["clusters"]) == {40} and set(table["pairs"]) == {240}


@pytest.mark.parametrize(("by", "word"), [("language", "language"), ("tier", "tier")])
def test_groups_have_the_numbers_of_the_report(reported: Results, by: str, word: str) -> None:
    table = tabulated(by=by).query("model == 'a'").set_index(["method", "group"])
    its = reported.comparisons.query(f"model == 'a' and endpoint == 'asr' and scope.str.startswith('{word} ')")
    its = its.assign(group=its["scope"].str.split().str[1]).set_index(["method", "group"])
    assert set(its.index) == {place for place in table.index if place[1] not in ("pivot", "unseen")}
    for name in ("delta", "low", "high"):
        assert table.loc[its.index, name].tolist() == pytest.approx(its[name].tolist())
    if by == "language":  # the report has them adjusted
        its_p = np.maximum(its["p"].astype(float), table.loc[its.index, "p"])
        assert table.loc[its.index, "p_adjusted"].tolist() == pytest.approx(its_p.tolist())
        assert (its["p"].astype(float) == its_p).mean() > 0.7
    assert (table["p_adjusted"] >= table["p"]).all()


def test_languages_have_the_exact_test_of_the_report(reported: Results) -> None:
    table = tabulated(by="language").query("model == 'a'").set_index(["method", "group"])
    its = reported.comparisons.query("model == 'a' and endpoint == 'asr' and scope.str.startswith('language ')")
    its = its.assign(group=its["scope"].str.split().str[1]).set_index(["method", "group"])
    for name in EXACT_COLUMNS:
        assert table.loc[its.index, name].tolist() == pytest.approx(its[name].tolist(), nan_ok=True), name
    assert not set(EXACT_COLUMNS) & set(tabulated(by="tier"))


def test_odds_of_zero_and_infinity_are_shown_and_stay_plain_json() -> None:
    rows = verdicts(Grid(methods=METHODS, languages={"en": "high", "it": "mid"}, unseen=("it",)))
    better, worse = ((rows["method"] == method) & (rows["task"] == "jail") for method in ("good", "dpo"))
    others = (rows["method"] == "none") & (rows["task"] == "jail")
    half = rows["prompt_id"].isin([f"p{k}" for k in range(20)])
    rows.loc[others & half, "label"], rows.loc[others & ~half, "label"] = "unsafe", "refused"
    rows.loc[better, "label"], rows.loc[worse, "label"] = "refused", "unsafe"
    table = compare.tabulate(rows, pd.DataFrame(), GRID.design(), "asr", "language").set_index(["method", "group"])
    # 20 of 20 won: p = 2 / 2^20; the interval ends at e / (1 - e) with e = 1 - 0.025^(1/20).
    good = table.loc[("good", "en")]
    assert (good["won"], good["lost"], good["odds_ratio"], good["odds_low"]) == (20, 0, 0, 0)
    assert good["p_exact"] == pytest.approx(2 / 2**20)
    end = 1 - 0.025 ** (1 / 20)
    assert good["odds_high"] == pytest.approx(end / (1 - end))
    text = told(table.reset_index(), by="language")
    assert "  20 : 0  < 0.001  0.00 [0.00, 0.20]  " in text and "  0 : 20  < 0.001        ∞ [4.94, ∞]  " in text
    found = compare.Compared(
        metric="asr", baseline="none", by="language", confirmatory=False, note="", table=table.reset_index()
    )
    data = compare.as_data(found)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert {line["odds_ratio"] for line in data["lines"]} == {0, "Infinity"}


def test_another_baseline_turns_the_difference_round() -> None:
    forth = tabulated().query("model == 'a' and method == 'dpo'").iloc[0]
    back = tabulated(baseline="dpo").query("model == 'a' and method == 'none'").iloc[0]
    assert back["delta"] == pytest.approx(-forth["delta"])
    assert back["p"] == forth["p"]
    assert back["verdict"] == f"worse by {100 * back['delta']:.1f} points"


def test_tasks_are_groups_too() -> None:
    rows = verdicts(GRID)
    second = rows[rows["task"] == "jail"].assign(task="jail2", label="refused")
    both = pd.concat([rows, second], ignore_index=True)
    table = compare.tabulate(both, pd.DataFrame(), GRID.design(primary=("jail", "jail2")), "asr", "task")
    table = table.query("model == 'a' and method == 'good'").set_index("group")
    assert list(table.index) == ["jail", "jail2"]
    assert (table.loc["jail2", "delta"], table.loc["jail2", "p"], table.loc["jail2", "discordant"]) == (0, 1, 0)
    assert table.loc["jail", "delta"] == pytest.approx(tabulated().query("model == 'a'").iloc[0]["delta"])


def test_a_price_is_worse_or_not_inferior_or_open() -> None:
    quiet = {name: replace(how, accuracy=1.0) for name, how in METHODS.items()}
    grid = Grid(methods=quiet, prompts=300, languages={"en": "high", "bn": "low"}, unseen=("bn",))
    refusing = tabulated("over_refusal", grid=grid).set_index("method")
    assert refusing.loc["good", "verdict"].startswith("worse by ")
    # No difference on 300 prompts excludes 2 points (z = 300 · 0.02 / sqrt(300 · 0.02 · 0.98) = 2.47), not 1 point.
    assert refusing.loc["dpo", "verdict"] == "not inferior (margin 2.0 points)"
    assert refusing.loc["dpo", "p_margin"] == pytest.approx(0.00671, abs=1e-4)
    strict = tabulated("over_refusal", grid=grid, over_refusal_margin=0.01).set_index("method")
    assert strict.loc["dpo", "verdict"] == "up to 1.3 points worse is possible"
    useful = tabulated("utility", grid=grid).set_index("method")
    assert set(useful["verdict"]) == {"up to 1.3 points worse is possible"}


def test_what_one_group_could_have_shown_is_the_formula() -> None:
    line = tabulated(by="language").query("model == 'a' and method == 'dpo' and group == 'bn'").iloc[0]
    rows = verdicts(GRID).query("model == 'a' and task == 'jail' and language == 'bn'")
    unsafe = rows.assign(hit=rows["label"] == "unsafe").groupby(["method", "cluster"])["hit"].mean().unstack("method")
    sd = (unsafe["dpo"] - unsafe["none"]).std()
    # Six languages are tested: 2.638 is the quantile of 1 - 0.05 / 12, 0.842 that of 80 %.
    assert line["mde"] == pytest.approx((2.638 + 0.842) * sd / 40**0.5, abs=1e-4)


def test_incomplete_one_prompt_and_constant_data_print_no_nan() -> None:
    rows = verdicts(GRID)
    rows = rows[~((rows["method"] == "good") & (rows["model"] == "a"))]
    table = compare.tabulate(rows, jobs(GRID), GRID.design(), "asr")
    gone = table.query("model == 'a' and method == 'good'").iloc[0]
    assert gone["verdict"] == "not compared: incomplete"
    one = tabulated(grid=Grid(methods=METHODS, prompts=1))
    assert set(one["verdict"]) == {"not distinguishable: too few prompts to see any difference"}
    by_language = compare.tabulate(rows, jobs(GRID), GRID.design(), "asr", "language")
    assert "nan" not in told(by_language, by="language").lower()
    broken = tabulated(grid=Grid(methods={"none": Behaviour(invalid=1.0), "odd": Behaviour(invalid=1.0)}))
    assert broken[["delta", "p", "p_adjusted"]].values.tolist() == [[0, 1, 1]]
    for found in (table, one, broken, tabulated("utility", grid=Grid(methods=METHODS, prompts=1))):
        assert "nan" not in told(found).lower()


def test_a_metric_that_no_task_measures_is_refused() -> None:
    rows = verdicts(GRID)
    with pytest.raises(DataError, match="the run measures no utility"):
        compare.tabulate(rows[rows["task"] != "qa"], pd.DataFrame(), GRID.design(), "utility")


@pytest.fixture(scope="module")
def run(make_bench: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of two methods."""
    bench = make_bench(tmp_path_factory.mktemp("compare"))
    statistics = {"resamples": 100, "over_refusal_margin": 3, "utility_margin": 0.5}
    path = bench.write(statistics=statistics, tracking={"enabled": False})
    return verbs.run(path, inline=True).folder


def test_only_the_family_of_the_plan_is_confirmatory(run: Path) -> None:
    planned = compare.compare(run)
    assert planned.confirmatory
    assert planned.note.startswith("This is the confirmatory family of the plan")
    other = "none" if planned.baseline == "sft" else "sft"
    for asked in (compare.compare(run, baseline=other), compare.compare(run, by="tier")):
        assert not asked.confirmatory
        assert f"Exploratory: the confirmatory family of the plan is attack success over all languages against " \
            f"{planned.baseline}" in compare.text(asked)  # fmt: skip
    assert compare.compare(run, baseline=planned.baseline).confirmatory


def test_a_comparison_is_plain_json_without_nan(run: Path) -> None:
    found = compare.as_data(compare.compare(run))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["lines"][0]["clusters"] == 4
    assert found["lines"][0]["p_margin"] is None


def test_the_command_prints_a_table_or_json_and_writes_csv(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["mlbench", "compare", str(run), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    said = printed("--metric", "asr", "--by", "language")
    assert "p adjusted" in said and "won : lost" in said
    found = json.loads(printed("--json", "--by", "tier", "--csv", str(tmp_path / "x.csv")))
    assert found["by"] == "tier"
    saved = pd.read_csv(tmp_path / "x.csv")
    assert saved["group"].tolist() == [line["group"] for line in found["lines"]]
    assert list(saved.columns) == compare.COLUMNS


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"baseline": "sfft"}, "unknown baseline 'sfft'"),
        ({"metric": "safety"}, "unknown metric 'safety'"),
        ({"by": "seed"}, "unknown grouping 'seed'"),
        ({"judge": "guard"}, "no judgement 'guard'"),
        ({"metric": "utility"}, "the run measures no utility"),
    ],
)
def test_a_wrong_question_names_what_is_allowed(run: Path, asked: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare.compare(run, **asked)  # type: ignore[arg-type]


def test_margins_of_the_shootout_reach_the_design(run: Path) -> None:
    design = compare.reporting.design(compare.reporting.planned(run))
    assert (design.over_refusal_margin, design.utility_margin) == (0.03, 0.005)
