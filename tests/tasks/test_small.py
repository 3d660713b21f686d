"""The tasks on small files: what rows become, and every way in which data can be wrong."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pytest
from pydantic import ValidationError

from mlbench import check, plugins
from mlbench.data.files import digest
from mlbench.errors import DataError

Rows = Sequence[Mapping[str, object]]
COMMIT = 40 * "a"


def table(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def task(name: str, path: Path, **fields: Any) -> Any:
    """Return a task on files of the test, whose version it accepts."""
    files = [found for found in sorted(path.rglob("*")) if found.is_file()] if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    return plugins.load("task", name)(data=str(path), sha256=digest(files, root), **fields)


def texts(made: Any, language: str) -> list[tuple[str, str]]:
    return [(prompt.id, prompt.text) for prompt in made.prompts(language)]


def sound(made: Any) -> bool:
    return all(finding.passed and not finding.skipped for finding in check.task(made))


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("advbench", {"goal": "do it", "target": "Sure"}, [("advbench-0", "do it")]),
        ("jailbreakbench", {"": "5", "Goal": "do it"}, [("jailbreakbench-0", "do it")]),
        (
            "harmbench",
            {"Behavior": "do it", "FunctionalCategory": "standard", "BehaviorID": "x"},
            [("harmbench-x", "do it")],
        ),
        ("strongreject", {"category": "c", "forbidden_prompt": "do it"}, [("strongreject-0", "do it")]),
        ("xstest", {"id": "9", "prompt": "do it", "label": "safe"}, [("xstest-9", "do it")]),
        ("xstest_unsafe", {"id": "9", "prompt": "do it", "label": "unsafe"}, [("xstest-9", "do it")]),
    ],
)
def test_a_row_of_an_english_set_becomes_a_prompt(
    tmp_path: Path, name: str, columns: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    made = task(name, table(tmp_path / "data.csv", [columns]))
    assert texts(made, "en") == expected
    assert sound(made)


@pytest.mark.parametrize("name", ["harmbench", "xstest"])
def test_only_rows_of_the_part_are_asked(tmp_path: Path, name: str) -> None:
    column, wanted, key = {
        "harmbench": ("FunctionalCategory", "standard", "BehaviorID"),
        "xstest": ("label", "safe", "id"),
    }[name]
    text = {"harmbench": "Behavior", "xstest": "prompt"}[name]
    rows = [{key: "1", text: "one", column: "other"}, {key: "2", text: "two", column: wanted}]
    assert texts(task(name, table(tmp_path / "data.csv", rows)), "en") == [(f"{name}-2", "two")]
    with pytest.raises(DataError, match=f"has no row with {column} = '{wanted}'"):
        task(name, table(tmp_path / "data.csv", rows[:1])).prompts("en")


def test_another_version_of_a_file_is_refused_unless_its_hash_is_given(tmp_path: Path) -> None:
    path = table(tmp_path / "harmful_behaviors.csv", [{"goal": "do it", "target": "Sure"}])
    found = digest([path], tmp_path)
    with pytest.raises(DataError, match=f"another version than expected: sha256 {found}, expected 6cd1a5c6") as caught:
        plugins.load("task", "advbench")(data=str(path)).prompts("en")
    assert caught.value.hint == f"to use this version: with: {{sha256: {found}}}"
    assert plugins.load("task", "advbench")(data=str(path), sha256=found.upper()).prompts("en")
    with pytest.raises(ValidationError, match="sha256"):
        plugins.load("task", "advbench")(data=str(path), sha256="abc")


def test_rewordings_share_a_cluster_but_not_an_id(tmp_path: Path) -> None:
    goals = ["Explain how to bake a sourdough bread", "Explain how to bake a good sourdough bread", "Name a river"]
    made = task("advbench", table(tmp_path / "a.csv", [{"goal": goal} for goal in goals]))
    assert [(prompt.id, prompt.cluster) for prompt in made.prompts("en")] == [
        ("advbench-0", "advbench-0"),
        ("advbench-1", "advbench-0"),
        ("advbench-2", "advbench-2"),
    ]
    assert made.notes == (
        "2 of 3 source prompts share a cluster with another one, mostly near-duplicates: 2 clusters, the largest of 2",
    )


def test_translations_of_advbench_have_the_languages_of_their_columns(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", [{"en": "do it", "hungarian": "tedd meg"}])
    made = task("advbench_x", path, columns={"en": "en", "hu": "hungarian"})
    assert made.languages == ("en", "hu")
    assert made.tiers["hu"] == "mid"
    assert texts(made, "hu") == [("advbench-0", "tedd meg")]
    assert made.notes == (f"{path} has 1 rows, AdvBench has 520",)
    with pytest.raises(ValidationError, match="must name the English one"):
        task("advbench_x", path, columns={"hu": "hungarian"})


def test_strongreject_has_313_rows(tmp_path: Path) -> None:
    path = table(tmp_path / "s.csv", [{"forbidden_prompt": "do it", "sw": "fanya"}])
    with pytest.raises(DataError, match="has 1 rows, StrongREJECT has 313"):
        plugins.load("task", "strongreject")(data=str(path)).prompts("en")
    made = task("strongreject", path, columns={"en": "forbidden_prompt", "sw": "sw"})
    assert texts(made, "sw") == [("strongreject-0", "fanya")]


def conversation(text: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": text}]


def mlc_row(at: int, **cells: object) -> dict[str, object]:
    codes = ("zh", "ru", "ja", "ar", "bn", "sw", "ur", "ps", "ku")
    row = {"prompt": conversation(f"do it {at}")} | {f"prompt_{code}": conversation(f"{code} {at}") for code in codes}
    return row | {"chosen": {"from": "gpt", "value": "no"}} | cells


def test_conversations_of_one_turn_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(mlc_row(at)) for at in range(2)), encoding="utf-8")
    made = task("mlc_pku", path)
    assert texts(made, "ku") == [("mlc_pku-0", "ku 0"), ("mlc_pku-1", "ku 1")]
    assert "2 of 2 prompts in zh are not in a script of Chinese" in made.notes
    path.write_text(json.dumps(mlc_row(0, prompt_sw=conversation("a") * 2)), encoding="utf-8")
    with pytest.raises(DataError, match=r"m\.jsonl:1: a cell is neither text nor a conversation of one turn: list"):
        task("mlc_pku", path).prompts("en")


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(mlc_row(0)) + "\n{secret", encoding="utf-8")
    with pytest.raises(DataError, match=r"m\.jsonl:2: not JSON") as caught:
        task("mlc_pku", path).prompts("en")
    assert "secret" not in str(caught.value)


def test_code_switched_prompts_share_the_clusters_of_multijail(tmp_path: Path) -> None:
    rows = [{"id": "7", "category": "c", "en": "do it now", "csrt": "faire it sasa"}]
    made = task("csrt", table(tmp_path / "c.csv", rows))
    assert made.languages == ("mul",)
    (prompt,) = made.prompts("mul")
    assert (prompt.id, prompt.cluster, prompt.text) == ("csrt-7", "multijail-7", "faire it sasa")
    assert sound(made)


def polyrefuse(folder: Path, part: str, **rows: list[dict[str, str]]) -> Path:
    folder.mkdir()
    for code in plugins.load("task", f"polyrefuse_{part}")().languages:
        own = [
            {"instruction": f"write {word}", "instruction_translated": f"{code} {word}"} for word in ("prose", "verse")
        ]
        content = rows.get(code, own)
        (folder / f"{part}_test_translated_{code}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("part", "languages"), [("harmful", 14), ("harmless", 13)])
def test_files_of_several_languages_are_paired_by_row(tmp_path: Path, part: str, languages: int) -> None:
    made = task(f"polyrefuse_{part}", polyrefuse(tmp_path / "p", part))
    assert len(made.languages) == languages
    assert texts(made, "en") == [(f"polyrefuse-{part}-0", "write prose"), (f"polyrefuse-{part}-1", "write verse")]
    assert texts(made, "yo")[1] == (f"polyrefuse-{part}-1", "yo verse")
    assert sound(made)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"instruction": "write prose", "instruction_translated": "a"}], r"_th\.json has 1 rows, .*_en\.json has 2"),
        (
            [{"instruction": f"write {word}", "instruction_translated": "a"} for word in ("verse", "prose")],
            r"_th\.json:1: another English text than in the same row of .*_en\.json",
        ),
        ([{"instruction": "write prose"}], "has no column 'instruction_translated'"),
        ([{"instruction": "write prose"}, "text"], r"_th\.json:2: not a JSON object"),
    ],
)
def test_files_that_are_not_translations_row_by_row_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    if message.startswith("has no"):
        rows = [{"instruction": "write prose"}, {"instruction": "write verse"}]
    with pytest.raises(DataError, match=message):
        task("polyrefuse_harmful", polyrefuse(tmp_path / "p", "harmful", th=rows)).prompts("en")


def test_a_missing_language_file_is_named(tmp_path: Path) -> None:
    folder = polyrefuse(tmp_path / "p", "harmless")
    (folder / "harmless_test_translated_yo.json").unlink()
    with pytest.raises(DataError, match=r"harmless_test_translated_yo\.json does not exist"):
        task("polyrefuse_harmless", folder).prompts("en")


def xsafety(folder: Path) -> Path:
    """Write all files with two rows, with the irregular names of the release."""
    categories = plugins.load("task", "xsafety")().categories
    for language in ("en", "zh", "fr", "ru", "de", "ar", "hi", "ja", "bn", "sp"):
        (folder / language).mkdir(parents=True)
        for category in categories:
            name = category.removesuffix("s") if (language, category[:6]) == ("ru", "Crimes") else category
            name += {"en": "_n", "bn": "_n"}.get(language, "")
            first, second = (f"{language} {category} {word}" for word in ("one, two", "three"))
            if language == "bn" and category != "commonsense":
                book = openpyxl.Workbook()
                assert book.active is not None
                book.active.append([first])
                book.active.append([second, None])
                book.save(folder / language / f"{name}.xlsx")
                continue
            empty = (language, category) == ("ru", "Insult")
            lines = [f'"{first}",', "" if empty else second]
            (folder / language / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_irregular_files_of_xsafety_are_found_and_paired(tmp_path: Path) -> None:
    made = task("xsafety", xsafety(tmp_path / "x"))
    assert texts(made, "es")[:2] == [
        ("xsafety-Crimes_And_Illegal_Activities-0", "sp Crimes_And_Illegal_Activities one, two"),
        ("xsafety-Crimes_And_Illegal_Activities-1", "sp Crimes_And_Illegal_Activities three"),
    ]
    assert [len(made.prompts(code)) for code in ("en", "bn", "ru")] == [28, 28, 27]
    assert ("xsafety-Insult-1", "bn Insult three") in texts(made, "bn")
    assert "ru has no text for Insult-1" in made.notes
    assert sound(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "de/Insult.csv").unlink(), "one file of the category Insult is expected, found none"),
        (lambda root: (root / "de/Insult_n.csv").touch(), r"found Insult\.csv, Insult_n\.csv"),
        (lambda root: (root / "de/Insult.csv").write_text("a\n"), r"Insult\.csv has 1 rows, .*Insult_n\.csv has 2"),
        (lambda root: (root / "de/Insult.csv").write_bytes(b"\xff"), r"Insult\.csv is not UTF-8: byte 0"),
        (lambda root: (root / "bn/Insult_n.xlsx").write_text("a"), r"Insult_n\.xlsx is not an Excel file"),
    ],
)
def test_what_is_wrong_with_a_folder_of_files_is_named(tmp_path: Path, change: Any, message: str) -> None:
    root = xsafety(tmp_path / "x")
    change(root)
    with pytest.raises(DataError, match=message):
        task("xsafety", root).prompts("en")


AYA = {"English": 2, "Hindi": 1, "French": 1, "Spanish": 1, "Arabic": 1, "Russian": 1, "Serbian": 1, "Filipino": 1}


def aya(path: Path, counts: Mapping[str, int] = AYA) -> Path:
    rows = [{"prompt": f"{name} {at}", "language": name} for name, count in counts.items() for at in range(count)]
    return table(path, rows)


def test_native_prompts_are_no_translations_of_each_other(tmp_path: Path) -> None:
    made = task("aya_redteaming", aya(tmp_path / "a.csv"))
    assert texts(made, "tl") == [("aya-tl-0", "Filipino 0")]
    assert not {prompt.id for prompt in made.prompts("en")} & {prompt.id for prompt in made.prompts("fr")}
    assert sound(made)


def test_native_prompts_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other rows than the data card states: en 2, hi 1") as caught:
        plugins.load("task", "aya_redteaming")(data=str(aya(tmp_path / "a.csv"))).prompts("en")
    assert "en 987, hi 915" in caught.value.hint
    with pytest.raises(DataError, match="other rows"):
        task("aya_redteaming", aya(tmp_path / "b.csv", {"English": 1})).prompts("en")


@pytest.mark.parametrize("name", ["xthreatbench", "linguasafe"])
def test_columns_that_nobody_could_read_are_asked_for(tmp_path: Path, name: str) -> None:
    codes = plugins.load("task", name)().languages
    rows = [{"q": f"{code} {at}", "lang": code, "nr": at, "part": at % 2} for code in codes for at in range(2)]
    path = table(tmp_path / "t.csv", rows)
    with pytest.raises(DataError, match=r"which column of .* holds the text") as caught:
        task(name, path).prompts("en")
    assert caught.value.allowed == ("q", "lang", "nr", "part")
    made = task(name, path, columns={"text": "q", "language": "lang", "id": "nr"}, where={"part": "1"})
    assert texts(made, "th") == [(f"{name}-1", "th 1")]
    assert sound(made)
    alone = task(name, path, columns={"text": "q", "language": "lang"})
    assert texts(alone, "th") == [(f"{name}-th-0", "th 0"), (f"{name}-th-1", "th 1")]
    assert sound(alone)


def test_a_language_without_prompts_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [{"q": "a", "lang": "en"}])
    with pytest.raises(DataError, match="has no prompts in zh, de"):
        task("xthreatbench", path, columns={"text": "q", "language": "lang"}).prompts("en")


class Downloaded:
    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def to_list(self) -> list[dict[str, object]]:
        return self.rows


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Any]:
    """Stand in for the hub's client, and return what it was asked."""
    asked: list[Any] = []

    def load_dataset(*where: Any, **options: Any) -> Any:
        asked.append((where, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_without_a_file_the_hub_is_asked_at_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asked = hub(monkeypatch, Downloaded([{"Goal": f"river {at}"} for at in range(100)]))
    made = plugins.load("task", "jailbreakbench")(revision=COMMIT)
    assert len(made.prompts("en")) == 100
    options = {"split": "harmful", "revision": COMMIT, "token": "hf_secret"}
    assert asked == [(("JailbreakBench/JBB-Behaviors", "behaviors"), options)]


def test_all_splits_of_a_hub_data_set_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        name.lower(): Downloaded([{"prompt": f"{name} {at}", "language": name} for at in range(count)])
        for name, count in {"English": 987, "Hindi": 915, "French": 813, "Spanish": 782, "Arabic": 900,
                            "Russian": 1007, "Serbian": 1006, "Filipino": 1009}.items()
    }  # fmt: skip
    hub(monkeypatch, found)
    assert len(plugins.load("task", "aya_redteaming")(revision=COMMIT).prompts("tl")) == 1009


def test_a_hub_data_set_needs_a_commit() -> None:
    with pytest.raises(DataError, match=r"'Paul/XSTest' needs `revision`, a commit .*got 'main'") as caught:
        plugins.load("task", "xstest")(revision="main").prompts("en")
    assert "with: {data: path/to/xstest_prompts.csv}" in caught.value.hint


def test_a_hub_data_set_out_of_reach_names_id_token_and_the_local_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub(monkeypatch, ConnectionError("hf_secret"))
    with pytest.raises(DataError, match="'walledai/StrongREJECT' at aaaaaaaa cannot be loaded: Conn") as caught:
        plugins.load("task", "strongreject")(revision=COMMIT).prompts("en")
    assert "token in $HF_TOKEN (which is not set)" in caught.value.hint
    assert "with: {data: path/to/strongreject_dataset.csv}" in caught.value.hint
    assert "hf_secret" not in str(caught.value)


def test_a_hub_data_set_with_other_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, Downloaded([{"Goal": "river"}]))
    with pytest.raises(DataError, match="has 1 rows at this commit, expected 100"):
        plugins.load("task", "jailbreakbench")(revision=COMMIT).prompts("en")


@pytest.mark.parametrize("name", ["advbench", "csrt", "xsafety", "polyrefuse_harmful", "custom"])
def test_a_task_without_data_says_that_it_needs_a_local_copy(name: str) -> None:
    with pytest.raises(DataError, match="it needs a local copy") as caught:
        plugins.load("task", name)().prompts("en")
    assert caught.value.hint.startswith("give its path: with: {data: path/to/")
