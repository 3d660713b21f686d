"""The prompts that MLC compares: which rows and languages, and what a corpus must have."""

from pathlib import Path

import numpy as np
import pytest
from mlbench_methods.mlc import MLC

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus, Shape
from mlbench.corpus import view
from mlbench.errors import ConfigError, DataError

from .conftest import trained


def without(corpus: Corpus, *gone: tuple[str, str]) -> Corpus:
    rows = tuple(row for row in corpus.examples if (row.language, row.id) not in gone)
    return Corpus(pivot=corpus.pivot, languages=corpus.languages, examples=rows)


def test_harmless_prompts_take_part_only_where_benign_says_so() -> None:
    assert {group["en"].id for group in MLC(benign=False).groups(tiny.corpus())} == {"p0", "p2", "p4"}
    assert "benign_prompts" not in MLC(benign=False, base_with={"benign": False}).needs
    assert "benign_prompts" in MLC(benign=False).needs  # DPO mixes them in


def test_answers_in_other_languages_are_not_read(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MLC(), start, tmp_path, steps=8)
    assert {language for language, _, answers in run.read if answers} == {"en"}
    assert {language for language, _, answers in run.read if not answers} == set(tiny.LANGUAGES)


def test_one_target_per_step_is_the_pivot_and_one_more(tmp_path: Path) -> None:
    method = MLC(languages_per_step=1)
    run = tiny.Log(folder=tmp_path, training=tiny.budget(steps=20))
    batches = method.batches(method.groups(tiny.corpus()), "en", run)
    assert len(batches) == 10  # every second step
    assert {len(prompt) for batch in batches for prompt in batch} == {2}
    assert {prompt[0].language for batch in batches for prompt in batch} == {"en"}
    assert {prompt[1].language for batch in batches for prompt in batch} == {"xa", "xb", "xc"}


def test_a_ragged_corpus_gives_each_prompt_its_own_number_of_languages(start: Checkpoint, tmp_path: Path) -> None:
    corpus = without(tiny.corpus(), ("xa", "p0"), ("xb", "p0"), ("xc", "p1"))
    method = MLC(every=1)
    sizes = {len(group) for group in method.groups(corpus)}
    assert sizes == {2, 3, 4}
    run = tiny.Log(folder=tmp_path, training=tiny.budget())
    method.align(start, view(corpus, method.needs), run)
    assert all(np.isfinite(step["mlc/loss"]) for step in run.curve)


def test_planning_refuses_a_layer_beyond_the_model_and_a_language_without_prompts() -> None:
    shape = Shape(layers=2, hidden=32, feed_forward=64)
    corpus = view(tiny.corpus(), MLC().needs)
    MLC(layer=2).check(corpus, shape)
    MLC(layer=12).check(corpus, None)
    with pytest.raises(ConfigError, match="layer 12 is not a layer of this model, which has 2"):
        MLC(layer=12).check(corpus, shape)
    with pytest.raises(DataError, match="no prompt in 'xb'"):
        MLC().check(without(corpus, *(("xb", f"p{index}") for index in range(6))), shape)
    with pytest.raises(DataError, match="layer: auto compares prompts"):
        MLC(layer="auto").check(tiny.corpus(1), shape)


def test_a_language_without_parallel_prompts_is_named(start: Checkpoint) -> None:
    corpus = without(tiny.corpus(), *(("xb", f"p{index}") for index in range(6)))
    with pytest.raises(DataError, match="no prompt in 'xb' is a translation"):
        MLC().groups(corpus)
