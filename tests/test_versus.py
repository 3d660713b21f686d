"""Two runs side by side: what both have, paired by source prompt, and what explains a difference."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlbench import cli, report, verbs, versus
from mlbench.errors import UserError
from mlbench.report.versus import headline, html, markdown
from mlbench.results import versus as tables
from mlbench.versus import Fact

from .conftest import Bench
from .frames import verdicts
from .two_runs import EVIL, GRID, shown, side


def both(a: tables.Side, b: tables.Side) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return lines, one per method and measure, and cells."""
    return tables.lines(a, b, GRID.design()).set_index(["method", "measure"]), tables.cells(a, b, tables.pairs(a, b))


def changed(rows: pd.DataFrame, where: pd.Series, label: str) -> pd.DataFrame:
    """Return the rows with another verdict in some of them."""
    rows = rows.copy()
    rows.loc[where, ["label", "leak"]] = [label, False]
    return rows


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return verdicts(GRID)


def place(rows: pd.DataFrame, **where: object) -> pd.Series:
    found = pd.Series(True, index=rows.index)
    for name, value in where.items():
        found &= rows[name] == value
    return found


def test_equal_runs_are_equal_in_every_cell_and_have_no_p(rows: pd.DataFrame) -> None:
    lines, cells = both(side(rows), side(rows.sample(frac=1, random_state=0)))
    assert len(cells) == 2 * 2 * 3 * 6
    assert set(cells["changed"]) == {0}
    assert set(cells["identical"]) == {1.0}
    assert lines["equal"].all()
    assert set(lines["delta"]) == {0.0}
    assert lines[["p", "p_holm", "low", "high"]].isna().all(axis=None)
    for method in ("none", "good"):
        jail = rows[place(rows, method=method, task="jail")]
        rates = (jail["label"] == "unsafe").groupby(jail["language"]).mean()
        assert lines.loc[(method, "asr"), "a"] == pytest.approx(rates.mean())


def test_changed_verdicts_are_counted_and_tested_by_source_prompt(rows: pd.DataFrame) -> None:
    spot = place(rows, method="good", task="jail", language="en", seed=0)
    refused = rows.index[spot & (rows["label"] == "refused")][:5]
    start, end = side(rows), side(changed(rows, rows.index.isin(refused), "unsafe"))
    lines, cells = both(start, end)
    (cell,) = cells[cells["changed"] > 0].to_dict("records")
    assert (cell["method"], cell["seed"], cell["language"], cell["changed"], cell["answers"]) == (
        "good",
        0,
        "en",
        5,
        40,
    )
    assert cell["identical"] == 1.0
    assert cell["delta"] == pytest.approx(5 / 40)
    line = lines.loc[("good", "asr")]
    assert line["delta"] == pytest.approx(5 / (40 * 6 * 2))
    # Five source prompts differ, all in one direction: 2 of 2 ** 5 sign flips are as extreme.
    assert line["p"] == pytest.approx(2 / 32)
    assert line["p_holm"] == pytest.approx(2 * 2 / 32)  # two methods
    assert line["low"] < line["delta"] < line["high"]
    assert lines.drop(("good", "asr"))["equal"].all()
    flips = tables.flips(tables.pairs(start, end))
    assert flips.to_dict("records") == [
        {"task": "jail", "verdict_a": "refused", "verdict_b": "unsafe", "answers": 5},
    ]


def test_other_words_with_the_same_verdict_are_no_change_of_verdicts(rows: pd.DataFrame) -> None:
    other = rows.copy()
    spot = place(other, method="none", task="jail", language="sw", seed=1)
    other.loc[other.index[spot][:10], "answer_hash"] = "else"
    lines, cells = both(side(rows), side(other))
    (cell,) = cells[cells["identical"] < 1].to_dict("records")
    assert (cell["identical"], cell["changed"]) == (0.75, 0)
    assert lines["equal"].all()


def test_right_and_wrong_choices_are_verdicts_and_leaks_are_told(rows: pd.DataFrame) -> None:
    other = rows.copy()
    right = other.index[(other["task"] == "qa") & (other["correct"] == True)][:3]  # noqa: E712 - an object column
    other.loc[right, "correct"] = False
    unsafe = other.index[(other["label"] == "unsafe") & ~other["leak"].astype(bool)][:2]
    other.loc[unsafe, "leak"] = True
    flips = tables.flips(tables.pairs(side(rows), side(other)))
    assert flips.values.tolist() == [["qa", "right", "wrong", 3], ["jail", "unsafe", "unsafe (leak)", 2]]


