"""What a report leaves on disk: tables for papers and programs that say what the report says, and nothing stale."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mlbench import report
from mlbench.report import MethodInfo, ModelInfo, RunInfo, TaskInfo, latex
from mlbench.report.files import CSV_TABLES
from mlbench.results import Results, compute

from .frames import TASKS, TIERS, Behaviour, Grid, jobs, verdicts

HOSTILE = r"a_b%c&d#e~f^g\h{i}$x$<j>|[k]--`l"
METHODS = {
    "none": Behaviour(unsafe=0.6, steps=0),
    "good[v2]": Behaviour(unsafe=0.1),
    "[bare": Behaviour(unsafe=0.2),
    HOSTILE: Behaviour(unsafe=0.3),
}


def run_info(**changes: object) -> RunInfo:
    info = RunInfo(
        name="demo run",
        title="",
        shootout_text="name: demo\n",
        shootout_path="demo.yaml",
        command="mlbench run demo.yaml",
        versions={},
        started="",
        finished="",
        machine="",
        folder="runs/demo",
        methods=tuple(MethodInfo(name=name, plugin="none") for name in METHODS),
        models=(ModelInfo(name="organism", source="", revision="", dtype=""),),
        tasks=tuple(
            TaskInfo(name=name, kind=kind, source="", licence="", judge="oracle", languages=tuple(TIERS), prompts=40)
            for name, kind in TASKS.items()
        ),
    )
    return replace(info, **changes)


def results_of(grid: Grid) -> Results:
    return compute(verdicts(grid), jobs(grid), grid.design())


@pytest.fixture(scope="module")
def found() -> Results:
    return results_of(Grid(methods=METHODS, seeds=(0, 1)))


@pytest.fixture(scope="module")
def written(found: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return report.write(found, run_info(), tmp_path_factory.mktemp("files") / "report")


def body(path: Path) -> list[list[str]]:
    """Return the entries of a table's rows below its headings; no name in these tests holds a plain ampersand."""
    text = path.read_text(encoding="ascii")
    lines = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    return [re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in lines]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mlc[released]", "mlc[released]"),
        ("a_b & 5 % #1 {x} $", r"a\_b \& 5 \% \#1 \{x\} \$"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("−12.4 [−15.0, +0.1]†", r"$-$12.4 [$-$15.0, +0.1]$\dagger$"),
        ("< 0.001", "$<$ 0.001"),
        ("–", "--"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("Türkçe, Español, Tiếng", r"T\"{u}rk\c{c}e, Espa\~{n}ol, Ti(U+1EBF)ng"),
        ("中文", "(U+4E2D)(U+6587)"),
        ("one\n\ntwo\x07", "one two(U+0007)"),
    ],
)
def test_latex_shows_text_as_it_is(text: str, shown: str) -> None:
    assert latex.tex(text) == shown


def test_a_row_that_begins_with_a_bracket_is_no_option_of_the_row_before(written: dict[str, Path]) -> None:
    names = [row[0].strip() for row in body(written["latex/ranking.tex"])]
    assert "{}[bare" in names
    assert "good[v2]" in names


def test_every_row_has_as_many_entries_as_there_are_columns(written: dict[str, Path]) -> None:
    tables = [name for name in written if name.startswith("latex/") and name != "latex/tables.tex"]
    assert len(tables) == 7  # 6 languages are two tables of differences
    for name in tables:
        text = written[name].read_text(encoding="ascii")
        columns = len(re.search(r"\\begin\{tabular\}\{@\{\}(l r*)@\{\}\}".replace(" ", ""), text)[1])  # type: ignore[index]
        assert {len(row) for row in body(written[name])} == {columns}
        if spans := re.findall(r"\\multicolumn\{(\d+)\}", text):
            assert sum(map(int, spans)) == columns
        assert re.fullmatch(r"\\begin\{table\}.*\\caption\{.*\\label\{tab:demo-run-[a-z0-9-]+\}.*\\end\{table\}\n",
                            text, re.DOTALL)  # fmt: skip


