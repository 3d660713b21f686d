"""System prompts: which text goes to which language, what is refused, and that the model really reads it."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlbench_methods.prompt import SAFE_PROMPT, SAFETY, SystemPrompt, join
from pydantic import ValidationError

from mlbench import models, tiny
from mlbench.core import Checkpoint, Corpus
from mlbench.errors import ConfigError, DataError
from mlbench.results import guards

NOTHING = Corpus(pivot="en", languages=("en",), examples=())
LANGUAGES = set("en zh it vi ar ko th bn sw jv ja ru ur fr es de hi id he tr ps ku ckb fa pt".split())  # noqa: SIM905


def prompted(start: Checkpoint, folder: Path, pivot: str = "en", **fields: object) -> tuple[Checkpoint, tiny.Log]:
    run = tiny.Log(folder=folder)
    return SystemPrompt(**fields).align(start, replace(NOTHING, pivot=pivot), run), run


def test_safe_prompt_is_one_english_text_for_every_language(start: Checkpoint, tmp_path: Path) -> None:
    result, run = prompted(start, tmp_path)
    assert result == replace(start, system_prompts={"*": SAFE_PROMPT})
    assert "think in English" in SAFE_PROMPT
    assert run.facts == {"weight_change": 0.0}
    assert not run.read


def test_the_text_stands_before_the_request_in_the_chat_template(start: Checkpoint, tmp_path: Path) -> None:
    result, _ = prompted(start, tmp_path, text="custom", custom={"xa": "Be kind.", "*": "Be safe."})
    loaded = models.load(result, device="cpu")
    for language, text in (("xa", "Be kind."), ("en", "Be safe.")):
        expected = f"<bos><|system|>{text}<eos><|user|>hi<eos><|assistant|>"
        assert models.render(loaded, "hi", language) == expected


def test_no_guard_takes_it_for_a_training_that_changed_nothing(start: Checkpoint, tmp_path: Path) -> None:
    place = {"kind": "align", "status": "done", "model": "organism", "seed": 0}
    cost = {"weight_change": 0.0, "steps": None, "trainable_parameters": None}
    mine = place | {"method": "prompt"} | cost | prompted(start, tmp_path)[1].facts
    idle = place | {"method": "sft"} | cost | {"steps": 60}
    assert [text.split()[0] for text in guards._unchanged(pd.DataFrame([mine, idle]))] == ["sft"]


def test_the_users_language_has_a_translation_and_falls_back_to_english(start: Checkpoint, tmp_path: Path) -> None:
    result, run = prompted(start, tmp_path, text="safety", language="user")
    assert result.system_prompts["sw"] == SAFETY["sw"]
    assert result.system_prompts["*"] == SAFETY["en"]
    assert str(run.facts["untranslated"]).startswith("all languages but ar, bn, ckb")


def test_the_pivots_language_goes_to_everyone(start: Checkpoint, tmp_path: Path) -> None:
    chinese, run = prompted(start, tmp_path / "zh", pivot="zh", text="safety")
    assert chinese.system_prompts == {"*": SAFETY["zh"]}
    assert "untranslated" not in run.facts
    unknown, run = prompted(start, tmp_path / "xa", pivot="xa", text="safety")
    assert unknown.system_prompts == {"*": SAFETY["en"]}
    assert run.facts["untranslated"] == "xa"


SCRIPTS = {"zh": "CJK", "ar": "ARABIC", "ko": "HANGUL", "th": "THAI", "bn": "BENGALI", "ru": "CYRILLIC", "ur": "ARABIC"}
SCRIPTS |= {"hi": "DEVANAGARI", "he": "HEBREW", "ps": "ARABIC", "ku": "ARABIC", "ckb": "ARABIC", "fa": "ARABIC"}


def test_each_language_has_its_own_text_in_its_own_script() -> None:
    assert set(SAFETY) == LANGUAGES
    assert len(set(SAFETY.values())) == len(LANGUAGES) - 1  # "ckb" and "ku" are one
    for language, text in SAFETY.items():
        names = [unicodedata.name(letter) for letter in text if letter.isalpha()]
        expected = SCRIPTS.get(language, "LATIN")
        if language == "ja":
            assert any(name.startswith("HIRAGANA") for name in names)
        else:
            assert all(name.startswith(expected) for name in names), language
        assert unicodedata.is_normalized("NFC", text), language


def test_a_prompt_that_is_there_already_comes_first() -> None:
    # x: both name it. y: only the first, so it gets the second's default. z: only the second.
    before = {"x": "old x", "y": "old y", "*": "old"}
    after = {"x": "new x", "z": "new z", "*": "new"}
    assert join(before, after) == {
        "x": "old x\n\nnew x",
        "y": "old y\n\nnew",
        "z": "old\n\nnew z",
        "*": "old\n\nnew",
    }
    assert join({"x": "old x"}, {"y": "new y"}) == {"x": "old x", "y": "new y"}


def test_a_second_prompt_is_added_to_the_first(start: Checkpoint, tmp_path: Path) -> None:
    first, _ = prompted(start, tmp_path / "one", text="custom", custom={"*": "Be brief."})
    second, _ = prompted(first, tmp_path / "two")
    assert second.system_prompts == {"*": f"Be brief.\n\n{SAFE_PROMPT}"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "custom"}, "needs `custom`"),
        ({"text": "safety", "custom": {"*": "x"}}, "`custom` is not read with `text: safety`"),
        ({"language": "user"}, "there are no translations of 'safe_prompt'"),
        ({"text": "custom", "custom": {"*": "x"}, "language": "user"}, "there are no translations of 'custom'"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SystemPrompt(**fields).check(NOTHING, None)


@pytest.mark.parametrize("fields", [{"text": "safe"}, {"custom": {"*": ""}}, {"langauge": "user"}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SystemPrompt(**fields)


REFUSES = "{% for turn in messages %}{% if turn.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
DROPS = "{% for turn in messages if turn.role != 'system' %}"


@pytest.mark.parametrize(("opening", "message"), [(REFUSES, "no system role"), (DROPS, "leaves the system prompt out")])
def test_a_chat_template_without_a_system_turn_is_refused(tmp_path: Path, opening: str, message: str) -> None:
    start = tiny.model(tmp_path / "model")
    words = tiny.tokenizer()
    words.chat_template = opening + "{{ turn.content }}{% endfor %}"
    words.save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match=message):
        prompted(start, tmp_path / "run")


@pytest.mark.parametrize("preset", ["safe-prompt", "safety", "safety-user-language"])
def test_presets_are_valid(preset: str) -> None:
    SystemPrompt(**SystemPrompt.presets[preset].fields).check(NOTHING, None)
