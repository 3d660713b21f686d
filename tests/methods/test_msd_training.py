"""MSD inside a training: what it achieves, where its answers come from, what changes nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.mlc import MLC
from mlbench_methods.msd import MSD

from mlbench import tiny
from mlbench.core import Checkpoint, Corpus

from .conftest import weights
from .msd_runs import SHORT, log, prepared, trained


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_identical_contexts_teach_exactly_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    pivot = tuple(row for row in tiny.corpus().examples if row.language == "en")
    only = Corpus(pivot="en", languages=("en",), examples=pivot)
    run = trained(MSD(**SHORT), start, log(tmp_path / "run", lora_rank=lora_rank), only)
    assert [step["msd/divergence"] for step in run.curve] == [0, 0]
    assert [step["grad_norm"] for step in run.curve] == [0, 0]
    assert run.facts["weight_change"] == 0
    assert run.facts["teacher_opening_jsd"] == 0


@pytest.mark.parametrize("policy", ["on", "off"])
@pytest.mark.parametrize("fields", [{}, {"scale": "running_mean"}, {"aggregate": "token", "retention": 0.5}], ids=str)
def test_micro_batches_change_nothing(
    start: Checkpoint, tmp_path: Path, policy: str, fields: dict[str, object]
) -> None:
    method = MSD(policy=policy, max_new_tokens=60, **fields)
    whole = trained(method, start, log(tmp_path / "whole")).curve
    parts = trained(method, start, log(tmp_path / "parts", micro_batch=1)).curve
    assert whole[0]["msd/length"] != round(whole[0]["msd/length"])  # answers of different lengths
    for one, other in zip(whole, parts, strict=True):
        assert set(one) == set(other)
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("policy", ["on", "off"])
def test_equal_seeds_give_equal_weights_and_other_seeds_others(start: Checkpoint, tmp_path: Path, policy: str) -> None:
    method = MSD(policy=policy, **SHORT)
    one, same, other = (
        weights(trained(method, start, log(tmp_path / name, seed))) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same
    assert one != other


def test_off_policy_learns_from_the_stored_answers_whatever_the_seed(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(policy="off", **SHORT)
    first, loaded, _ = prepared(method, start, log(tmp_path / "one", 1, steps=30))  # enough to see all rows
    (file,) = (tmp_path / "shared").iterdir()
    stored, stamp = json.loads(file.read_text()), file.stat().st_mtime_ns
    second, _, _ = prepared(method, start, log(tmp_path / "two", 2, steps=30))
    assert file.stat().st_mtime_ns == stamp
    for objective in (first, second):
        assert {tuple(lesson.answer) for lesson in objective.lessons} == {tuple(answer) for answer in stored.values()}
    # Another hand wrote the file: its tokens are what the loss is computed on.
    file.write_text(json.dumps({name: [70, 71] for name in stored}))
    third, _, _ = prepared(method, start, log(tmp_path / "three", 3, steps=30))
    assert all(lesson.answer == [70, 71] for lesson in third.lessons)
    third(loaded.model, range(2), 0)
    assert set(map(tuple, third.answers.values())) == {(70, 71)}
    assert third.sampled_tokens == 0


def test_on_policy_samples_anew_from_the_student_at_each_step(start: Checkpoint, tmp_path: Path) -> None:
    objective, loaded, _ = prepared(MSD(**SHORT), start, log(tmp_path / "run"))
    objective(loaded.model, range(4), 0)
    before = dict(objective.answers)
    objective.step = -1
    objective(loaded.model, range(4), 0)
    assert objective.answers == before
    other, _, _ = prepared(MSD(**SHORT), start, log(tmp_path / "other", seed=1))
    other.lessons = objective.lessons
    other(loaded.model, range(4), 0)
    assert not any(other.answers[number] == answer for number, answer in before.items())
    with torch.no_grad():  # a student that ends every answer at once
        for weight in loaded.model.parameters():
            weight.zero_()
        loaded.model.model.norm.weight.fill_(1.0)
        loaded.model.model.embed_tokens.weight.fill_(1.0)
        loaded.model.lm_head.weight[loaded.tokenizer.eos_token_id] = 10.0
    objective(loaded.model, range(4, 8), 1)
    assert list(objective.answers.values()) == [[loaded.tokenizer.eos_token_id]] * 4


@pytest.mark.parametrize("name", sorted(MSD.presets))
def test_presets_train_with_lora_and_towards_the_teacher(start: Checkpoint, tmp_path: Path, name: str) -> None:
    method = MSD(**{**MSD.presets[name].fields, "max_new_tokens": 8})
    run = trained(method, start, log(tmp_path / "run", steps=20, lora_rank=4, batch_size=8, learning_rate=1e-2))
    distance = [step["msd/divergence"] for step in run.curve]
    assert np.mean(distance[-5:]) < 0.7 * np.mean(distance[:5])
    assert {"msd/weight_mean", "msd/weight_max", "msd/early_weight_share", "msd/length"} <= set(run.curve[0])
    assert 0 < run.facts["teacher_opening_jsd"] <= math.log(2)
    assert (run.facts["rollout_tokens"] == 0) == (method.policy == "off")


@pytest.mark.parametrize("teacher", ["ema", "live"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_moving_teachers_train(start: Checkpoint, tmp_path: Path, teacher: str, lora_rank: int) -> None:
    method = MSD(teacher=teacher, retention=0.1, **SHORT)
    run = trained(method, start, log(tmp_path / "run", lora_rank=lora_rank, steps=3))
    frozen = trained(MSD(retention=0.1, **SHORT), start, log(tmp_path / "frozen", lora_rank=lora_rank, steps=3))
    losses = [[step["loss"] for step in each.curve] for each in (run, frozen)]
    assert losses[0][0] == losses[1][0]  # all teachers start from the start model
    assert losses[0][2] != losses[1][2]


def test_another_loss_can_be_carried_along(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path / "run")
    seen, mlc = tiny.corpus(), MLC(every=1)
    MSD(**SHORT).align(start, seen, run, side=lambda loaded: mlc.side(loaded, mlc.groups(seen), "en", run))
    assert {"mlc/loss", "msd/divergence"} <= set(run.curve[0])
