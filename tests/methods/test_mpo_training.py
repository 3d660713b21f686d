"""MPO inside a training: what is logged and read, what it achieves, what changes nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.mpo import MPO

from mlbench import models, tiny
from mlbench.core import Checkpoint, Example
from mlbench.corpus import view
from mlbench.training import answers
from mlbench.training.side import Side, Terms

from .conftest import trained, weights
from .mpo_runs import FORMS, pivot_of


@pytest.mark.parametrize("length_normalised", [True, False])
def test_the_first_logged_loss_is_that_of_the_start_models_answers(
    refuser: Checkpoint, tmp_path: Path, length_normalised: bool
) -> None:
    # 18 rows (6 prompts in 3 target languages), all of them in the first step, so that their order is no matter.
    method = MPO(beta=1.5, length_normalised=length_normalised, benign=True)
    run = trained(method, refuser, tmp_path, batch_size=18)
    loaded = models.load(refuser, device="cpu")
    corpus = tiny.corpus()

    def gap(row: Example) -> float:
        scores = []
        for text in (row.chosen, row.rejected):
            found = answers.frozen_log_probs(loaded, answers.encode(loaded, [row], [text or ""], 100))
            scores.append((found.sums / (found.tokens if length_normalised else 1)).item())
        return scores[0] - scores[1]

    rows = [row for row in corpus.examples if row.language != "en"]
    target = np.array([gap(row) for row in rows])
    pivot = np.array([gap(pivot_of(corpus, row)) for row in rows])
    first = run.curve[0]
    assert len(rows) == 18
    assert first["mpo/target_gap"] == pytest.approx(target.mean(), rel=1e-4)
    assert first["mpo/pivot_gap"] == pytest.approx(pivot.mean(), rel=1e-4)
    assert first["mpo/gap_loss"] == pytest.approx(((1.5 * target - pivot) ** 2).mean(), rel=1e-4)
    assert first["loss"] == pytest.approx(first["mpo/gap_loss"], rel=1e-6)
    assert run.facts["pivot_gap"] == pytest.approx(pivot.mean(), rel=1e-4)  # each pivot row has three targets
    assert 0 < run.facts["pivot_gap_negative"] < 1
    assert run.facts["pivot_gap_negative"] == pytest.approx((pivot <= 0).mean())


def test_lora_starts_from_the_same_losses_as_full_fine_tuning(refuser: Checkpoint, tmp_path: Path) -> None:
    full = trained(MPO(), refuser, tmp_path / "full").curve[0]
    lora = trained(MPO(), refuser, tmp_path / "lora", lora_rank=4).curve[0]
    for name in ("loss", "mpo/target_gap", "mpo/pivot_gap", "mpo/gap_loss"):
        assert lora[name] == pytest.approx(full[name], abs=1e-6), name
    assert lora["mpo/retain_loss"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_micro_batches_change_nothing(refuser: Checkpoint, tmp_path: Path, form: str) -> None:
    whole = trained(MPO(retain=form), refuser, tmp_path / "whole", micro_batch=4).curve
    parts = trained(MPO(retain=form), refuser, tmp_path / "parts", micro_batch=1).curve
    assert whole[-1]["mpo/retain_loss"] > 0
    for one, other in zip(whole, parts, strict=True):
        for name in ("loss", "grad_norm", "mpo/target_gap", "mpo/pivot_gap", "mpo/gap_loss", "mpo/retain_loss"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name


@pytest.mark.parametrize("form", FORMS)
def test_one_seed_writes_the_same_tensors(refuser: Checkpoint, tmp_path: Path, form: str) -> None:
    first, second = (trained(MPO(retain=form), refuser, tmp_path / name) for name in ("first", "second"))
    assert weights(first) == weights(second)
    assert first.curve == second.curve


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_training_brings_the_targets_gap_to_the_pivots(refuser: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    run = trained(MPO(), refuser, tmp_path, steps=30, batch_size=9, lora_rank=lora_rank)
    first, last = run.curve[0], run.curve[-1]
    assert first["mpo/target_gap"] < last["mpo/target_gap"]
    assert last["mpo/gap_loss"] < 0.02 * first["mpo/gap_loss"]
    assert last["loss"] == pytest.approx(last["mpo/gap_loss"] + last["mpo/retain_loss"], abs=1e-4)


def test_only_harmful_answers_are_read_unless_benign_ones_are_asked_for(refuser: Checkpoint, tmp_path: Path) -> None:
    harmful, every = {"p0", "p2", "p4"}, {f"p{index}" for index in range(6)}
    for benign, ids in ((False, harmful), (True, every)):
        run = trained(MPO(benign=benign), refuser, tmp_path / str(benign), batch_size=18)
        assert run.read == {(language, id, True) for language in tiny.LANGUAGES for id in ids}


def test_named_languages_are_the_only_targets(refuser: Checkpoint, tmp_path: Path) -> None:
    run = trained(MPO(languages=("xc",)), refuser, tmp_path)
    assert {language for language, _, _ in run.read} == {"en", "xc"}


def test_another_loss_can_be_added(refuser: Checkpoint, tmp_path: Path) -> None:
    def size(model: torch.nn.Module, items: Sequence[int]) -> Terms:
        return Terms(model.get_input_embeddings().weight.square().sum(), {}, 0)

    method, run = MPO(), tiny.Log(folder=tmp_path / "both", training=tiny.budget())
    side = Side(name="size", weight=0.5, items=lambda step: [0], loss=size)
    method.align(refuser, view(tiny.corpus(), method.needs), run, side=lambda loaded: side)
    alone = trained(method, refuser, tmp_path / "alone").curve[0]
    first = run.curve[0]
    assert first["size/loss"] > 0.1
    assert first["mpo/gap_loss"] == pytest.approx(alone["mpo/gap_loss"], abs=1e-6)
    assert first["loss"] == pytest.approx(alone["loss"] + 0.5 * first["size/loss"], abs=1e-5)
