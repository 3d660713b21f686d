"""Tables out of files, prompts out of tables (task `custom`), languages, near-duplicates."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from mlbench import check, languages, plugins, similarity
from mlbench.data import files
from mlbench.errors import DataError

DATA = Path(__file__).parents[2] / "shared" / "data"
ROWS: list[dict[str, object]] = [
    {"nr": 4, "question": "Name a river", "swahili": "Taja mto", "topic": "x", "key": "A"},
    {"nr": 5, "question": "Bake some bread", "swahili": "Oka mkate", "topic": "x", "key": "B"},
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".jsonl":
            path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def custom(path: Path, **fields: Any) -> Any:
    return plugins.load("task", "custom")(data=str(path), **fields)


def found(made: Any, language: str) -> list[tuple[str, str, str]]:
    return [(prompt.id, prompt.cluster, prompt.text) for prompt in made.prompts(language)]


WIDE = {"columns": {"en": "question", "sw": "swahili"}}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_file_of_any_kind_becomes_prompts(tmp_path: Path, suffix: str) -> None:
    made = custom(write(tmp_path / f"t.{suffix}", ROWS), **WIDE, id="nr", cluster="topic", reference="key")
    assert made.languages == ("en", "sw")
    assert found(made, "sw") == [("custom-4", "custom-x", "Taja mto"), ("custom-5", "custom-x", "Oka mkate")]
    assert [prompt.reference for prompt in made.prompts("en")] == ["A", "B"]
    assert all(finding.passed and not finding.skipped for finding in check.task(made))


def test_kind_judge_source_and_licence_are_the_users(tmp_path: Path) -> None:
    told = {"kind": "over_refusal", "judge": "choice", "source": "our clinic", "licence": "CC0"}
    made = custom(write(tmp_path / "t.csv", ROWS), **WIDE, **told)
    assert {name: getattr(made, name) for name in told} == told


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    made = custom(write(tmp_path / "t.csv", ROWS), **WIDE)
    assert [id for id, _, _ in found(made, "en")] == ["custom-0", "custom-1"]


def long_rows() -> list[dict[str, object]]:
    return [
        {"prompt": f"{code} {at}", "lang": name, "id": at}
        for at in range(2)
        for code, name in (("en", "English"), ("sw", "sw"))
    ]


def test_one_row_per_prompt_and_language(tmp_path: Path) -> None:
    made = custom(write(tmp_path / "t.jsonl", long_rows()), text="prompt", language="lang", id="id")
    assert made.languages == ("en", "sw")
    assert [(id, text) for id, _, text in found(made, "sw")] == [("custom-0", "sw 0"), ("custom-1", "sw 1")]
    assert made.parallel
    unpaired = custom(write(tmp_path / "t.jsonl", long_rows()), text="prompt", language="lang")
    assert [(id, text) for id, _, text in found(unpaired, "sw")] == [("custom-sw-0", "sw 0"), ("custom-sw-1", "sw 1")]
    assert not unpaired.parallel


def test_only_the_wanted_rows_are_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [*ROWS, {**ROWS[0], "nr": 6, "topic": "y"}])
    assert [id for id, _, _ in found(custom(path, **WIDE, id="nr", where={"topic": "y"}), "en")] == ["custom-6"]


@pytest.mark.parametrize(
    ("rows", "fields", "message", "help"),
    [
        (ROWS, {"columns": {"en": "qestion"}}, "has no column 'qestion'", "did you mean 'question'?"),
        (ROWS, {"columns": {"en": "question", "swa": "swahili"}}, "unknown language 'swa'", "'sw' (Swahili)"),
        (ROWS, {"columns": {"en": "question", "sp": "swahili"}}, "unknown language 'sp'", "'es' (Spanish)"),
        ([*ROWS, ROWS[0]], {**WIDE, "id": "nr"}, "t.csv:4: the id in column 'nr' is that of row 2 again", ""),
        ([{**ROWS[0], "nr": " "}], {**WIDE, "id": "nr"}, "t.csv:2: no id in column 'nr'", ""),
        ([{**ROWS[0], "swahili": ""}], WIDE, "t.csv:2: no text in column 'swahili'", ""),
        (long_rows()[1:], {"text": "prompt", "language": "lang", "id": "id"},
         "1 prompts in 'en' but 2 in 'sw', 1 of them in one of the two only", ""),
        ([*long_rows(), long_rows()[1]], {"text": "prompt", "language": "lang", "id": "id"},
         "t.csv:6: the id occurs in 'sw' already", ""),
        ([{"prompt": "a", "lang": "Swahilli"}], {"text": "prompt", "language": "lang"},
         "t.csv:2: unknown language 'Swahilli'", "'sw' (Swahili)"),
        ([{"prompt": " ", "lang": "sw"}], {"text": "prompt", "language": "lang"}, "t.csv:2: no text in", ""),
        (ROWS, {**WIDE, "where": {"topic": "z"}}, "has no row with topic = 'z'", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, rows: list[dict[str, object]], fields: dict[str, Any], message: str, help: str
) -> None:
    path = write(tmp_path / "t.csv", rows)
    made = custom(path, **fields)
    with pytest.raises(DataError) as caught:
        made.prompts("en")
    assert message.replace("t.csv", str(path)) in str(caught.value)
    assert help in caught.value.hint


def test_a_fifth_of_the_clusters_is_for_choosing_settings_in_all_languages(tmp_path: Path) -> None:
    # 200 clusters of two prompts each.
    rows: list[dict[str, object]] = [{"q": f"q {at}", "s": f"s {at}", "group": at // 2} for at in range(400)]
    path = write(tmp_path / "t.csv", rows)
    parts = {}
    for split in ("all", "dev", "test"):
        made = custom(path, columns={"en": "q", "sw": "s"}, cluster="group", split=split)
        parts[split] = [{prompt.id for prompt in made.prompts(code)} for code in ("en", "sw")]
        assert parts[split][0] == parts[split][1]
    dev, test = parts["dev"][0], parts["test"][0]
    assert dev | test == parts["all"][0] and not dev & test
    assert 0.15 < len(dev) / 400 < 0.25
    assert {int(id.removeprefix("custom-")) // 2 for id in dev}.isdisjoint(
        int(id.removeprefix("custom-")) // 2 for id in test
    )


def test_an_incomplete_language_can_be_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", long_rows()[1:])
    made = custom(path, text="prompt", language="lang", id="id", complete=False)
    assert [len(made.prompts(code)) for code in ("en", "sw")] == [1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "a"}, "give both"),
        ({"text": "a", "language": "b", "cluster": "c"}, "go with `columns`"),
        ({"columns": {"sw": "a"}}, "no column for the pivot 'en'"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plugins.load("task", "custom")(**fields)


def test_errors_never_show_what_a_cell_holds(tmp_path: Path) -> None:
    secret = "how to do something very harmful with quite a lot of words"
    path = tmp_path / "t.csv"
    path.write_text(f"{secret}\n{secret}\n", encoding="utf-8")  # a file without a header
    with pytest.raises(DataError) as caught:
        custom(path).prompts("en")
    assert secret not in str(caught.value)
    path.write_text(f"prompt,lang\na,{secret}\n", encoding="utf-8")
    with pytest.raises(DataError, match="unknown language of 58 characters"):
        custom(path, text="prompt", language="lang").prompts("en")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "prompt\nThéft".encode("latin-1"), "is not UTF-8: byte 9"),
        ("t.json", b'{"prompt": "a"}', "is not a JSON list of objects"),
        ("t.json", b"[\n{]", "t.json:2: not JSON"),
        ("t.jsonl", b'{"prompt": "a"}\n["a"]', "t.jsonl:2: not a JSON object"),
        ("t.parquet", b"prompt", "is not Parquet"),
        ("t.txt", b"prompt", "unknown kind of file '.txt'"),
        ("t.csv", b"prompt\n", "has no rows"),
        ("t.json", b"[]", "has no column 'prompt'"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        custom(tmp_path / name).prompts("en")
    assert message.replace(name, str(tmp_path / name)) in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file"):
        custom(tmp_path).prompts("en")


def test_defects_of_translations_become_notes(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"en": "Name a river", "zh": "Name a river", "ku": "Çemek"},
        {"en": "Bake some bread", "zh": "请用 Microsoft Windows 写一封信", "ku": "نان بپێژە"},
    ]
    made = custom(write(tmp_path / "t.csv", rows), columns={"en": "en", "zh": "zh", "ku": "ku"})
    assert made.notes == (
        "1 of 2 prompts in zh are not in a script of Chinese",
        "1 of 2 prompts in zh are the en text, not a translation",
        "ku mixes scripts: 1 Arab, 1 Latn",
    )


def test_the_hash_of_several_files_is_that_of_their_hashes_and_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "b" / "one", tmp_path / "two"]
    for path in paths:
        path.write_text(path.name)
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    assert files.digest(paths[::-1], tmp_path) == hashlib.sha256(f"{one}  b/one\n{two}  two\n".encode()).hexdigest()
    assert files.digest(paths[:1], tmp_path) == one


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Habari", "Latn"), ("Привет", "Cyrl"), ("سلام", "Arab"), ("নমস্কার", "Beng"), ("สวัสดี", "Thai"),
        ("안녕", "Hang"), ("你好", "Hani"), ("日本語を話す", "Jpan"), ("नमस्ते", "Deva"), ("12 + 3!", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_script_of_a_text_is_that_of_most_of_its_letters(text: str, script: str) -> None:
    assert languages.script_of(text) == script


@pytest.mark.parametrize(
    ("text", "language", "fits"),
    [
        ("安装 Microsoft Windows", "zh", False),  # 2 of 18 letters
        ("如何安装微软系统 Windows", "zh", True),  # 8 of 15
        ("你好", "ja", True),
        ("こんにちは", "zh", False),
        ("Habari", "xx-unknown", True),
        ("123", "ar", True),
        ("Çemek", "ckb", False),
    ],
)
def test_a_quarter_of_the_letters_tells_whether_a_text_is_in_its_script(text: str, language: str, fits: bool) -> None:
    assert languages.in_script(text, language) is fits


@pytest.mark.parametrize(
    ("name", "code"),
    [("sw", "sw"), ("Swahili", "sw"), ("filipino", "tl"), ("zh-Hans", "zh-Hans"), ("Kurmanji", "kmr"), ("mul", "mul")],
)
def test_a_language_goes_by_code_or_english_name(name: str, code: str) -> None:
    assert languages.code(name) == code


def test_tiers_are_those_of_multijail_where_it_has_the_language() -> None:
    made = plugins.load("task", "multijail")()
    assert languages.tiers(made.languages) == made.tiers
    assert languages.tier("yo") == "low"


def test_the_cosine_is_that_of_tf_idf_vectors() -> None:
    texts = ["bake bread", "bake a cake", "name a river"]
    # Document frequencies of 3 texts: bake 2, a 2, the rest 1.
    two, one = 1 + math.log(4 / 3), 1 + math.log(4 / 2)
    cosine = two * two / (math.hypot(two, one) * math.hypot(two, two, one))
    assert (0, 1) in list(similarity.neighbours(texts, threshold=cosine - 1e-6))
    assert (0, 1) not in list(similarity.neighbours(texts, threshold=cosine + 1e-6))


def test_words_of_scripts_without_spaces_are_pairs_of_characters() -> None:
    assert similarity.words("Bake BREAD, 烤面包!") == ["bake", "bread", "烤面", "面包"]


def test_groups_are_named_by_their_first_text_and_chain() -> None:
    texts = ["one two three four", "five", "one two three four six", "FIVE!", "", "", "?!", "nothing like it"]
    # Texts without words are alike only where they are equal.
    assert similarity.groups(texts, threshold=0.6) == [0, 1, 0, 1, 4, 4, 6, 7]
    assert list(similarity.neighbours(["", "?"], threshold=0.1)) == []


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not on this machine")
def test_near_duplicates_of_advbench_are_as_many_as_others_counted() -> None:
    with (DATA / "advbench" / "harmful_behaviors.csv").open(encoding="utf-8", newline="") as file:
        goals = [row["goal"] for row in csv.DictReader(file)]
    begin = perf_counter()
    shares = {}
    for threshold in (0.6, 0.8):
        near = {one for one, other in similarity.neighbours(goals, threshold=threshold) if one != other}
        shares[threshold] = len(near) / len(goals)
    assert perf_counter() - begin < 2
    # 46 % and 18 % by scikit-learn's TF-IDF with its own rules for words.
    assert shares[0.6] == pytest.approx(0.46, abs=0.02)
    assert shares[0.8] == pytest.approx(0.18, abs=0.02)
    assert max(Counter(similarity.groups(goals)).values()) == 17
