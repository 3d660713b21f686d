"""What MPO refuses, a corpus or a value, and its presets."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlbench_methods.mpo import MPO
from pydantic import ValidationError

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus, Shape
from mlbench.errors import ConfigError, DataError, UserError

from .conftest import trained


def without(corpus: Corpus, language: str, *ids: str, answers_only: bool = False) -> Corpus:
    gone = [row for row in corpus.examples if row.language == language and row.id in ids]
    kept = {row: replace(row, chosen=None, rejected=None) for row in gone} if answers_only else {}
    rows = [kept.get(row, row) for row in corpus.examples if row not in gone or row in kept]
    return replace(corpus, examples=tuple(rows))


@pytest.mark.parametrize("answers_only", [False, True])
def test_a_row_needs_answers_on_both_sides(answers_only: bool) -> None:
    corpus = without(tiny.corpus(), "en", "p0", answers_only=answers_only)
    corpus = without(corpus, "xa", "p2", answers_only=answers_only)
    found = {(row.language, row.id) for row in MPO().targets(corpus)}
    assert found == {("xa", "p4"), ("xb", "p2"), ("xb", "p4"), ("xc", "p2"), ("xc", "p4")}


def test_a_language_without_pairs_is_named_while_the_shootout_is_planned() -> None:
    corpus = without(tiny.corpus(), "xb", "p0", "p2", "p4")
    with pytest.raises(DataError, match="no prompt has chosen and rejected answers both in 'xb' and in 'en'"):
        MPO().check(corpus, None)
    MPO(languages=("xa", "xc")).check(corpus, None)
    MPO(benign=True).check(corpus, None)  # its harmless rows are left


@pytest.mark.parametrize(("language", "reason"), [("xd", "is not in the training corpus"), ("en", "is the pivot")])
def test_a_language_that_is_no_target_is_refused_with_those_that_are(language: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{language}' {reason}\n  allowed: xa, xb, xc"):
        MPO(languages=("xa", language)).check(tiny.corpus(), None)


def test_a_corpus_of_the_pivot_alone_is_refused() -> None:
    with pytest.raises(DataError, match="no target language besides the pivot 'en'"):
        MPO().check(tiny.corpus(languages=("en",)), None)


def test_a_layer_beyond_the_model_is_refused_before_and_at_the_training(refuser: Checkpoint, tmp_path: Path) -> None:
    shape = Shape(layers=2, hidden=32, feed_forward=64)
    for layer in ("last", 2, 0.5):
        MPO(retain_layer=layer).check(tiny.corpus(), shape)
    MPO(retain_layer=3).check(tiny.corpus(), None)
    with pytest.raises(ConfigError, match="retain_layer = 3 is beyond the model, which has 2 layers"):
        MPO(retain_layer=3).check(tiny.corpus(), shape)
    with pytest.raises(UserError, match="layer 3 is not a layer of this model, which has 2"):
        trained(MPO(retain_layer=3), refuser, tmp_path)


@pytest.mark.parametrize("name", sorted(MPO.presets))
def test_presets_are_valid(name: str) -> None:
    preset = MPO.presets[name]
    MPO(**preset.fields)
    tiny.budget(**preset.training)


def test_the_released_budget_reads_600_rows_twice() -> None:
    for name, beta in (("llama3.1", 1.0), ("gemma2", 1.5), ("qwen2.5", 1.5)):
        preset = MPO.presets[name]
        assert preset.fields == {"beta": beta, "retain": "official"}
        assert preset.training["steps"] * preset.training["batch_size"] == 2 * 600


@pytest.mark.parametrize("fields", [{"beta": 0}, {"retain": "mean"}, {"retain_layer": 0}, {"betta": 1.0}])
def test_values_out_of_range_and_misspelt_names_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MPO(**fields)
