"""SimPO against numbers worked out by hand, and inside a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.simpo import SimPO, simpo_loss

from mlbench import models, tiny
from mlbench.core import Checkpoint, Training
from mlbench.corpus import preferences, view
from mlbench.training import fit

torch.set_num_threads(1)


def trained(method: SimPO, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    run = tiny.Log(folder=folder, training=tiny.budget(**changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def means(start: Checkpoint, text: str, row: object) -> float:
    """Return the mean log-probability of an answer and its end, by a forward pass of its own."""
    loaded = models.load(start, device="cpu")
    asked = loaded.tokenizer(f"<bos><|user|>{row.prompt}<eos><|assistant|>", add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]
    ids = torch.tensor(asked + loaded.tokenizer(f"{text}<eos>", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        each = loaded.model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    return each[len(asked) - 1 :].mean().item()


@pytest.mark.parametrize(
    ("chosen", "rejected", "beta", "gamma", "expected"),
    [
        (-1.0, -1.5, 2.0, 1.0, 0.693147),  # 2 (0.5) - 1 = 0: ln 2
        (-1.0, -2.5, 2.0, 1.0, 0.126928),  # 3 - 1 = 2: ln(1 + e^-2)
        (-2.0, -1.0, 2.5, 0.5, 3.048587),  # -2.5 - 0.5 = -3: ln(1 + e^3)
        (-1.0, -1.0, 2.0, 0.0, 0.693147),
    ],
)
def test_loss_by_hand(chosen: float, rejected: float, beta: float, gamma: float, expected: float) -> None:
    found = simpo_loss(torch.tensor([chosen]), torch.tensor([rejected]), beta=beta, gamma=gamma)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_without_a_margin_both_orders_lose_their_difference() -> None:
    # -log sigmoid(x) + log sigmoid(-x) = -x
    chosen, rejected = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    one = simpo_loss(chosen, rejected, beta=2.0, gamma=0.0)
    other = simpo_loss(rejected, chosen, beta=2.0, gamma=0.0)
    torch.testing.assert_close(one - other, -2.0 * (chosen - rejected))


def test_only_the_difference_counts() -> None:
    chosen, rejected = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shifted = simpo_loss(chosen - 7, rejected - 7, beta=2.0, gamma=1.0)
    torch.testing.assert_close(shifted, simpo_loss(chosen, rejected, beta=2.0, gamma=1.0))


def test_gradient_is_finite_far_on_either_side() -> None:
    chosen = torch.tensor([0.0, -500.0], requires_grad=True)
    simpo_loss(chosen, torch.tensor([-500.0, 0.0]), beta=10.0, gamma=1.0).sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [0, -10]


def test_first_loss_is_the_formula_on_separate_forward_passes(start: Checkpoint, tmp_path: Path) -> None:
    method = SimPO(sft_weight=0.5)
    run = trained(method, start, tmp_path, steps=1)
    rows = preferences(view(tiny.corpus(), method.needs), "pivot", benign=True, rejected=True)
    plan = fit.lay_out(rows, run)
    drawn = [plan.rows[index] for index in plan.order]
    better = np.array([means(start, row.chosen or "", row) for row in drawn])
    worse = np.array([means(start, row.rejected or "", row) for row in drawn])
    expected = np.log1p(np.exp(-(2.0 * (better - worse) - 1.0))) - 0.5 * better
    assert run.curve[0]["loss"] == pytest.approx(expected.mean(), abs=1e-5)
    assert run.curve[0]["simpo/margin"] == pytest.approx((2.0 * (better - worse)).mean(), abs=1e-5)
    assert run.curve[0]["simpo/accuracy"] == (better > worse).mean()


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_micro_batches_change_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    whole = trained(SimPO(sft_weight=0.1), start, tmp_path / "whole", batch_size=12, lora_rank=lora_rank)
    parts = trained(SimPO(sft_weight=0.1), start, tmp_path / "parts", batch_size=12, micro_batch=2, lora_rank=lora_rank)
    for one, other in zip(whole.curve, parts.curve, strict=True):
        for name in ("loss", "grad_norm", "simpo/margin", "simpo/accuracy"):
            assert one[name] == pytest.approx(other[name], abs=2e-5), name
    assert whole.facts["tokens"] == parts.facts["tokens"]


def test_training_widens_the_margin(start: Checkpoint, tmp_path: Path) -> None:
    curve = trained(SimPO(), start, tmp_path, steps=15, batch_size=6, learning_rate=3e-3).curve
    assert curve[-1]["simpo/margin"] > curve[0]["simpo/margin"] + 0.5
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_other_languages_are_read_only_on_demand(start: Checkpoint, tmp_path: Path) -> None:
    assert {language for language, *_ in trained(SimPO(), start, tmp_path / "pivot").read} == {"en"}
    everywhere = trained(SimPO(languages="all", benign=False), start, tmp_path / "all", steps=6)
    assert {language for language, *_ in everywhere.read} == set(tiny.LANGUAGES)


def test_presets_are_configurations_of_the_method() -> None:
    for preset in SimPO.presets.values():
        made = SimPO(**preset.fields)
        Training(**preset.training)
        assert 0.25 <= made.gamma <= 1.6
