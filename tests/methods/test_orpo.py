"""ORPO against numbers worked out by hand, and inside a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.orpo import ORPO, log_odds, odds_ratio_loss
from mlbench_methods.sft import SFT

from mlbench import models, tiny
from mlbench.core import Checkpoint, Training
from mlbench.corpus import preferences, view
from mlbench.training import answers, fit

torch.set_num_threads(1)


def trained(method: ORPO | SFT, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


@pytest.mark.parametrize(
    ("probability", "odds"), [(0.5, 1.0), (0.8, 4.0), (0.2, 0.25), (0.99, 99.0), (0.001, 0.001 / 0.999)]
)
def test_log_odds_by_hand(probability: float, odds: float) -> None:
    found = log_odds(torch.tensor([np.log(probability)], dtype=torch.float64))
    assert found.item() == pytest.approx(np.log(odds), rel=1e-9)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (0.8, 0.5, np.log(1 + 1 / 4)),  # odds 4 and 1: -log(4 / 5)
        (0.5, 0.8, np.log(5)),  # -log(1 / 5)
        (0.3, 0.3, np.log(2)),
    ],
)
def test_odds_ratio_loss_by_hand(chosen: float, rejected: float, expected: float) -> None:
    found = odds_ratio_loss(torch.tensor([np.log(chosen)]), torch.tensor([np.log(rejected)]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_loss_and_gradient_equal_the_formula_in_numpy() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.uniform(0.01, 0.99, (2, 40))
    leaf = torch.tensor(np.log(chosen), requires_grad=True)
    found = odds_ratio_loss(leaf, torch.tensor(np.log(rejected)))
    ratio = chosen / (1 - chosen) / (rejected / (1 - rejected))
    np.testing.assert_allclose(found.detach(), np.log(1 + 1 / ratio), rtol=1e-9)
    found.sum().backward()
    # dL / dm_w = - 1 / (1 + ratio) * 1 / (1 - p_w)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad, -1 / (1 + ratio) / (1 - chosen), rtol=1e-9)


def test_swapping_the_answers_turns_the_odds_ratio_around() -> None:
    chosen, rejected = -torch.rand(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.01
    one, other = odds_ratio_loss(chosen, rejected), odds_ratio_loss(rejected, chosen)
    torch.testing.assert_close(one - other, -(log_odds(chosen) - log_odds(rejected)))
    # sigmoid(x) + sigmoid(-x) = 1
    torch.testing.assert_close((-one).exp() + (-other).exp(), torch.ones_like(one))


@pytest.mark.parametrize("mean", [0.0, -1e-9, -1e-7, -1e-5, -20.0, -200.0])
def test_everything_is_finite_where_an_answer_is_certain_or_impossible(mean: float) -> None:
    leaf = torch.tensor([mean, -1.0], requires_grad=True)
    loss = odds_ratio_loss(leaf, leaf.flip(0))
    loss.sum().backward()
    assert leaf.grad is not None
    assert loss.isfinite().all()
    assert leaf.grad.isfinite().all()


def test_float32_agrees_with_float64_close_to_certainty() -> None:
    means = -torch.logspace(-5, 1, 60, dtype=torch.float64)
    torch.testing.assert_close(log_odds(means.float()).double(), log_odds(means), atol=1e-5, rtol=1e-6)


def test_first_loss_is_the_formula_on_the_rows_of_the_step(start: Checkpoint, tmp_path: Path) -> None:
    method = ORPO(weight=0.5)
    run = trained(method, start, tmp_path, steps=1)
    rows = preferences(view(tiny.corpus(), method.needs), "pivot", benign=True, rejected=True)
    plan = fit.lay_out(rows, run)
    drawn = [plan.rows[index] for index in plan.order]
    loaded = models.load(start, device="cpu")
    better, worse = (
        answers.frozen_log_probs(loaded, answers.encode(loaded, drawn, texts, 1024)).means.double().numpy()
        for texts in ([row.chosen or "" for row in drawn], [row.rejected or "" for row in drawn])
    )
    odds = [np.exp(mean) / (1 - np.exp(mean)) for mean in (better, worse)]
    expected = -better + 0.5 * np.log(1 + odds[1] / odds[0])
    assert run.curve[0]["loss"] == pytest.approx(expected.mean(), abs=1e-5)
    assert run.curve[0]["orpo/likelihood"] == pytest.approx(-better.mean(), abs=1e-5)
    assert run.curve[0]["orpo/log_odds_ratio"] == pytest.approx(np.log(odds[0] / odds[1]).mean(), abs=1e-5)


def test_weight_zero_is_fine_tuning_where_answers_are_equally_long(start: Checkpoint, tmp_path: Path) -> None:
    # "en no" and its end for every row: the mean over answers is the mean over tokens
    zero = ORPO(weight=0, benign=False)
    run = trained(zero, start, tmp_path / "orpo", steps=3)
    plain = trained(SFT(benign=False), start, tmp_path / "sft", steps=3)
    assert [step["loss"] for step in run.curve] == pytest.approx([step["loss"] for step in plain.curve], abs=1e-5)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    whole = trained(ORPO(), start, tmp_path / "whole", batch_size=12, lora_rank=lora_rank)
    parts = trained(ORPO(), start, tmp_path / "parts", batch_size=12, micro_batch=2, lora_rank=lora_rank)
    for one, other in zip(whole.curve, parts.curve, strict=True):
        for name in ("loss", "grad_norm", "orpo/likelihood", "orpo/log_odds_ratio", "orpo/accuracy"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name
    assert whole.facts["tokens"] == parts.facts["tokens"]


def test_training_raises_the_odds_of_the_chosen_answer(start: Checkpoint, tmp_path: Path) -> None:
    curve = trained(ORPO(weight=1.0), start, tmp_path, steps=15, batch_size=6, learning_rate=3e-3).curve
    assert curve[-1]["orpo/log_odds_ratio"] > curve[0]["orpo/log_odds_ratio"]
    assert curve[-1]["orpo/likelihood"] < curve[0]["orpo/likelihood"]


def test_presets_are_configurations_of_the_method() -> None:
    for preset in ORPO.presets.values():
        ORPO(**preset.fields)
        Training(**preset.training)
