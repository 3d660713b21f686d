"""The training corpus: what a method sees of it, what it lacks, what leaves it, and how a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlbench import corpus, similarity, tiny
from mlbench.core import Corpus, Example, Prompt
from mlbench.errors import DataError

SMALL = tiny.corpus(4, ("en", "xa"))


def seen(found: Corpus) -> set[tuple[str, bool, bool]]:
    """Return (language, harmful, whether answers are visible) of all rows."""
    return {(row.language, row.harmful, row.chosen is not None) for row in found.examples}


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (set(), {("en", True, False)}),
        ({"pivot_preferences"}, {("en", True, True)}),
        ({"parallel_prompts"}, {("en", True, False), ("xa", True, False)}),
        ({"pivot_preferences", "parallel_prompts"}, {("en", True, True), ("xa", True, False)}),
        ({"target_preferences"}, {("en", True, False), ("xa", True, True)}),
        ({"pivot_preferences", "benign_prompts"}, {("en", True, True), ("en", False, True)}),
    ],
)
def test_a_view_holds_what_the_needs_name_and_nothing_else(needs: set[str], expected: set[object]) -> None:
    assert seen(corpus.view(SMALL, needs)) == expected  # type: ignore[arg-type]


def test_a_corpus_lacks_nothing_that_it_has() -> None:
    needs = ("pivot_preferences", "parallel_prompts", "target_preferences", "benign_prompts")
    assert corpus.lacks(SMALL, needs) == []
    assert len(corpus.lacks(corpus.empty("en"), needs)) == 4


def test_restricting_puts_the_pivot_first_and_drops_other_languages() -> None:
    found = corpus.restrict(tiny.corpus(2, ("en", "xa", "xb")), "en", ["xb", "en", "xz"])
    assert found.languages == ("en", "xb")
    assert {row.language for row in found.examples} == {"en", "xb"}


def prompt(text: str) -> Prompt:
    return Prompt(id="e", cluster="e", language="en", text=text)


def test_a_source_prompt_goes_when_any_of_its_translations_is_asked() -> None:
    cleaned = corpus.decontaminate(
        SMALL, {"task": [prompt("  XA bad... 2 ")], "other": [prompt("something else")]}, near=False
    )
    assert cleaned.overlaps == {"task": ("p2",)}
    assert {row.id for row in cleaned.corpus.examples} == {"p0", "p1", "p3"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How to, do it?", "how TO do it", True),
        ("ｆｕｌｌ width", "full width", True),
        ("e\N{COMBINING ACUTE ACCENT}te", "été"[0] + "te", True),
        ("কি", "কে", False),  # two Bengali words that differ by a vowel sign, which is a mark
        ("do it", "do that", False),
    ],
)
def test_prompts_are_compared_without_case_and_punctuation(one: str, other: str, same: bool) -> None:
    assert (similarity.normalise(one) == similarity.normalise(other)) is same


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    rows = (replace(SMALL.examples[0], prompt='quotes " and \u2028 separators \x85 and é'), *SMALL.examples[1:])
    odd = replace(SMALL, examples=rows)
    corpus.write_jsonl(odd, tmp_path / "c.jsonl")
    assert replace(corpus.read_jsonl(tmp_path / "c.jsonl", "en"), names={}) == odd
    assert corpus.digest(odd) != corpus.digest(SMALL)


def test_languages_are_called_what_the_pivot_calls_them() -> None:
    assert corpus.language_names(["bn", "jv", "zh-Hant", "xx"], "en") == {
        "bn": "Bangla", "jv": "Javanese", "zh-Hant": "Traditional Chinese"
    }  # fmt: skip
    assert corpus.language_names(["en"], "zh") == {"en": "英语"}
    assert corpus.language_names(["en"], "nowhere") == {}


def test_only_id_language_and_prompt_are_required_and_zero_is_an_id(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": 0, "language": "en", "prompt": "do it"}\n\n', encoding="utf-8")
    found = corpus.read_jsonl(tmp_path / "c.jsonl", "en")
    assert found.examples == (Example(id="0", cluster="0", language="en", prompt="do it", harmful=True),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ({"language": "en", "prompt": "x"}, "column 'id' is missing or empty"),
        ({"id": "a", "language": "en", "prompt": ""}, "column 'prompt' is missing or empty"),
        ({"id": "a", "language": "en", "prompt": "x", "chosn": "y"}, "unknown column 'chosn'"),
        ({"id": "a", "language": "en", "prompt": 3}, "column 'prompt' holds 3, which is not text"),
        ({"id": "a", "language": "en", "prompt": "x", "harmful": "false"}, "column 'harmful' holds 'false'"),
        ({"id": "p", "language": "en", "prompt": "again"}, "id 'p' occurs twice in 'en'"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path, row: object, message: str) -> None:
    good = json.dumps({"id": "p", "language": "en", "prompt": "x", "harmful": False, "cluster": None})
    bad = row if isinstance(row, str) else json.dumps(row)
    (tmp_path / "c.jsonl").write_text(f"{good}\n{bad}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        corpus.read_jsonl(tmp_path / "c.jsonl", "en")
    assert str(caught.value).startswith(f"{tmp_path / 'c.jsonl'}:2: {message}")


def test_a_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": 1, "language": "en", "prompt": "x", "chosn": "y"}', encoding="utf-8")
    with pytest.raises(DataError, match="did you mean 'chosen'"):
        corpus.read_jsonl(tmp_path / "c.jsonl", "en")


def test_a_file_that_is_missing_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        corpus.read_jsonl(tmp_path / "none.jsonl", "en")
    (tmp_path / "c.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(DataError, match="is not UTF-8: byte 8"):
        corpus.read_jsonl(tmp_path / "c.jsonl", "en")
