"""The loss of MSD on a model, against the divergence written out here."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.msd import MSD
from torch.nn.functional import kl_div

from mlbench import models
from mlbench.core import Checkpoint
from mlbench.training.distil import Distillation

from .msd_runs import SHORT, log, move_apart, prepared


def by_hand(loaded: models.Loaded, objective: Distillation, numbers: range, kind: str) -> float:
    """Return the plain mean divergence, one answer at a time, teacher and student being one model."""
    means = []
    for number in numbers:
        lesson, answer = objective.lessons[number], objective.answers[number]
        with torch.no_grad():
            student, teacher = (
                loaded.model(input_ids=torch.tensor([[*prompt, *answer]]))
                .logits[0, len(prompt) - 1 : -1]
                .log_softmax(-1)
                for prompt in (lesson.student, lesson.teacher)
            )
        pair = (student, teacher) if kind == "forward_kl" else (teacher, student)
        means.append(kl_div(*pair, log_target=True, reduction="sum").item() / len(answer))
    return float(np.mean(means))


@pytest.mark.parametrize("policy", ["on", "off"])
@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl"])
def test_without_weights_the_loss_is_the_plain_mean_divergence(
    start: Checkpoint, tmp_path: Path, policy: str, kind: str
) -> None:
    method = MSD(policy=policy, divergence=kind, weighting="none", **SHORT)
    objective, loaded, _ = prepared(method, start, log(tmp_path / "run"))
    terms = objective(loaded.model, range(4), 0)
    expected = by_hand(loaded, objective, range(4), kind)
    assert expected > 1e-4
    assert terms.loss.item() == pytest.approx(expected, rel=1e-3)
    assert terms.values["msd/divergence"] == pytest.approx(expected, rel=1e-3)
    assert terms.values["msd/weight_mean"] == 1


def test_weights_multiply_the_divergence_and_carry_no_gradient(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(weighting="student", **SHORT)
    objective, loaded, _ = prepared(method, start, log(tmp_path / "run"))
    move_apart(loaded)
    terms = objective(loaded.model, range(4), 0)
    terms.loss.backward()
    found = {name: weight.grad.clone() for name, weight in loaded.model.named_parameters()}
    # The same with the weights computed beforehand, as numbers.
    loaded.model.zero_grad()
    parts = []
    for number in range(4):
        answers, student, teacher, _ = objective._score(loaded.model, [number])
        numbers = torch.tensor(method.weigh(student.detach(), teacher, answers).tolist())
        each = kl_div(teacher, student, log_target=True, reduction="none").sum(-1)
        parts.append((numbers * each).mean())
    torch.stack(parts).mean().backward()
    assert terms.loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)
    for name, weight in loaded.model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=2e-6, rtol=1e-3)
        assert found[name].abs().max() > 1e-4


def test_running_mean_weights_have_mean_one_and_a_cap_holds(start: Checkpoint, tmp_path: Path) -> None:
    fields = {"weighting": "student", "aggregate": "token", **SHORT}
    literal, loaded, _ = prepared(MSD(**fields), start, log(tmp_path / "run"))
    scaled, _, _ = prepared(MSD(scale="running_mean", **fields), start, log(tmp_path / "run"))
    one, other = literal(loaded.model, range(4), 0), scaled(loaded.model, range(4), 0)
    raw = [
        weight
        for number in range(4)
        for answers, student, teacher, _ in [literal._score(loaded.model, [number])]
        for weight in MSD(**fields).weigh(student, teacher, answers).tolist()
    ]
    assert scaled.mean.value == pytest.approx(np.mean(raw))
    assert other.loss.item() == pytest.approx(one.loss.item() / np.mean(raw), rel=1e-4)
    capped, _, _ = prepared(MSD(cap=0.25, **fields), start, log(tmp_path / "run"))
    assert capped(loaded.model, range(4), 0).values["msd/weight_max"] == 0.25


def test_retention_starts_at_zero_and_is_the_forward_kl_from_the_start_model(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(retention=2.0, benign_share=0.0, **SHORT)
    run = log(tmp_path / "run")
    objective, loaded, _ = prepared(method, start, run)
    assert objective(loaded.model, range(4), 0).values["msd/retention"] == 0
    reference = models.load(start, device="cpu").model
    move_apart(loaded)
    terms = objective(loaded.model, range(4), 0)
    means = []
    for lesson in objective.lessons[:4]:
        prompt, answer = lesson.kept
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            after, before = (
                each(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                for each in (loaded.model, reference)
            )
        means.append(kl_div(after, before, log_target=True, reduction="sum").item() / len(answer))
    assert terms.values["msd/retention"] == pytest.approx(np.mean(means), rel=1e-3)
    alone, _, _ = prepared(replace(method, retention=0.0), start, run)
    distilled = alone(loaded.model, range(4), 0).loss.item()
    assert terms.loss.item() == pytest.approx(distilled + 2.0 * np.mean(means), rel=1e-3)


@pytest.mark.parametrize("fields", [{"scale": "running_mean"}, {"teacher": "ema"}], ids=str)
def test_a_state_that_is_saved_and_loaded_goes_on_as_if_nothing_had_happened(
    start: Checkpoint, tmp_path: Path, fields: dict[str, object]
) -> None:
    made, loaded, _ = prepared(MSD(**fields, **SHORT), start, log(tmp_path / "run"))
    made(loaded.model, range(4), 0)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    again, _, _ = prepared(MSD(**fields, **SHORT), start, log(tmp_path / "run"))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.mul_(1.5)
    one, other = (each(loaded.model, range(4, 8), 1) for each in (made, again))
    assert one.loss.item() == other.loss.item()
    assert one.values == other.values
    assert made.sampled_tokens == again.sampled_tokens