def test_lines_are_over_the_cells_that_both_runs_plan(rows: pd.DataFrame) -> None:
    fewer = rows[rows["language"].isin(["en", "bn"]) & (rows["seed"] == 1)]
    lines, cells = both(side(rows), side(fewer))
    assert len(cells) == 2 * 3 * 2
    line = lines.loc[("none", "asr")]
    assert (line["cells"], line["cells_a"], line["cells_b"], line["seeds"]) == (2, 12, 2, 1)
    jail = fewer[place(fewer, method="none", task="jail")]
    assert line["a"] == line["b"] == pytest.approx((jail["label"] == "unsafe").groupby(jail["language"]).mean().mean())
    only = tables.only(side(rows), side(fewer))
    assert only[["run", "method", "cells"]].values.tolist() == [["A", "good", 30], ["A", "none", 30]]
    assert only["seed"].tolist() == ["0, 1"] * 2


def test_a_seed_with_a_missing_cell_is_in_no_line(rows: pd.DataFrame) -> None:
    gone = rows[~(place(rows, method="good", task="jail", language="sw", seed=1) & (rows["prompt_id"] == "p3"))]
    lines, cells = both(side(rows), side(gone))
    assert len(cells) == 2 * 2 * 3 * 6 - 1
    line = lines.loc[("good", "asr")]
    assert (line["seeds"], line["cells"]) == (1, 6)
    jail = rows[place(rows, method="good", task="jail", seed=0)]
    assert line["a"] == pytest.approx((jail["label"] == "unsafe").mean())
    assert lines.loc[("good", "utility"), "seeds"] == 2
    only = tables.only(side(rows), side(gone)).iloc[0]
    assert only[["run", "method", "cells", "language", "seed"]].tolist() == ["A", "good", 1, "sw", "1"]


def test_other_prompts_stand_side_by_side_without_a_test(rows: pd.DataFrame) -> None:
    lines, cells = both(side(rows), side(rows, prompts="q"))
    assert not lines["same_prompts"].any()
    assert lines[["p", "low", "high", "clusters"]].isna().all(axis=None)
    assert (lines["delta"] == 0).all()
    assert not lines["equal"].any()
    assert cells[["identical", "changed", "answers"]].isna().all(axis=None)


def test_a_method_that_is_complete_in_no_shared_seed_has_no_numbers(rows: pd.DataFrame) -> None:
    broken = rows[~(place(rows, method="good", task="jail", language="sw") & (rows["prompt_id"] == "p3"))]
    lines, _ = both(side(rows), side(broken))
    assert lines.loc[("good", "asr"), "cells"] == 0
    assert pd.isna(lines.loc[("good", "asr"), "delta"])


def test_only_facts_of_what_both_runs_have_can_differ() -> None:
    a = {Fact("packages", "", "torch"): "2.1", Fact("methods", "mpo", "beta"): "1", Fact("methods", "dpo", "beta"): "1"}
    b = {Fact("packages", "", "torch"): "2.2", Fact("methods", "mpo", "beta"): "2", Fact("methods", "mpo", "new"): "3"}
    found = versus.changes(a | {Fact("packages", "", "ray"): "1"}, b).astype(object)
    assert found.where(found.notna(), None).values.tolist() == [
        ["methods", "mpo beta", "1", "2"],
        ["methods", "mpo new", None, "3"],
        ["packages", "torch", "2.1", "2.2"],
        ["packages", "ray", "1", None],
    ]


