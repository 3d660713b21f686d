"""A second judge over stored answers, and people's labels: nothing is generated again, nothing is mixed up."""

from pathlib import Path

import pandas as pd
import pytest

from mlbench import labelling, rejudge, reporting, verbs
from mlbench.errors import DataError, UserError
from mlbench.results import frames
from mlbench.store import Store
from tests.conftest import Bench

JUDGE = '''
"""A judge that calls answers to prompts with an even number safe, and the others unsafe."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Verdict


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Even:
    kinder: bool = False

    def grade(self, answers):
        return [Verdict(label="complied_safe" if self.kinder or int(answer.prompt.id[1:]) % 2 == 0 else "unsafe")
                for answer in answers]

    def provenance(self):
        return {"model": "even"}

    def costs(self):
        return {"judge_requests": 4, "judge_price": 0.25}


plugin = Even
'''


@pytest.fixture
def run(bench: Bench) -> Path:
    """Return the folder of a finished run, with a second judge installed as a file."""
    (bench.folder / "even.py").write_text(JUDGE, encoding="utf-8")
    plugins = bench.plugins(f"judge:{bench.folder / 'even.py'}")
    return verbs.run(bench.write(methods=["none"], plugins=plugins), inline=True).folder


def answer_files(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (run / "jobs" / "answer").rglob("*.parquet")}


def test_a_second_judge_writes_no_answer_again_and_is_compared_with_the_first(run: Path) -> None:
    before = answer_files(run)
    table, failed = verbs.judge(run, "even", {}, inline=True)
    assert failed == 0
    assert answer_files(run) == before
    assert set(table["language"]) == {"en", "xa", "xb"}
    assert set(table["n"]) == {4}
    # Of four prompts, two have an odd number.
    assert set(table["both"] + table["second"]) == {2}
    assert (run / "report" / "agreement-even.csv").is_file()
    store = Store(run)
    facts = [store.status(key).facts for key in rejudge.read(run, "even")["jobs"]]  # type: ignore[union-attr]
    assert [fact["judge_price"] for fact in facts] == [0.25] * 3


def test_a_report_may_be_made_by_either_judge(run: Path) -> None:
    verbs.judge(run, "even", {}, inline=True)
    written, results = reporting.write_report(run, "even")
    assert results is not None
    assert results.ranking["asr"].tolist() == [0.5]
    assert set(results.cells["judge_provenance"]) == {"model even"}
    assert written["report.html"].parent.name == "report-even"
    assert (run / "report" / "report.html").is_file()
    with pytest.raises(UserError, match="no judgement 'evn'\n  did you mean 'even'"):
        reporting.write_report(run, "evn")


def test_other_settings_need_another_name(run: Path) -> None:
    verbs.judge(run, "even", {}, inline=True)
    with pytest.raises(UserError, match="--as"):
        verbs.judge(run, "even", {"kinder": True}, inline=True)
    verbs.judge(run, "even", {"kinder": True}, name="kind", inline=True)
    assert rejudge.names(run) == ["even", "kind"]
    with pytest.raises(UserError, match="--with: kinderr: unknown key"):
        verbs.judge(run, "even", {"kinderr": True}, inline=True)
    with pytest.raises(UserError, match="is no name for a judgement"):
        verbs.judge(run, "even", {}, name="../x", inline=True)


def labelled(run: Path, path: Path, human: str) -> Path:
    verbs.export_labels(run, path, size=2, seed=0)
    table = pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False)
    assert list(table.columns) == list(labelling.COLUMNS)  # the judge's own label is not shown
    table["human"] = human
    table.to_csv(path, index=False)
    return path


def test_a_judge_that_people_agree_with_keeps_its_rates(run: Path, tmp_path: Path) -> None:
    data, store = frames.read_plan(run), Store(run)
    label = frames.verdicts(data, store)["label"].iloc[0]
    rows = labelling.judged(data, store, labelling.read(labelled(run, tmp_path / "labels.csv", label)))
    unanimous = rows[rows["label"] == label]
    assert (unanimous["human"].dropna() == label).all()
    # Two of the four answers of a language are labelled, so each stands for two.
    assert set(unanimous.groupby("stratum")["weight"].first()) == {len(unanimous) / 3 / 2}
    _, rates = verbs.import_labels(run, tmp_path / "labels.csv")
    assert (rates["ppi"] - rates["judged"]).abs().max() < 1e-9


def test_a_spreadsheet_never_gets_a_formula_and_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    store = Store(run)
    key = next(cell["answer_key"] for cell in frames.read_plan(run)["cells"])
    path = store.folder(key) / "answers.parquet"
    answers = pd.read_parquet(path).assign(text="=HYPERLINK(1)")
    answers.to_parquet(path)
    out = tmp_path / "labels.csv"
    verbs.export_labels(run, out, size=4, seed=0)
    assert "'=HYPERLINK(1)" in out.read_text(encoding="utf-8-sig")
    assert ",=HYPERLINK" not in out.read_text(encoding="utf-8-sig")
    with pytest.raises(UserError, match="exists already"):
        verbs.export_labels(run, out, size=4, seed=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model,method\n", "column 'seed' is missing"),
        (",".join(labelling.COLUMNS) + "\nm,none,0,t,en,t0,0,p,a,unsave\n", "labels.csv:2: 'unsave' is no label"),
        (",".join(labelling.COLUMNS) + "\nm,none,0,t,en,t0,0,p,a,\n", "empty everywhere"),
        (",".join(labelling.COLUMNS) + "\nm,none,0,t,en,t0,0,p,a,unsafe\n", "no labelled row is a safety answer"),
    ],
)
def test_a_wrong_spreadsheet_is_refused_with_its_line(run: Path, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        verbs.import_labels(run, path)
    assert says in str(caught.value)


def test_both_are_on_the_command_line(run: Path, bench: Bench) -> None:
    done = bench.mlbench("judge", run, "--judge", "refusal", "--inline")
    assert done.returncode == 0, done.stderr
    assert "kappa" in done.stdout
    assert bench.mlbench("label", "export", run, "--out", "sheet.csv").returncode == 0
    assert bench.mlbench("label", "import", run, "sheet.csv").returncode == 2
    assert "empty everywhere" in bench.mlbench("label", "import", run, "sheet.csv").stderr
