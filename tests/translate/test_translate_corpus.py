"""A corpus with its gaps filled: what is asked, written, flagged and remembered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mlbench import corpus as corpora
from mlbench import translate
from mlbench.core import Corpus
from mlbench.data.files import read
from mlbench.errors import DataError

from .translations import SOURCE, Marked, config, run, silent


def test_only_what_is_missing_is_asked_for() -> None:
    found = Corpus(pivot="en", languages=("en", "sw"), examples=SOURCE)
    assert [tuple(gap) for gap in translate.missing(found, ["sw", "bn"], ["prompt", "chosen", "rejected"])] == [
        ("a", "sw", "chosen", "ca"),
        ("b", "sw", "prompt", "pb"),
        ("a", "bn", "prompt", "pa"),
        ("a", "bn", "chosen", "ca"),
        ("a", "bn", "rejected", "ra"),
        ("b", "bn", "prompt", "pb"),
    ]
    # Answers have no row to stand in where the prompt is missing and not asked for.
    assert [gap.language for gap in translate.missing(found, ["sw", "bn"], ["chosen"])] == ["sw"]


def test_gaps_are_filled_and_everything_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []
    outcome = run(config(tmp_path), Marked(), monkeypatch, lambda *step: steps.append(step))
    found = corpora.read_jsonl(outcome.out, "en")
    assert found.examples[:2] == SOURCE[:2]
    rows = {(row.id, row.language): row for row in found.examples}
    assert len(rows) == 7  # a and b in en, sw, it; z in sw
    filled = rows["a", "sw"]
    assert (filled.prompt, filled.chosen, filled.rejected) == ("mine", "sw ca", "mine too")
    new = rows["a", "it"]
    assert (new.prompt, new.chosen, new.rejected, new.harmful) == ("it pa", "it ca", "it ra", True)
    assert (rows["b", "it"].prompt, rows["b", "it"].chosen, rows["b", "it"].harmful) == ("it pb", None, False)
    assert outcome.translated == {"sw": 2, "it": 4}
    assert steps[0] == ("en to sw", 2, 2) and steps[-1] == ("it to en", 4, 4)


def test_the_sidecar_names_model_and_hashes_and_holds_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(config(tmp_path, languages=["it"]), Marked(), monkeypatch)
    text = outcome.sidecar.read_text(encoding="utf-8")
    about = json.loads(text)
    assert about["rows"][0] == {
        "id": "a",
        "language": "it",
        "column": "prompt",
        "model": "marker",
        "revision": "r1",
        "source_sha256": hashlib.sha256(b"pa").hexdigest(),
        "sha256": hashlib.sha256(b"it pa").hexdigest(),
        "chrf": 100.0,
        "flags": [],
    }
    assert about["out_sha256"] == hashlib.sha256(outcome.out.read_bytes()).hexdigest()
    assert "it pa" not in text


def test_flagged_rows_are_counted_and_can_be_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"pa": "pa", "ca": "I'm sorry, but no", "pb": ""}
    path = config(tmp_path, languages=["it"])
    outcome = run(path, Marked(odd), monkeypatch)
    assert outcome.flags == {"it": {"copy": 1, "refusal": 1, "outlier": 1, "empty": 1}}
    rows = {(row.id, row.language): row for row in corpora.read_jsonl(outcome.out, "en").examples}
    assert rows["a", "it"].chosen == "I'm sorry, but no"
    assert ("b", "it") not in rows  # without words there is no row
    dropped = run(config(tmp_path, languages=["it"], flagged="drop"), Marked(odd), monkeypatch)
    assert dropped.asked == 0
    assert {row.language for row in corpora.read_jsonl(dropped.out, "en").examples} == {"en", "sw"}
    assert "flagged: 1 empty, 1 refusal, 1 copy, 1 outlier" in translate.words(dropped)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path)
    dying = Marked(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(path, dying, monkeypatch)
    memory = tmp_path / "out.jsonl.memory.jsonl"
    assert not (tmp_path / "out.jsonl").exists() and memory.read_bytes().count(b"\n") == 6
    with memory.open("a") as file:
        file.write('{"key": "half a li')  # what a kill leaves
    second = Marked()
    outcome = run(path, second, monkeypatch)
    whole = Marked()
    (tmp_path / "again").mkdir()
    expected = run(config(tmp_path / "again"), whole, monkeypatch)
    assert sorted(dying.asked + second.asked) == sorted(whole.asked)
    assert outcome.out.read_bytes() == expected.out.read_bytes()
    assert run(path, Marked(dies_after=0), monkeypatch).asked == 0
    assert (tmp_path / "out.jsonl.memory.jsonl").read_bytes().count(b"\n") == len(whole.asked)


def test_another_engine_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(tmp_path), Marked(), monkeypatch)
    other = Marked()
    monkeypatch.setattr(other, "about", lambda: {"kind": "marked", "model": "marker", "revision": "r2"})
    assert run(config(tmp_path), other, monkeypatch).asked == 12


def test_a_prompt_file_with_one_column_per_language_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clinic.csv").write_text("nr,question,kiswahili\n7,pa,mine\n8,pb,\n", encoding="utf-8")
    texts = {"en": "question", "sw": "kiswahili"}
    path = config(tmp_path, source=str(tmp_path / "clinic.csv"), texts=texts, id="nr")
    outcome = run(path, Marked(), monkeypatch)
    rows = {(row["id"], row["language"]): row["prompt"] for row in read(outcome.out).rows}
    assert rows == {
        ("7", "en"): "pa", ("8", "en"): "pb", ("7", "sw"): "mine",
        ("8", "sw"): "sw pb", ("7", "it"): "it pa", ("8", "it"): "it pb",
    }  # fmt: skip


def test_the_source_is_never_written_to(tmp_path: Path, nllb: Path) -> None:
    path = config(tmp_path, out=str(tmp_path / "pairs.jsonl"), engine={"kind": "nllb", "model": str(nllb)})
    with pytest.raises(DataError, match="out: is the source, which is never written to"):
        translate.run(path, (), silent)