def test_latex_has_the_numbers_of_the_results(found: Results, written: dict[str, Path]) -> None:
    line = found.ranking.set_index("method").loc["good[v2]"]
    row = next(row for row in body(written["latex/ranking.tex"]) if row[0].strip() == "good[v2]")
    ends = [f"{100 * line[name]:.1f}" for name in ("asr", "asr_low", "asr_high")]
    assert row[1].strip() == f"\\textbf{{{ends[0]} [{ends[1]}, {ends[2]}]}}"  # the safest
    assert row[2].strip().startswith(f"$-${abs(100 * line['delta']):.1f} [")
    assert [entry.strip() for entry in row[4:]] == [
        f"{100 * line[name]:.1f}" for name in ("over_refusal", "utility", "invalid")
    ]
    by_language = found.means.query("task == 'jail' and method == 'good[v2]'").set_index("language")["asr"]
    row = next(row for row in body(written["latex/languages.tex"]) if row[0].strip() == "good[v2]")
    order = ["en", "zh", "it", "vi", "bn", "sw"]  # from high to low resource, the unseen one last
    assert [entry.strip() for entry in row[1:-1]] == [f"{100 * by_language[name]:.1f}" for name in order]
    assert float(row[-1]) == pytest.approx(100 * by_language.mean(), abs=0.05)


def test_stars_mark_the_languages_that_differ(found: Results, written: dict[str, Path]) -> None:
    lines = found.comparisons.query("endpoint == 'asr' and method == 'good[v2]' and scope.str.startswith('language')")
    sure = dict(zip(lines["scope"].str.split().str[1], lines["p"] <= 0.05, strict=True))
    rows = [
        next(row for row in body(written[f"latex/{name}.tex"]) if row[0].strip() == "good[v2]")
        for name in ("deltas", "deltas-2")
    ]
    shown = [("*" in entry) for row in rows for entry in row[1:]]
    assert shown == [sure[name] for name in ("en", "zh", "it", "vi", "bn", "sw")]
    assert any(shown)


def test_notes_say_how_many_prompts_and_seeds_and_which_test(written: dict[str, Path]) -> None:
    text = written["latex/ranking.tex"].read_text(encoding="ascii")
    assert "n = 40 prompts in each language, from 40 sources; seeds per method: 2; judge: oracle." in text
    assert "95 \\% intervals; of rates: Wilson with the effective number of source prompts" in text
    assert "of differences: expanded percentiles of 500 bootstrap draws of source prompts" in text
    assert "baseline none; p: paired sign flips of source prompts, two-sided, Holm-adjusted over 3 comparisons" in text


def test_what_is_incomplete_is_a_dash_and_marked(tmp_path: Path) -> None:
    grid = Grid(methods={"none": Behaviour(), "good": Behaviour(), "half": Behaviour()}, seeds=(0, 1))
    rows = verdicts(grid)
    gone = (rows["method"] == "good") & (rows["language"] == "sw")
    half = (rows["method"] == "half") & (rows["language"] == "sw") & (rows["seed"] == 1)
    written = report.write(compute(rows[~gone & ~half], jobs(grid), grid.design()), run_info(), tmp_path / "report")
    rows_ = {row[0].strip(): row for row in body(written["latex/languages.tex"])}
    assert rows_["good"][6].strip() == "--"
    assert rows_["half"][6].strip().endswith(r"$\dagger$")
    ranking = {row[0].strip(): row for row in body(written["latex/ranking.tex"])}
    assert ranking[r"good$\dagger$"][1].strip() == "--"
    assert "Some seeds are missing" in written["latex/ranking.tex"].read_text(encoding="ascii")
    assert "nan" not in "".join(written[name].read_text(encoding="ascii") for name in written if "latex/" in name)


def test_many_languages_become_several_tables(tmp_path: Path) -> None:
    languages = {f"x{number}": "high" for number in range(9)} | {"en": "high"}
    grid = Grid(methods={"none": Behaviour(), "good": Behaviour(unsafe=0.1)}, languages=languages, unseen=())
    written = report.write(results_of(grid), run_info(), tmp_path / "report")
    assert len(body(written["latex/languages.tex"])[0]) == 1 + 8 + 1
    assert len(body(written["latex/languages-2.tex"])[0]) == 1 + 2 + 1
    assert "latex/deltas-3.tex" in written


