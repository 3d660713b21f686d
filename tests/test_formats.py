"""Released training corpora: the real files where they are on this machine, and small ones with every defect."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlbench import corpus as corpora
from mlbench import formats, plugins
from mlbench.core import Corpus, Example
from mlbench.errors import DataError
from mlbench.formats import CorpusEntry, Read
from mlbench.formats.mpo import language_of

DATA = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not on this machine")


def read(path: Path, format: str, pivot: str = "en", **keys: Any) -> Read:
    return formats.read(CorpusEntry.model_validate({"format": format, "data": str(path), **keys}), pivot)


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def prompts(corpus: Corpus) -> Counter[str]:
    return Counter(row.language for row in corpus.examples)


def pairs(corpus: Corpus) -> Counter[str]:
    return Counter(row.language for row in corpus.examples if row.chosen and row.rejected)


# Gemma: 22 target prompts are the English text: 17 of a certain language and 5 of none.
GEMMA = (
    "49 chosen answers in another language than their prompt (ar 3, bn 35, ja 7, ko 1, sw 2, zh 1), left out",
    "17 prompts that are not translated (bn 1, ja 3, ko 5, sw 3, zh 5), left out",
    "5 prompts that are not translated, for no certain language (? 5), left out",
    "31 rejected answers in another language than their prompt (ar 1, bn 18, ja 2, ko 2, sw 5, zh 3), left out",
    "4 unclear prompts (? 4), left out",
)


@real
def test_the_gemma_file_of_mpo() -> None:
    found, notes = read(DATA / "mpo" / "gemma_mpo_data.json", "mpo")
    assert notes == GEMMA
    assert prompts(found) == {"en": 100, "ar": 99, "bn": 98, "ja": 96, "sw": 96, "zh": 93, "ko": 92}
    # 600 rows less 17, 5 and 4.
    assert sum(prompts(found).values()) == 100 + 574
    assert pairs(found)["en"] == 100
    assert len({row.id for row in found.examples}) == 100
    assert found.languages[0] == "en"
    assert found.names["bn"] == "Bangla"


@real
def test_the_released_defects_of_mpo_can_be_kept() -> None:
    found, notes = read(DATA / "mpo" / "gemma_mpo_data.json", "mpo", defects="keep")
    assert [note.split(", ")[-1] for note in notes] == ["kept", "kept", "left out", "kept", "left out"]
    assert sum(prompts(found).values()) == 100 + 591
    assert pairs(found) == prompts(found)


@real
def test_the_llama_file_of_mpo_has_one_empty_prompt() -> None:
    found, notes = read(DATA / "mpo" / "llama_mpo_data.json", "mpo")
    assert "1 empty prompts (? 1), left out" in notes
    assert sum(prompts(found).values()) == 100 + 600 - 1 - 3 - 3


@real
def test_the_dominant_language_of_the_qwen_file_of_mpo_is_chinese() -> None:
    found, notes = read(DATA / "mpo" / "qwen_mpo_data.json", "mpo", pivot="zh")
    assert found.pivot == "zh"
    assert prompts(found) == {"zh": 97, "en": 99, "ar": 98, "bn": 98, "ja": 98, "ko": 98, "sw": 98}
    assert found.names["en"] == "英语"
    _, notes = read(DATA / "mpo" / "qwen_mpo_data.json", "mpo", pivot="en")
    assert notes[-1] == "the dominant side of this file is zh, the pivot is en"


@real
def test_the_training_prompts_of_mpo_that_test_sets_ask_are_found() -> None:
    files = {"multijail": "multijail/MultiJail.csv", "mlc_pku": "mlc-pku-test/pku_saferlhf_safety_test.jsonl"}
    tasks = {name: plugins.load("task", name)(data=str(DATA / path)) for name, path in files.items()}
    asked = {name: [row for code in made.languages for row in made.prompts(code)] for name, made in tasks.items()}
    found, _ = read(DATA / "mpo" / "gemma_mpo_data.json", "mpo")
    cleaned = corpora.decontaminate(found, asked, near=True)
    assert cleaned.matches == {
        "multijail": {"exact": 1, "normalised": 0, "near": 0},
        "mlc_pku": {"exact": 2, "normalised": 0, "near": 3},
    }
    gone = {id for ids in cleaned.overlaps.values() for id in ids}
    assert {row.id for row in cleaned.corpus.examples} == {row.id for row in found.examples} - gone


@real
def test_a_file_of_mlc_has_answers_in_english_only() -> None:
    found, notes = read(DATA / "mlc-pku-test" / "pku_saferlhf_safety_test.jsonl", "mlc")
    assert set(prompts(found).values()) == {180}
    assert found.languages == ("en", "zh", "ar", "ru", "ja", "bn", "sw", "ur", "ps", "ku")
    assert pairs(found) == {"en": 179}
    assert notes == ("ku mixes scripts: 134 Arab, 46 Latn", "1 rows lack the chosen or the rejected answer")
    assert corpora.lacks(found, ["pivot_preferences", "parallel_prompts"]) == []


ENGLISH = "how do I bake the bread"
TARGETS = {
    "zh": "我怎么烤面包",
    "ja": "パンを焼くには",
    "ko": "빵을 굽는 방법",
    "ar": "كيف أخبز الخبز",
    "bn": "আমি কীভাবে রুটি বানাব",
    "sw": "ninawezaje kuoka mkate wa ngano na maji",
}


def mpo_row(prompt: str, *, source: str = ENGLISH, chosen: str | None = None) -> dict[str, object]:
    def turn(text: str) -> dict[str, str]:
        return {"from": "gpt", "value": text}

    return {
        "source_conversations": [turn(source)],
        "source_chosen": turn("you can do that"),
        "source_rejected": turn("that is not for you"),
        "target_conversations": [turn(prompt)],
        "target_chosen": turn(prompt if chosen is None else chosen),
        "target_rejected": turn(prompt),
    }


def mpo(path: Path, changed: dict[str, dict[str, object]], **keys: Any) -> Read:
    rows = [changed.get(code, mpo_row(text)) for code, text in TARGETS.items()]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return read(path, "mpo", **keys)


def test_the_language_of_a_target_is_told_by_script_and_function_words(tmp_path: Path) -> None:
    assert {code: language_of(text) for code, text in TARGETS.items()} == {code: code for code in TARGETS}
    assert (language_of(ENGLISH), language_of("Berlin"), language_of("")) == ("en", "", "")
    found, notes = mpo(tmp_path / "m.json", {})
    assert notes == ()
    assert {row.language: row.prompt for row in found.examples} == {"en": ENGLISH, **TARGETS}
    assert {row.id for row in found.examples} == {"mpo-0"}
    assert found.examples[0].rejected == "that is not for you"


@pytest.mark.parametrize(
    ("code", "row", "left", "note"),
    [
        ("sw", mpo_row(ENGLISH), False, "1 prompts that are not translated (sw 1), left out"),
        ("ko", mpo_row("how can I do this"), False, "1 prompts that are not translated (ko 1), left out"),
        ("ko", mpo_row(" "), False, "1 empty prompts (? 1), left out"),
        # The one language that is left may be Swahili without any function word, but not Korean in Latin letters.
        ("sw", mpo_row("kuoka mkate"), True, ""),
        ("ko", mpo_row("ppang gupgi"), False, "1 prompts that are not translated (ko 1), left out"),
    ],
)
def test_a_prompt_outside_of_its_language_is_left_out_and_counted(
    tmp_path: Path, code: str, row: dict[str, object], left: bool, note: str
) -> None:
    found, notes = mpo(tmp_path / "m.json", {code: row})
    assert (code in prompts(found)) is left
    assert notes == ((note,) if note else ())


def test_a_prompt_outside_of_its_language_can_be_kept(tmp_path: Path) -> None:
    found, notes = mpo(tmp_path / "m.json", {"sw": mpo_row(ENGLISH)}, defects="keep")
    assert [row.prompt for row in found.rows("sw")] == [ENGLISH]
    assert "1 prompts that are not translated (sw 1), kept" in notes


def test_two_untranslated_prompts_have_no_certain_language(tmp_path: Path) -> None:
    found, notes = mpo(tmp_path / "m.json", {"sw": mpo_row(ENGLISH), "ko": mpo_row(ENGLISH)}, defects="keep")
    assert set(prompts(found)) == {"en", "zh", "ja", "ar", "bn"}
    assert notes == ("2 prompts that are not translated, for no certain language (? 2), left out",)


def test_answers_in_another_language_than_their_prompt_are_left_out_as_a_pair(tmp_path: Path) -> None:
    changed = {"bn": mpo_row(TARGETS["bn"], chosen="you can do that")}
    found, notes = mpo(tmp_path / "m.json", changed)
    (row,) = found.rows("bn")
    assert (row.prompt, row.chosen, row.rejected) == (TARGETS["bn"], None, None)
    assert notes == ("1 chosen answers in another language than their prompt (bn 1), left out",)
    found, _ = mpo(tmp_path / "m.json", changed, defects="keep")
    assert found.rows("bn")[0].chosen == "you can do that"


def pku_row(safer: object, first: bool, second: bool, prompt: str = "ask") -> dict[str, object]:
    return {
        "prompt": prompt,
        "response_0": "zero",
        "response_1": "one",
        "is_response_0_safe": first,
        "is_response_1_safe": second,
        "better_response_id": 0,
        "safer_response_id": safer,
    }


def test_the_safer_answer_of_pku_is_the_chosen_one(tmp_path: Path) -> None:
    rows = [pku_row(1, False, True), pku_row(0, True, True), pku_row(0, False, False), pku_row(0, True, False, "Ask!")]
    path = lines(tmp_path / "p.jsonl", rows)
    found, notes = read(path, "pku")
    assert [(row.id, row.cluster, row.chosen, row.rejected) for row in found.examples] == [
        ("pku-0", "pku-0", "one", "zero"),
        ("pku-3", "pku-0", "zero", "one"),
    ]
    assert notes == ("2 of 4 pairs are not of a safe and an unsafe answer and were left out",)
    found, notes = read(path, "pku", contrast=False)
    assert (len(found.examples), notes) == (4, ())
    with pytest.raises(DataError, match=r"p\.jsonl:1: `safer_response_id` is neither 0 nor 1"):
        read(lines(path, [pku_row(2, True, True)]), "pku")
    with pytest.raises(DataError, match=r"p\.jsonl:1: `is_response_0_safe` or .* is neither true nor false"):
        read(lines(path, [pku_row(1, False, True) | {"is_response_0_safe": "False"}]), "pku")


def test_a_corpus_without_the_pivot_says_so(tmp_path: Path) -> None:
    _, notes = read(lines(tmp_path / "p.jsonl", [pku_row(1, False, True)]), "pku", pivot="zh")
    assert notes == ("the corpus has no prompt in the pivot language zh",)


def test_mlc_counts_empty_and_untranslated_prompts(tmp_path: Path) -> None:
    def row(**texts: str) -> dict[str, object]:
        own = {name: [{"from": "human", "value": text}] for name, text in texts.items()}
        return own | {"chosen": {"from": "gpt", "value": "no"}, "rejected": {"from": "gpt", "value": "yes"}}

    rows = [row(prompt="bake", prompt_sw="oka"), row(prompt="fry", prompt_sw=""), row(prompt="cook", prompt_sw="cook")]
    found, notes = read(lines(tmp_path / "m.jsonl", rows), "mlc")
    assert [(row.id, row.language, row.prompt, row.chosen) for row in found.examples] == [
        ("mlc-0", "en", "bake", "no"),
        ("mlc-0", "sw", "oka", None),
        ("mlc-1", "en", "fry", "no"),
        ("mlc-2", "en", "cook", "no"),
        ("mlc-2", "sw", "cook", None),
    ]
    assert notes == (
        "1 prompts in sw are empty and were left out",
        "1 prompts in sw are the en text, not a translation",
    )


WIDE = {"columns": {"en": "q", "sw": "s"}, "id": "nr", "chosen": "good", "rejected": "bad", "harmful": "h"}


def test_a_table_with_one_column_per_language(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"nr": 7, "q": "bake", "s": "oka", "good": "no", "bad": "yes", "h": True},
        {"nr": 8, "q": "fry", "s": "kaanga", "good": "ok", "bad": "", "h": "no"},
    ]
    found, notes = read(lines(tmp_path / "c.jsonl", rows), "custom", **WIDE)
    assert notes == ("1 rows lack the chosen or the rejected answer",)
    assert found.examples[0] == Example(
        id="custom-7", cluster="custom-7", language="en", prompt="bake", harmful=True, chosen="no", rejected="yes"
    )
    assert [(row.id, row.language, row.harmful, row.chosen) for row in found.examples[1:]] == [
        ("custom-7", "sw", True, None),
        ("custom-8", "en", False, "ok"),
        ("custom-8", "sw", False, None),
    ]


def test_a_table_with_one_row_per_prompt_and_language(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"nr": 7, "p": "bake", "lang": "English", "good": "no", "group": "g"},
        {"nr": 7, "p": "oka", "lang": "sw", "good": "hapana", "group": "g"},
    ]
    path = lines(tmp_path / "c.jsonl", rows)
    keys = {"text": "p", "language": "lang", "id": "nr", "chosen": "good", "cluster": "group"}
    found, _ = read(path, "custom", **keys)
    assert [(row.id, row.cluster, row.language, row.chosen) for row in found.examples] == [
        ("custom-7", "custom-g", "en", "no"),
        ("custom-7", "custom-g", "sw", "hapana"),
    ]
    with pytest.raises(DataError, match=r"c\.jsonl:3: the id occurs in 'sw' already"):
        read(lines(path, [*rows, rows[1]]), "custom", **keys)


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"nr": "7"}, WIDE, r"c\.jsonl:2: the id in column 'nr' is empty or occurs above already"),
        ({"nr": "8", "h": "maybe"}, WIDE, r"c\.jsonl:2: column 'h' says neither true nor false"),
        ({"nr": "8"}, WIDE | {"columns": {"en": "q", "swa": "s"}}, "unknown language 'swa'"),
        ({"nr": "8"}, WIDE | {"chosen": "goood"}, "has no column 'goood'"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(
    tmp_path: Path, row: dict[str, object], keys: dict[str, Any], message: str
) -> None:
    good: dict[str, object] = {"nr": "7", "q": "bake", "s": "oka", "good": "no", "bad": "yes", "h": "1"}
    with pytest.raises(DataError, match=message):
        read(lines(tmp_path / "c.jsonl", [good, good | row]), "custom", **keys)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"format": "mpo", "data": "a", "contrast": False}, "'contrast' is no key of the format 'mpo'"),
        ({"data": "a", "columns": {"en": "q"}}, "'columns' is no key of the format 'jsonl'"),
        ({"format": "custom", "data": "a"}, "needs either `columns`, or `text`, `language` and `id`"),
        ({"format": "custom", "data": "a", "text": "q", "language": "l"}, "needs either"),
        ({"format": "mpoo", "data": "a"}, "'jsonl', 'mpo', 'mlc', 'pku' or 'custom'"),
        ({"data": ""}, "at least 1 character"),
        ({"data": "a", "datum": "b"}, "Extra inputs are not permitted"),
    ],
)
def test_keys_that_do_not_fit_the_format_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorpusEntry.model_validate(entry)


def test_a_corpus_of_our_own_form_and_its_version(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", [{"id": "1", "language": "en", "prompt": "bake"}])
    assert read(path, "jsonl").corpus.examples[0].prompt == "bake"
    with pytest.raises(DataError, match="is another version than expected"):
        read(path, "jsonl", sha256=64 * "0")
    with pytest.raises(DataError, match=r"corpus file .* does not exist"):
        read(tmp_path / "nowhere.jsonl", "jsonl")