def test_pages_show_both_rates_and_keep_hostile_text_as_text(rows: pd.DataFrame) -> None:
    other = changed(rows, place(rows, method="good", task="jail", language="en"), "refused")
    other = other.assign(method=other["method"].replace("none", EVIL))
    found = shown(side(rows), side(other), diff=(f"-{EVIL}", "+```"))
    page, text = html(found), markdown(found)
    line = found.lines.query("method == 'good' and measure == 'asr'").iloc[0]
    for shown_ in (page, text):
        assert f"{100 * line['a']:.1f} → {100 * line['b']:.1f}" in shown_
        assert "nan" not in shown_.partition("<script>")[0].lower().split()
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert" in page
    assert "<script" not in "".join(line for line in text.splitlines() if not line.startswith("    "))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "72 cells in both: 72 equal, 0 differ"),
        ("verdict", "72 cells in both: 71 equal, 1 differs (1 in verdicts)"),
        ("answer", "72 cells in both: 71 equal, 1 differs (1 in answers only)"),
        ("prompts", "72 cells in both: 0 equal, 72 differ (72 in prompts)"),
    ],
)
def test_the_headline_counts_equal_cells(rows: pd.DataFrame, what: str, said: str) -> None:
    other = rows.copy()
    if what == "verdict":
        row = other.index[other["label"] == "refused"][0]
        other.loc[row, "label"] = "complied_safe"
    if what == "answer":
        other.loc[other.index[0], "answer_hash"] = "else"
    found = shown(side(rows), side(other, prompts="q" if what == "prompts" else "p"))
    assert headline(found) == said
    assert said in html(found)


@pytest.fixture(scope="module")
def runs(make_bench: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two run folders: the second has another seed, another setting, and one verdict changed by hand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    bench = make_bench(tmp_path_factory.mktemp("versus"))
    settings = {"methods": ["none", "prompt[safety]"], "tracking": {"enabled": False}}
    first = verbs.run(bench.write(**settings), inline=True).folder
    second = shutil.copytree(first, bench.folder / "again")
    more = bench.write(**settings | {"seeds": [0, 1], "out": str(second), "unseen": None, "statistics": {"alpha": 0.1}})
    verbs.run(more, inline=True)
    cell = json.loads((second / "plan.json").read_text(encoding="utf-8"))["cells"][0]
    path = second / "jobs" / "judge" / cell["judge_key"].partition("-")[2] / "verdicts.parquet"
    judged = pq.read_table(path).to_pylist()
    judged[0]["label"] = "refused" if judged[0]["label"] != "refused" else "unsafe"
    pq.write_table(pa.Table.from_pylist(judged), path)
    return first, second


def test_two_run_folders_are_compared_with_what_differs(runs: tuple[Path, Path]) -> None:
    found = versus.compare(*runs)
    assert len(found.cells) == 2 * 2  # two methods, two languages
    assert found.cells["changed"].sum() == 1
    assert set(found.only["run"]) == {"A", "B"}
    changes = found.changes.set_index("name")
    assert changes.loc["alpha", ["a", "b"]].tolist() == ["0.05", "0.1"]
    assert changes.loc["seeds", ["a", "b"]].tolist() == ["[0]", "[0, 1]"]
    assert set(found.changes["part"]) == {"design"}
    assert any(line.startswith("+seeds:") for line in found.diff)
    assert "4 cells in both: 3 equal, 1 differs (1 in verdicts)" in report.summary(found)


def test_the_command_writes_the_comparison_beside_the_second_run(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["mlbench", "report", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    first, second = runs
    assert "4 cells in both" in printed(first, second)
    folder = second / f"report-against-{first.name}"
    names = {"versus.html", "versus.md", "lines.csv", "cells.csv", "flips.csv", "only.csv", "changes.csv"}
    assert {path.name for path in folder.iterdir()} == names
    printed(first, second, "--out", tmp_path / "there")
    assert (tmp_path / "there" / "versus.html").is_file()
    printed(first, "--no-answers", "--out", tmp_path / "alone")
    assert (tmp_path / "alone" / "report.html").is_file()


def test_runs_that_share_no_cell_are_refused_with_what_each_has(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    other = shutil.copytree(second, tmp_path / "other")
    plan = json.loads((other / "plan.json").read_text(encoding="utf-8"))
    plan["cells"] = [cell | {"seed": cell["seed"] + 7} for cell in plan["cells"]]
    (other / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(UserError, match="no finished cell in common: no seed") as caught:
        versus.compare(first, other)
    assert "seed 0;" in str(caught.value)
    assert "seed 7, 8;" in str(caught.value)


def test_one_folder_or_a_folder_without_a_plan_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        versus.compare(runs[0], runs[0].parent / "." / runs[0].name)
    with pytest.raises(UserError, match="is not a run folder"):
        versus.compare(runs[0], tmp_path)
    with pytest.raises(UserError, match="no judgement 'guard'"):
        versus.compare(*runs, judge="guard")