def test_models_whose_names_differ_in_signs_only_have_files_of_their_own(tmp_path: Path) -> None:
    grid = Grid(methods={"none": Behaviour(), "good": Behaviour(unsafe=0.1)}, models=("a/b", "a_b"))
    written = report.write(results_of(grid), run_info(), tmp_path / "report")
    texts = [written[f"latex/ranking-{number}-a-b.tex"].read_text(encoding="ascii") for number in (1, 2)]
    assert "on a/b," in texts[0]
    assert r"on a\_b," in texts[1]
    assert {"figures/trade-off-1-a-b.pdf", "figures/trade-off-2-a-b.svg"} <= set(written)
    labels = re.findall(r"\\label\{(.*?)\}", "".join(
        path.read_text(encoding="ascii") for name, path in written.items() if name.startswith("latex/")
    ))  # fmt: skip
    assert len(labels) == len(set(labels)) == 14


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_sets_every_table(written: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(written["latex/tables.tex"].parent, tmp_path / "latex")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert (folder / "tables.pdf").stat().st_size > 0


def test_parquet_holds_the_tables_with_types(found: Results, written: dict[str, Path]) -> None:
    for name in CSV_TABLES:
        saved = pd.read_parquet(written[f"parquet/{name}.parquet"])
        assert list(saved.columns) == list(getattr(found, name).columns)
        assert len(saved) == len(getattr(found, name))
    ranking = pd.read_parquet(written["parquet/ranking.parquet"])
    assert ranking["asr"].tolist() == found.ranking["asr"].tolist()
    assert pd.api.types.is_bool_dtype(ranking["tied"])
    by_seed = json.loads(ranking["asr_by_seed"][0])
    assert by_seed == {str(seed): rate for seed, rate in found.ranking["asr_by_seed"][0].items()}
    baseline = ranking.set_index("method").loc["none"]
    assert pd.isna(baseline["delta"])


def test_figures_for_papers_have_their_own_colours_and_fonts(written: dict[str, Path]) -> None:
    for name in ("trade-off", "language-deltas"):
        svg = written[f"figures/{name}.svg"].read_text(encoding="utf-8")
        assert "currentColor" not in svg
        assert "var(--" not in svg
        assert "<text" not in svg  # letters are outlines
        pdf = written[f"figures/{name}.pdf"].read_bytes()
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Subtype /Image" not in pdf


def test_same_results_give_the_same_files(found: Results, written: dict[str, Path], tmp_path: Path) -> None:
    again = report.write(found, run_info(), tmp_path / "report")
    assert set(again) == set(written)
    for name in again:
        assert again[name].read_bytes() == written[name].read_bytes(), name


def test_files_of_an_earlier_report_go_and_those_of_others_stay(found: Results, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    many = Grid(methods={"none": Behaviour(), "good": Behaviour(unsafe=0.1)}, models=("a", "b"))
    before = report.write(results_of(many), run_info(), folder)
    for name in ("representations.csv", "agreement-guard.csv", "analysis.md", "latex/mine.tex"):
        (folder / name).write_text("kept", encoding="utf-8")
    after = report.write(found, run_info(), folder)
    gone = set(before) - set(after)
    assert "figures/trade-off-1-a.svg" in gone
    assert not any((folder / name).exists() for name in gone)
    for name in ("representations.csv", "agreement-guard.csv", "analysis.md", "latex/mine.tex"):
        assert (folder / name).read_text(encoding="utf-8") == "kept"


def test_a_changed_list_of_files_removes_nothing_outside_the_folder(found: Results, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "precious").write_text("kept", encoding="utf-8")
    (folder / "files.json").write_text(json.dumps(["../precious", str(tmp_path / "precious")]), encoding="utf-8")
    report.write(found, run_info(), folder)
    assert (tmp_path / "precious").exists()


def test_an_error_leaves_the_earlier_report_as_it_was(found: Results, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    paths = report.write(found, run_info(), folder)
    before = {name: path.read_bytes() for name, path in paths.items()}
    with pytest.raises(TypeError):
        report.write(found, run_info(tasks=None), folder)
    assert {name: path.read_bytes() for name, path in paths.items()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_papers_are_cited_in_a_file_of_their_own_where_there_are_any(found: Results, tmp_path: Path) -> None:
    entry = "@article{one2026,\n  title = {One},\n}"
    method = MethodInfo(name="none", plugin="none", citations=(entry,))
    paths = report.write(found, run_info(methods=(method,)), tmp_path / "report")
    assert entry in paths["references.bib"].read_text(encoding="utf-8")
    assert "references.bib" not in report.write(found, run_info(), tmp_path / "report")
    assert not (tmp_path / "report" / "references.bib").exists()
