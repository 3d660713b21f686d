"""SDRRL: which pairs it makes of the model's own answers, and that it reads none of the corpus's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlbench_methods import sdrrl
from mlbench_methods.sdrrl import SDRRL, own_answers
from pydantic import ValidationError

from mlbench import models, tiny, training
from mlbench.core import Answer, Checkpoint, Corpus, Prompt
from mlbench.corpus import preferences, view
from mlbench.errors import ConfigError, DataError

torch.set_num_threads(1)

SEEN = view(tiny.corpus(), SDRRL().needs)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "cache"))  # remembers hashes of model files


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a random model taught to answer the pivot shortly, so that its answers end."""
    folder = tmp_path_factory.mktemp("start")
    run = tiny.Log(folder=folder / "taught", training=tiny.budget(steps=60, batch_size=6, learning_rate=1e-2))
    rows = preferences(tiny.corpus(), "pivot", benign=True, rejected=False)
    return training.sft(tiny.model(folder / "random"), rows, run)


def answered(method: SDRRL, start: Checkpoint, folder: Path, **changes: int) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def pairs(method: SDRRL, corpus: Corpus = SEEN) -> list[tuple[str, str, str | None]]:
    answers = {"p0": "no", "p1": "yes"}
    return [(row.language, row.id, row.chosen) for row in method.rows(corpus, answers)]


def test_every_prompt_is_paired_with_the_pivot_answer_to_it() -> None:
    assert pairs(SDRRL(languages=("xb",))) == [
        ("en", "p0", "no"),
        ("en", "p1", "yes"),
        ("xb", "p0", "no"),
        ("xb", "p1", "yes"),
    ]
    assert pairs(SDRRL(pairs=("pivot",))) == [("en", "p0", "no"), ("en", "p1", "yes")]
    assert [language for language, _, _ in pairs(SDRRL(pairs=("cross",)))] == ["xa", "xa", "xb", "xb", "xc", "xc"]


def test_no_answer_of_the_corpus_is_visible_or_read(start: Checkpoint, tmp_path: Path) -> None:
    assert all(row.chosen is None and row.rejected is None for row in SEEN.examples)
    run = answered(SDRRL(), start, tmp_path, steps=8)
    assert {answers for _, _, answers in run.read} == {False}
    assert {language for language, _, _ in run.read} == set(tiny.LANGUAGES)


def test_it_trains_on_what_the_start_model_says(start: Checkpoint, tmp_path: Path) -> None:
    run = answered(SDRRL(), start, tmp_path, steps=20, learning_rate=5e-3)
    prompts = [Prompt(id=row.id, cluster=row.id, language="en", text=row.prompt) for row in SEEN.rows("en")]
    said = models.generate(models.load(start, device="cpu"), prompts, max_new_tokens=256)
    assert run.facts["own_answers"] == 6
    assert run.facts["own_answers_dropped"] == 0
    assert run.facts["own_answer_tokens"] == sum(answer.tokens for answer in said)
    assert run.curve[-1]["loss"] < run.curve[0]["loss"] / 2


def test_pivot_pairs_alone_change_less_than_cross_pairs(start: Checkpoint, tmp_path: Path) -> None:
    # A greedy answer is what the model finds likely already.
    first = {
        name: answered(SDRRL(pairs=(name,)), start, tmp_path / name).curve[0]["loss"] for name in ("pivot", "cross")
    }
    assert first["pivot"] < first["cross"]


def test_empty_and_cut_off_answers_are_left_out_and_counted(
    start: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [Prompt(id=row.id, cluster=row.id, language="en", text=row.prompt) for row in SEEN.rows("en")]
    texts = ["", "cut", "whole", "", "whole", "whole"]
    given = [
        Answer(prompt=prompt, text=text, tokens=len(text), truncated=text == "cut")
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    monkeypatch.setattr(sdrrl, "own_answers", lambda *_: given)
    run = answered(SDRRL(), start, tmp_path, steps=8)
    assert (run.facts["own_answers"], run.facts["own_answers_dropped"]) == (3, 3)
    # The pivot's prompts were all asked; trained on are p2, p4 and p5 and their translations.
    assert {id for language, id, _ in run.read if language != "en"} == {"p2", "p4", "p5"}


def test_a_model_that_never_ends_is_refused(tmp_path: Path) -> None:
    random = tiny.model(tmp_path / "random")
    with pytest.raises(DataError, match="0 of the start model's 6 own answers are whole"):
        answered(SDRRL(max_new_tokens=4), random, tmp_path / "run")


def test_own_answers_are_computed_once_per_model_prompts_and_limit(
    start: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = SEEN.rows("en")
    first = own_answers(start, rows, 64, tmp_path)
    asked: list[int] = []

    def generate(loaded: models.Loaded, prompts: list[Prompt], **_: object) -> list[Answer]:
        asked.append(len(prompts))
        return [Answer(prompt=prompt, text="new") for prompt in prompts]

    monkeypatch.setattr(models, "generate", generate)
    assert own_answers(start, rows, 64, tmp_path) == first
    assert asked == []
    own_answers(start, rows, 65, tmp_path)
    own_answers(start, rows[:4], 64, tmp_path)
    own_answers(replace(start, system_prompts={"*": "x"}), rows, 64, tmp_path)
    other = tiny.model(tmp_path / "other", seed=1)
    own_answers(replace(other, adapters=start.adapters), rows, 64, tmp_path)
    assert asked == [6, 4, 6, 6]


def test_weights_written_over_are_another_model(tmp_path: Path) -> None:
    rows = SEEN.rows("en")[:1]
    folder = tmp_path / "model"
    before = own_answers(tiny.model(folder), rows, 8, tmp_path)
    after = own_answers(tiny.model(folder, seed=1), rows, 8, tmp_path)
    assert len(list(tmp_path.glob("own-answers-*.json"))) == 2
    assert before != after


def test_benign_prompts_are_asked_only_where_they_take_part(start: Checkpoint, tmp_path: Path) -> None:
    method = SDRRL(benign=False)
    assert method.needs == {"parallel_prompts"}
    run = tiny.Log(folder=tmp_path, training=tiny.budget())
    method.align(start, SEEN, run)  # with more than it asked for
    assert {id for _, id, _ in run.read} == {"p0", "p2", "p4"}


def test_a_language_that_is_no_target_is_refused() -> None:
    for language in ("en", "fr"):
        with pytest.raises(ConfigError, match=f"{language!r} is not a target language"):
            SDRRL(languages=(language,)).check(SEEN, None)


def test_a_target_language_without_translations_is_refused() -> None:
    rows = tuple(replace(row, id=f"own-{row.id}") if row.language == "xb" else row for row in SEEN.examples)
    with pytest.raises(DataError, match="no prompt in 'xb' is a translation"):
        SDRRL().check(replace(SEEN, examples=rows), None)


@pytest.mark.parametrize("fields", [{"pairs": ()}, {"pairs": ("both",)}, {"max_new_tokens": 0}, {"lanugages": "all"}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SDRRL(**fields)


@pytest.mark.parametrize("preset", ["pivot-only", "cross-only"])
def test_presets_are_valid(preset: str) -> None:
    SDRRL(**SDRRL.presets[preset].fields).check(SEEN, None)
