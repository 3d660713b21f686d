"""The prompts that MSD reads, and what a corpus must have."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlbench_methods.msd import MSD

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus
from mlbench.errors import DataError

from .msd_runs import SHORT, log, prepared, trained


def test_the_share_of_benign_prompts_and_of_languages_is_exact(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps=10, batch_size=8)
    for share, pivot_rows, languages in ((0.25, True, 4), (0.0, False, 3), (1.0, True, 4)):
        rows = MSD(benign_share=share, pivot_rows=pivot_rows).rows(tiny.corpus(), run)
        assert len(rows) == 80
        assert sum(not row.harmful for row in rows) == round(80 * share)
        counts = [sum(row.language == language for row in rows) for language in tiny.LANGUAGES]
        assert sum(count > 0 for count in counts) == languages
        assert max(count for count in counts if count) - min(count for count in counts if count) <= 2
        assert pivot_rows or counts[0] == 0


def test_retention_reads_benign_prompts_of_the_other_languages(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps=20)
    prepared(MSD(retention=1.0, benign_share=0.0, **SHORT), start, run)
    benign = {(language, id) for language, id, _ in run.read if id in ("p1", "p3", "p5")}
    assert benign == {(language, id) for language in ("xa", "xb", "xc") for id in ("p1", "p3", "p5")}


def test_no_answer_is_read_and_the_pivots_prompts_are_reported(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MSD(pivot_rows=False, **SHORT), start, log(tmp_path / "run", steps=12))
    assert {answers for _, _, answers in run.read} == {False}
    assert {language for language, _, _ in run.read} == set(tiny.LANGUAGES)
    assert MSD(benign_share=0.0).needs == {"parallel_prompts"}
    assert MSD(benign_share=0.0, retention=1.0).needs == {"parallel_prompts", "benign_prompts"}


def without(language: str, *, harmful: bool) -> Corpus:
    corpus = tiny.corpus()
    rows = tuple(row for row in corpus.examples if row.language != language or row.harmful != harmful)
    return replace(corpus, examples=rows)


def test_a_corpus_that_lacks_prompts_is_refused_with_the_language() -> None:
    with pytest.raises(DataError, match="no harmful prompt in 'xb' that is a translation of one in 'en'"):
        MSD().check(without("xb", harmful=True), None)
    with pytest.raises(DataError, match="no benign prompt in 'xc'"):
        MSD().check(without("xc", harmful=False), None)
    MSD(benign_share=0.0).check(without("xc", harmful=False), None)
    # Translations of nothing: the teacher has no prompt.
    apart = tuple(replace(row, id=f"{row.language}-{row.id}") for row in tiny.corpus().examples)
    with pytest.raises(DataError, match="no harmful prompt in 'xa'"):
        MSD().check(replace(tiny.corpus(), examples=apart), None)
    MSD(context="type_conditional", cot="none").check(replace(tiny.corpus(), examples=apart), None)


def test_a_prompt_that_leaves_no_room_is_named(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="max_length = 14"):
        trained(MSD(cot="none", answer_instruction="{prompt}!", **SHORT), start, log(tmp_path / "run", max_length=14))
